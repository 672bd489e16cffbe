//! Runs a statement on threads of its own, and stops waiting for it at a limit.
//!
//! The first has a stack that planning does not exhaust within the limits of `complexity`; the
//! others carry the partitions. A single step of a statement may occupy all of them for as long as
//! it takes, so the caller's runtime, which takes requests in, is not among them, and the clock is a
//! thread as well: no timer of theirs would go off then.

use std::future::Future;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use tokio::runtime::Builder;
use tokio::sync::oneshot;

use super::QueryLimits;
use crate::error::QueryError;

/// Takes address space, not memory, until it is used.
const STACK_BYTES: usize = 256 << 20;
/// Stack of the thread that watches a statement: it reads a small file, but an allocator may take tens of KiB.
const WATCH_STACK_BYTES: usize = 512 << 10;

/// How often the memory of the process is looked at.
const WATCH_EVERY: Duration = Duration::from_millis(25);

/// How much the process may grow during one statement before the statement is given up, as a
/// multiple of the memory limit. What functions allocate while they make one value is in no
/// account of the engine's; this is the net below it.
const MAX_GROWTH: usize = 4;

/// Growth that is never too much: the program's own pages come into memory when they are used.
const FREE_GROWTH_BYTES: usize = 256 << 20;

/// Runs `work` on a thread of its own until it is done or `limits` are met.
///
/// Dropping the future stops the work at its next pause.
pub(super) async fn run_apart<T, F>(
    limits: &QueryLimits,
    work: impl FnOnce() -> F + Send + 'static,
) -> Result<T, QueryError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, QueryError>>,
{
    let runtime = Builder::new_multi_thread()
        .worker_threads(limits.partitions.max(1))
        .thread_name("statement-part")
        .enable_all()
        .build()
        .map_err(|error| no_thread(&error))?;
    let (mut reply, answer) = oneshot::channel();
    spawn("statement", STACK_BYTES, move || {
        let outcome = runtime.block_on(async {
            tokio::select! {
                outcome = work() => Some(outcome),
                () = reply.closed() => None,
            }
        });
        // A step that is under way ends in its own time; nobody waits for it.
        runtime.shutdown_background();
        if let Some(outcome) = outcome {
            // Nobody waits any more when this fails.
            reply.send(outcome).ok();
        }
    })?;
    let (_done, running) = channel::<()>();
    let (ring, rang) = oneshot::channel();
    let watched = limits.clone();
    spawn("statement-limits", WATCH_STACK_BYTES, move || {
        if let Some(error) = watch(&watched, &running) {
            ring.send(error).ok();
        }
    })?;
    tokio::select! {
        biased;
        outcome = answer => outcome.unwrap_or_else(|_| Err(QueryError::BrokenOff)),
        Ok(error) = rang => Err(error),
    }
}

fn spawn(
    name: &str,
    stack_bytes: usize,
    work: impl FnOnce() + Send + 'static,
) -> Result<(), QueryError> {
    let builder = std::thread::Builder::new().name(name.into()).stack_size(stack_bytes);
    match builder.spawn(work) {
        Ok(_) => Ok(()),
        Err(error) => Err(no_thread(&error)),
    }
}

fn no_thread(error: &std::io::Error) -> QueryError {
    QueryError::Setup { message: format!("cannot start a thread: {error}") }
}

/// Waits until the other end of `running` is dropped, or a limit is met.
fn watch(limits: &QueryLimits, running: &Receiver<()>) -> Option<QueryError> {
    let started = Instant::now();
    let growth = limits.memory_bytes.saturating_mul(MAX_GROWTH).max(FREE_GROWTH_BYTES);
    let allowed = resident_bytes().map(|bytes| bytes.saturating_add(growth));
    loop {
        let left = limits.time.saturating_sub(started.elapsed());
        if left.is_zero() {
            return Some(QueryError::TimeLimit { limit: limits.time });
        }
        if running.recv_timeout(left.min(WATCH_EVERY)) != Err(RecvTimeoutError::Timeout) {
            return None;
        }
        if let (Some(allowed), Some(resident)) = (allowed, resident_bytes())
            && allowed < resident
        {
            return Some(QueryError::MemoryLimit { limit_bytes: limits.memory_bytes });
        }
    }
}

/// Bytes of memory that this process has, where the system tells.
fn resident_bytes() -> Option<usize> {
    const KIB: usize = 1 << 10;
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: usize = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(KIB)
}
