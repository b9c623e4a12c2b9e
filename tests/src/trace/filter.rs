//! Lets a program that is traced stop at calls that matter only, which is a tenth of them: the kernel asks a list before it
//! asks the tracer.

use nix::libc;

use super::table::{self, Shape};

/// Loads the number of the call.
const LOAD_NUMBER: u16 = 0x20;
/// Goes on elsewhere if it is this one.
const IF_EQUAL: u16 = 0x15;
/// Answers.
const ANSWER: u16 = 0x06;

/// The calls that change a file, and those that tell what a descriptor stands for.
fn matters(shape: Shape) -> bool {
    match shape {
        Shape::Open { .. }
        | Shape::Path { .. }
        | Shape::Transfer { write: true, .. }
        | Shape::Vector { write: true, .. }
        | Shape::Sync
        | Shape::Resize { .. }
        | Shape::Command
        | Shape::Close
        | Shape::NewSocket
        | Shape::NewOther
        | Shape::Duplicate => true,
        Shape::Bare
        | Shape::Descriptor
        | Shape::Look { .. }
        | Shape::Transfer { write: false, .. }
        | Shape::Vector { write: false, .. }
        | Shape::Packet
        | Shape::Message
        | Shape::Messages
        | Shape::Map => false,
    }
}

/// The list, as the kernel reads it.
pub(super) fn list() -> Vec<libc::sock_filter> {
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let numbers: Vec<u32> = table::ALL
        .iter()
        .filter(|(_, shape)| matters(*shape))
        .map(|(number, _)| u32::try_from(*number).expect("a number of a call"))
        .collect();
    let mut list = vec![step(LOAD_NUMBER, 0, 0, 0)];
    let left = (0..numbers.len()).rev();
    // Over those that are left, and over the answer to all others.
    list.extend(
        numbers
            .iter()
            .zip(left)
            .map(|(number, left)| step(IF_EQUAL, u8::try_from(left + 1).expect("a short list"), 0, *number)),
    );
    list.extend([libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_TRACE].map(|answer| step(ANSWER, 0, 0, answer)));
    list
}

/// Puts the list before this process, for good. Between fork and exec: two system calls, no memory is taken.
#[expect(unsafe_code, reason = "the C library has no safe way to give the kernel a list of calls")]
pub(super) fn put(list: &mut [libc::sock_filter]) -> std::io::Result<()> {
    let len = libc::c_ushort::try_from(list.len()).map_err(|_| std::io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len, filter: list.as_mut_ptr() };
    // SAFETY: plain numbers; and a pointer to a list that outlives the call, which only reads it.
    let answers = unsafe {
        [
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program),
        ]
    };
    if answers == [0, 0] { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
