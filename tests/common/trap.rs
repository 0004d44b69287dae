//! A trap for system calls: a thread under seccomp(2), whose every call is reported instead of made.
//!
//! The filter stays until the thread ends, so it must also end in it: calls made once it is disarmed are not made either,
//! but not counted; what a thread does to end (give back its stacks) can fail without harm.

/// Calls whose numbers are kept.
const KEPT: usize = 8;

/// What went into the trap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trapped {
    /// How many calls.
    pub(crate) count: usize,
    /// The numbers of the first of them.
    pub(crate) first: [nix::libc::c_long; KEPT],
}

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) use works::{disarm, set};

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
pub(crate) use missing::{disarm, set};

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod missing {
    use super::Trapped;

    pub(crate) fn set() -> Result<(), String> {
        Err("it knows the registers of x86-64 and aarch64 under Linux only".to_owned())
    }

    pub(crate) fn disarm() -> Trapped {
        Trapped::default()
    }
}

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod works {
    use std::cell::Cell;
    use std::io;

    use nix::libc;

    use super::Trapped;

    thread_local! {
        /// What this thread's trap holds; `None` while it is not armed.
        static TRAPPED: Cell<Option<Trapped>> = const { Cell::new(None) };
    }

    /// SIGSYS: the kernel tells which call it has not made.
    extern "C" fn report(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
        // SAFETY: the handler is installed with SA_SIGINFO, so the third argument is the interrupted thread's context.
        let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
        #[cfg(target_arch = "x86_64")]
        let (number, result) = {
            let result = &mut context.uc_mcontext.gregs[libc::REG_RAX as usize];
            (*result, result)
        };
        #[cfg(target_arch = "aarch64")]
        let (number, result) = (context.uc_mcontext.regs[8].cast_signed(), &mut context.uc_mcontext.regs[0]);
        // Without a destructor, so it may be used from a handler and until the thread's very end.
        TRAPPED.set(TRAPPED.get().map(|mut trapped| {
            if let Some(kept) = trapped.first.get_mut(trapped.count) {
                *kept = number;
            }
            trapped.count += 1;
            trapped
        }));
        *result = -i64::from(libc::ENOSYS) as _;
    }

    /// Sets the trap for the current thread.
    ///
    /// # Errors
    /// The system grants none (in an emulator, or in a container without seccomp).
    pub(crate) fn set() -> Result<(), String> {
        let mut action = libc::sigaction {
            sa_sigaction: report as *const () as usize,
            // SAFETY: an empty set of signals is all zeros.
            sa_mask: unsafe { std::mem::zeroed() },
            sa_flags: libc::SA_SIGINFO,
            sa_restorer: None,
        };
        // SAFETY: `action` is valid, and the handler only uses atomics and its arguments.
        if unsafe { libc::sigaction(libc::SIGSYS, &raw mut action, std::ptr::null_mut()) } != 0 {
            return Err(format!("no handler for SIGSYS: {}", io::Error::last_os_error()));
        }
        // Load the call's number; the three ways out are let through, all else is reported.
        let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
        let jump = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
        let give = libc::BPF_RET | libc::BPF_K;
        let line = |code: u32, to: u8, value: u32| libc::sock_filter { code: code as u16, jt: to, jf: 0, k: value };
        let mut lines = [
            line(load, 0, 0),
            line(jump, 3, libc::SYS_rt_sigreturn as u32),
            line(jump, 2, libc::SYS_exit as u32),
            line(jump, 1, libc::SYS_exit_group as u32),
            line(give, 0, libc::SECCOMP_RET_TRAP),
            line(give, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog { len: lines.len() as u16, filter: lines.as_mut_ptr() };
        // SAFETY: plain numbers.
        if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
            return Err(format!("no seccomp: {}", io::Error::last_os_error()));
        }
        // SAFETY: `program` and its lines live through the call, which copies them.
        if unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) } != 0 {
            return Err(format!("no seccomp: {}", io::Error::last_os_error()));
        }
        TRAPPED.set(Some(Trapped::default()));
        Ok(())
    }

    /// From now on calls are no longer counted (nor made).
    pub(crate) fn disarm() -> Trapped {
        TRAPPED.take().unwrap_or_default()
    }
}
