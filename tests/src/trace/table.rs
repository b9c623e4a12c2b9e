//! Names and kinds of system calls. The numbers are the C library's for the system this was built for.

use nix::libc;

/// What the arguments of a call are. Numbers are places of arguments, from 0.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    /// Nothing of it is the same in every run but its name.
    Bare,
    /// A descriptor is the first argument.
    Descriptor,
    /// Opens the path in argument `path` with the flags behind it.
    Open { path: usize },
    /// Changes which files there are: the path in `path`, and where it leads in `second`.
    Path { path: usize, second: Option<usize> },
    /// Looks at the path in `path`.
    Look { path: usize },
    /// Reads or writes: descriptor 0, length 2, offset 3 if `at`.
    Transfer { write: bool, at: bool },
    /// Reads or writes several buffers: descriptor 0, their list 1 and number 2, offset 3 if `at`.
    Vector { write: bool, at: bool },
    /// Sends or receives: descriptor 0, length 2.
    Packet,
    /// Sends or receives: descriptor 0, a message header 1.
    Message,
    /// Sends or receives several: descriptor 0, their list 1.
    Messages,
    /// Makes data durable: descriptor 0.
    Sync,
    /// Sets the length of descriptor 0: argument `length`.
    Resize { length: usize },
    /// A command: descriptor 0, command 1.
    Command,
    /// Length in 1, flags in 2.
    Map,
    /// Gives back a descriptor.
    Close,
    /// Returns a descriptor of its own kind.
    NewSocket,
    /// Returns a descriptor that is neither file nor socket.
    NewOther,
    /// Returns another number for descriptor 0.
    Duplicate,
}

macro_rules! table {
    ($($(#[$when:meta])* $number:ident $name:literal $shape:expr;)+) => {
        /// Number and shape of every call in the table.
        pub(super) const ALL: &[(libc::c_long, Shape)] = {
            use Shape::*;
            &[$($(#[$when])* (libc::$number, $shape),)+]
        };

        /// Name and shape of a call.
        pub(super) fn call(number: u64) -> (String, Shape) {
            use Shape::*;
            let Ok(number) = libc::c_long::try_from(number) else { return (format!("call {number}"), Bare) };
            match number {
                $($(#[$when])* libc::$number => ($name.to_owned(), $shape),)+
                other => (format!("call {other}"), Bare),
            }
        }
    };
}

table! {
    SYS_read "read" Transfer { write: false, at: false };
    SYS_write "write" Transfer { write: true, at: false };
    SYS_pread64 "pread" Transfer { write: false, at: true };
    SYS_pwrite64 "pwrite" Transfer { write: true, at: true };
    SYS_readv "readv" Vector { write: false, at: false };
    SYS_writev "writev" Vector { write: true, at: false };
    SYS_preadv "preadv" Vector { write: false, at: true };
    SYS_pwritev "pwritev" Vector { write: true, at: true };
    SYS_preadv2 "preadv2" Vector { write: false, at: true };
    SYS_pwritev2 "pwritev2" Vector { write: true, at: true };
    SYS_openat "openat" Open { path: 1 };
    #[cfg(target_arch = "x86_64")]
    SYS_open "open" Open { path: 0 };
    #[cfg(target_arch = "x86_64")]
    SYS_creat "creat" Path { path: 0, second: None };
    SYS_unlinkat "unlinkat" Path { path: 1, second: None };
    #[cfg(target_arch = "x86_64")]
    SYS_unlink "unlink" Path { path: 0, second: None };
    #[cfg(target_arch = "x86_64")]
    SYS_rename "rename" Path { path: 0, second: Some(1) };
    #[cfg(target_arch = "x86_64")]
    SYS_link "link" Path { path: 0, second: Some(1) };
    #[cfg(target_arch = "x86_64")]
    SYS_symlink "symlink" Path { path: 0, second: Some(1) };
    #[cfg(target_arch = "x86_64")]
    SYS_mkdir "mkdir" Path { path: 0, second: None };
    #[cfg(target_arch = "x86_64")]
    SYS_rmdir "rmdir" Path { path: 0, second: None };
    #[cfg(target_arch = "x86_64")]
    SYS_chmod "chmod" Path { path: 0, second: None };
    SYS_renameat2 "renameat2" Path { path: 1, second: Some(3) };
    SYS_renameat "renameat" Path { path: 1, second: Some(3) };
    SYS_linkat "linkat" Path { path: 1, second: Some(3) };
    SYS_symlinkat "symlinkat" Path { path: 0, second: Some(2) };
    SYS_mkdirat "mkdirat" Path { path: 1, second: None };
    SYS_truncate "truncate" Path { path: 0, second: None };
    SYS_ftruncate "ftruncate" Resize { length: 1 };
    SYS_fallocate "fallocate" Resize { length: 3 };
    SYS_fsync "fsync" Sync;
    SYS_fdatasync "fdatasync" Sync;
    SYS_fstat "fstat" Descriptor;
    SYS_fchmod "fchmod" Descriptor;
    SYS_lseek "lseek" Descriptor;
    SYS_getdents64 "getdents64" Descriptor;
    SYS_fcntl "fcntl" Command;
    SYS_ioctl "ioctl" Command;
    SYS_close "close" Close;
    SYS_dup "dup" Duplicate;
    SYS_dup3 "dup3" Duplicate;
    #[cfg(target_arch = "x86_64")]
    SYS_dup2 "dup2" Duplicate;
    SYS_socket "socket" NewSocket;
    SYS_accept4 "accept4" NewSocket;
    SYS_epoll_create1 "epoll_create1" NewOther;
    SYS_eventfd2 "eventfd2" NewOther;
    SYS_timerfd_create "timerfd_create" NewOther;
    SYS_connect "connect" Descriptor;
    SYS_bind "bind" Descriptor;
    SYS_sendto "sendto" Packet;
    SYS_recvfrom "recvfrom" Packet;
    SYS_sendmsg "sendmsg" Message;
    SYS_recvmsg "recvmsg" Message;
    SYS_sendmmsg "sendmmsg" Messages;
    SYS_recvmmsg "recvmmsg" Messages;
    SYS_setsockopt "setsockopt" Descriptor;
    SYS_getsockopt "getsockopt" Descriptor;
    SYS_getsockname "getsockname" Descriptor;
    SYS_mmap "mmap" Map;
    SYS_mprotect "mprotect" Map;
    SYS_munmap "munmap" Map;
    SYS_mlock "mlock" Map;
    SYS_munlock "munlock" Map;
    SYS_madvise "madvise" Map;
    SYS_brk "brk" Bare;
    SYS_mlockall "mlockall" Bare;
    SYS_prctl "prctl" Bare;
    SYS_prlimit64 "prlimit64" Bare;
    SYS_getrandom "getrandom" Bare;
    SYS_clone3 "clone3" Bare;
    SYS_clone "clone" Bare;
    SYS_futex "futex" Bare;
    #[cfg(target_arch = "x86_64")]
    SYS_epoll_wait "epoll_wait" Bare;
    SYS_epoll_pwait "epoll_pwait" Bare;
    SYS_epoll_ctl "epoll_ctl" Bare;
    SYS_ppoll "ppoll" Bare;
    SYS_statx "statx" Look { path: 1 };
    SYS_newfstatat "newfstatat" Look { path: 1 };
    #[cfg(target_arch = "x86_64")]
    SYS_readlink "readlink" Look { path: 0 };
    #[cfg(target_arch = "x86_64")]
    SYS_access "access" Look { path: 0 };
    #[cfg(target_arch = "x86_64")]
    SYS_poll "poll" Bare;
    SYS_readlinkat "readlinkat" Look { path: 1 };
    SYS_rt_sigaction "rt_sigaction" Bare;
    SYS_rt_sigprocmask "rt_sigprocmask" Bare;
    SYS_sigaltstack "sigaltstack" Bare;
    SYS_sched_getaffinity "sched_getaffinity" Bare;
    SYS_sched_yield "sched_yield" Bare;
    SYS_clock_nanosleep "clock_nanosleep" Bare;
    SYS_exit_group "exit_group" Bare;
    SYS_exit "exit" Bare;
    SYS_execve "execve" Bare;
    SYS_set_tid_address "set_tid_address" Bare;
    SYS_set_robust_list "set_robust_list" Bare;
    SYS_rseq "rseq" Bare;
    SYS_gettid "gettid" Bare;
    SYS_getpid "getpid" Bare;
}
