//! Runs futures for Python: without the GIL, and until `Ctrl-C`.

use std::future::Future;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use tokio::runtime::{Builder, Runtime};
use tracelake_archive::Fault;
use tracelake_archive::client::CancellationToken;

use crate::error::exception;

/// How often Python is asked whether a signal has arrived.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long threads may take to end once their work is done.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// How long threads may take to end when a signal broke their work off. What is in the middle of a
/// computation then ends by itself.
const BROKEN_OFF_TIMEOUT: Duration = Duration::from_millis(250);

/// What becomes of a call that a signal breaks off.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ending {
    /// It is dropped: it changes nothing here.
    Dropped,
    /// Told to end, it may take so long before it is dropped.
    InOrder(Duration),
}

impl Ending {
    /// Of a call whose work is done by a service. Whatever is dropped here, the service keeps what
    /// it has taken in.
    pub(crate) const AT_A_SERVICE: Self = Self::InOrder(Duration::from_millis(500));

    /// Of a service that is stopped: what was acknowledged is in its journal.
    pub(crate) const OF_A_SERVICE: Self = Self::InOrder(Duration::from_millis(500));

    /// Of a call that writes to a folder in this process: a commit may be under way.
    pub(crate) const IN_A_FOLDER: Self = Self::InOrder(Duration::from_secs(20));
}

/// A runtime with threads of its own; none is left when it is shut down.
pub(crate) fn runtime() -> PyResult<Runtime> {
    Ok(Builder::new_multi_thread().thread_name("tracelake").enable_all().build()?)
}

/// Runs one call to its end. At `Ctrl-C` its token is cancelled, and the signal's exception raised
/// when it has ended as `ending` says; a second `Ctrl-C` drops it at once.
///
/// The call has a thread of its own, so that signals are seen while it computes.
pub(crate) fn run<T, F>(
    py: Python<'_>,
    ending: Ending,
    call: impl FnOnce(CancellationToken) -> F + Send + 'static,
) -> PyResult<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Fault>>,
{
    run_on(py, runtime()?, ending, call)
}

/// The same on a runtime that is there, which ends with the call.
pub(crate) fn run_on<T, F>(
    py: Python<'_>,
    runtime: Runtime,
    ending: Ending,
    call: impl FnOnce(CancellationToken) -> F + Send + 'static,
) -> PyResult<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Fault>>,
{
    let stop = Stop::default();
    let (reply, done) = mpsc::sync_channel(1);
    let (handle, told) = (runtime.handle().clone(), stop.clone());
    let thread =
        std::thread::Builder::new().name("tracelake-call".to_owned()).spawn(move || {
            let work = call(told.cancel.clone());
            let ended = handle.block_on(told.dropped.run_until_cancelled(work));
            // Nobody listens any more to a call that was dropped.
            ended.and_then(|ended| reply.send(ended).ok())
        })?;
    let outcome = py.detach(move || {
        let outcome = watch(&done, &stop, ending);
        let patience = match &outcome {
            Outcome::Signalled(_) => BROKEN_OFF_TIMEOUT,
            Outcome::Done(_) | Outcome::Panicked => SHUTDOWN_TIMEOUT,
        };
        runtime.shutdown_timeout(patience);
        outcome
    });
    match outcome {
        Outcome::Done(done) => {
            // It has nothing left to do but to end.
            thread.join().ok();
            done.map_err(|fault| exception(py, &fault))
        }
        Outcome::Signalled(error) => Err(error),
        Outcome::Panicked => match thread.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(_) => Err(PyRuntimeError::new_err("a call ended without an answer")),
        },
    }
}

/// How a call is told to end.
#[derive(Clone, Default)]
struct Stop {
    /// In order.
    cancel: CancellationToken,
    /// Wherever it is.
    dropped: CancellationToken,
}

enum Outcome<T> {
    Done(Result<T, Fault>),
    Signalled(PyErr),
    Panicked,
}

/// Waits for the end of a call, or for a signal and what follows from it. Not on the runtime: its
/// clock stands still while computations have all of its threads.
fn watch<T>(done: &Receiver<Result<T, Fault>>, stop: &Stop, ending: Ending) -> Outcome<T> {
    let signalled = loop {
        match done.recv_timeout(LOOK_EVERY) {
            Ok(done) => return Outcome::Done(done),
            Err(RecvTimeoutError::Disconnected) => return Outcome::Panicked,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if let Err(raised) = check_signals() {
            break raised;
        }
    };
    stop.cancel.cancel();
    if let Ending::InOrder(patience) = ending {
        let begun = Instant::now();
        while begun.elapsed() < patience
            && matches!(done.recv_timeout(LOOK_EVERY), Err(RecvTimeoutError::Timeout))
            && check_signals().is_ok()
        {}
    }
    stop.dropped.cancel();
    // What it says does not matter any more; it has ended when nobody can say anything.
    while let Ok(_late) = done.recv_timeout(BROKEN_OFF_TIMEOUT) {}
    Outcome::Signalled(signalled)
}

/// What the handler of a signal raised, if one has arrived.
fn check_signals() -> PyResult<()> {
    Python::attach(|py| py.check_signals())
}
