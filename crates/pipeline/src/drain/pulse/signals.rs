//! Signals that a process brings upon itself: the handler writes which one it was, and lets it take its course.
//!
//! A failed allocation and a full stack end in `SIGABRT`, faults in the others. One that another process sent
//! says nothing.

/// The name of a signal that is told.
pub(super) const fn name(signal: u8) -> Option<&'static str> {
    // The numbers of Linux.
    match signal {
        4 => Some("SIGILL"),
        6 => Some("SIGABRT"),
        7 => Some("SIGBUS"),
        8 => Some("SIGFPE"),
        11 => Some("SIGSEGV"),
        _ => None,
    }
}

#[cfg(target_os = "linux")]
pub(super) use linux::{hush, tell};

#[cfg(not(target_os = "linux"))]
pub(super) const fn tell(_: &std::fs::File, _: u64) {}

#[cfg(not(target_os = "linux"))]
pub(super) const fn hush(_: &std::fs::File) {}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "no safe crate lets a signal go on to whom it went before")]
mod linux {
    use std::fs::File;
    use std::io;
    use std::mem::MaybeUninit;
    use std::os::fd::AsRawFd as _;
    use std::ptr;
    use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU32, Ordering};
    use std::sync::{Mutex, OnceLock, PoisonError};

    use libc::{c_int, c_void};
    use tracing::warn;

    /// What the process did with each signal before.
    static BEFORE: OnceLock<[(c_int, libc::sigaction); 5]> = OnceLock::new();

    const SIGNALS: [c_int; 5] =
        [libc::SIGABRT, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGSEGV];

    /// Where the handler writes to; -1 for nowhere.
    static DESCRIPTOR: AtomicI32 = AtomicI32::new(-1);
    static OFFSET: AtomicI64 = AtomicI64::new(0);

    /// The process that it is of: a child that it forks has the handler too, and dies of its own.
    static PROCESS: AtomicI32 = AtomicI32::new(0);

    /// Handlers that run at this moment. A file is let go when there is none: what one of them writes to is no
    /// other file.
    static RUNNING: AtomicU32 = AtomicU32::new(0);

    /// Whose word it is, by the descriptor of its file; -1 for nobody's.
    static SPOKEN_FOR: Mutex<c_int> = Mutex::new(-1);

    /// From now on a signal of this process is written to `file`, which stays open until [`hush`], unless another
    /// one is spoken for.
    pub(in super::super) fn tell(file: &File, offset: u64) {
        let mut spoken = SPOKEN_FOR.lock().unwrap_or_else(PoisonError::into_inner);
        if *spoken != -1 {
            return;
        }
        if let Err(error) = install() {
            warn!(%error, "a death by a signal would not be told from a kill");
            return;
        }
        OFFSET.store(i64::try_from(offset).unwrap_or(i64::MAX), Ordering::SeqCst);
        PROCESS.store(std::process::id().cast_signed(), Ordering::SeqCst);
        DESCRIPTOR.store(file.as_raw_fd(), Ordering::SeqCst);
        *spoken = file.as_raw_fd();
    }

    /// No signal is written to `file` any more when this returns.
    pub(in super::super) fn hush(file: &File) {
        let mut spoken = SPOKEN_FOR.lock().unwrap_or_else(PoisonError::into_inner);
        if *spoken == file.as_raw_fd() {
            DESCRIPTOR.store(-1, Ordering::SeqCst);
            while RUNNING.load(Ordering::SeqCst) != 0 {
                std::thread::yield_now();
            }
            *spoken = -1;
        }
    }

    /// Puts the handler before those of the process, once.
    fn install() -> io::Result<()> {
        if BEFORE.get().is_some() {
            return Ok(());
        }
        let mut before = Vec::new();
        for signal in SIGNALS {
            let mut action = MaybeUninit::<libc::sigaction>::zeroed();
            // SAFETY: nothing is changed, and the place takes what was there.
            if unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) } != 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: the call filled it; zeros are an action too.
            before.push((signal, unsafe { action.assume_init() }));
        }
        let Ok(before) = <[_; 5]>::try_from(before) else { return Ok(()) };
        BEFORE.get_or_init(|| before);
        for signal in SIGNALS {
            let mut action = MaybeUninit::<libc::sigaction>::zeroed();
            // SAFETY: an action of zeros is one without flags and an empty mask; the handler calls
            // nothing that a handler must not call, and is one of three arguments, as the flag says.
            let set = unsafe {
                let action = action.assume_init_mut();
                action.sa_sigaction = on_signal as *const () as libc::sighandler_t;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
                libc::sigaction(signal, action, ptr::null_mut())
            };
            if set != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }

    /// Writes down a signal that the process brought upon itself, and gives each to whom it went before: a fault
    /// comes again when this returns, one that was sent is sent again.
    extern "C" fn on_signal(signal: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
        // SAFETY: the kernel calls this with what it knows of the signal. All calls are among those that are
        // allowed in a handler; the word is alive during the call that writes it, the action lives on.
        unsafe {
            let is_sent = (*info).si_code <= 0;
            let process = PROCESS.load(Ordering::SeqCst);
            let is_own = libc::getpid() == process && (!is_sent || (*info).si_pid() == process);
            RUNNING.fetch_add(1, Ordering::SeqCst);
            let descriptor = DESCRIPTOR.load(Ordering::SeqCst);
            if is_own && descriptor != -1 {
                let number = u8::try_from(signal).unwrap_or(0);
                let word = super::super::encode_ended(number);
                let offset = OFFSET.load(Ordering::SeqCst);
                libc::pwrite(descriptor, word.as_ptr().cast(), word.len(), offset);
            }
            RUNNING.fetch_sub(1, Ordering::SeqCst);
            let before = BEFORE.get().and_then(|all| all.iter().find(|(one, _)| *one == signal));
            if let Some((_, action)) = before {
                libc::sigaction(signal, action, ptr::null_mut());
            }
            if is_sent {
                libc::raise(signal);
            }
        }
    }
}
