//! Memory that holds secrets: the one secret type, the wiping allocator, and what a process can do to keep
//! its memory to itself.
//!
//! # Security
//!
//! Wiping shortens the time in which a secret can be read from memory; it cannot help while the vault is
//! open, against the kernel, or against whoever controls the process. Registers are not wiped; what the stack frames of the
//! ciphers leave is, by [`wipe_stack`] at the end of a command.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    fmt, io,
    ops::{Deref, DerefMut},
    ptr::NonNull,
};

use rand_core::CryptoRng;
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// `N` secret bytes: boxed, filled in place, wiped on drop, compared in constant time.
///
/// There is no `Clone`: a second copy is made on purpose with [`Secret::duplicate`]. `Debug` prints neither
/// content nor length nor a hash.
pub struct Secret<const N: usize> {
    store: Store<N>,
}

/// Where the bytes lie.
enum Store<const N: usize> {
    /// Between guard pages, locked, excluded from core dumps: for keys that live as long as a session.
    Guarded(NonNull<[u8; N]>),
    /// On the heap: for keys of one operation, and where no guarded page could be had.
    Heap(Box<[u8; N]>),
}

// SAFETY: the pointer is owned by this value alone, and all access goes through `&self` or `&mut self`.
#[expect(unsafe_code, reason = "an owned allocation is as sendable as a Box")]
unsafe impl<const N: usize> Send for Store<N> {}
// SAFETY: `&Store` only reads.
#[expect(unsafe_code, reason = "an owned allocation is as shareable as a Box")]
unsafe impl<const N: usize> Sync for Store<N> {}

impl<const N: usize> Secret<N> {
    /// A secret on the heap, filled by `fill`.
    pub fn filled(fill: impl FnOnce(&mut [u8; N])) -> Self {
        let mut bytes = Box::new([0; N]);
        fill(&mut bytes);
        Self { store: Store::Heap(bytes) }
    }

    /// A secret between guard pages in locked memory, filled by `fill`. Where the system refuses such
    /// memory (the usual limit is 8 MiB per process), the heap is used: a session is never refused for it.
    pub fn guarded(fill: impl FnOnce(&mut [u8; N])) -> Self {
        // SAFETY: `malloc` gives exclusively owned memory for one `[u8; N]` or nothing; any bit pattern is
        // a valid `[u8; N]`, and it is freed only in `drop`.
        #[expect(unsafe_code, reason = "memsec's allocator is a foreign interface")]
        let allocated = unsafe { memsec::malloc::<[u8; N]>() };
        match allocated {
            Some(mut pointer) => {
                // SAFETY: see above; nobody else holds the pointer yet.
                #[expect(unsafe_code, reason = "filling the fresh allocation in place")]
                let bytes = unsafe { pointer.as_mut() };
                bytes.fill(0);
                fill(bytes);
                Self { store: Store::Guarded(pointer) }
            }
            None => Self::filled(fill),
        }
    }

    /// `N` random bytes, guarded.
    pub fn random(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        Self::guarded(|bytes| rng.fill_bytes(bytes))
    }

    /// A guarded copy, made on purpose.
    pub fn duplicate(&self) -> Self {
        Self::guarded(|bytes| bytes.copy_from_slice(self.expose()))
    }

    /// The bytes. Every call is a place to look at in a review.
    pub fn expose(&self) -> &[u8; N] {
        match &self.store {
            // SAFETY: the pointer is valid until `drop`, and `&self` excludes writers.
            #[expect(unsafe_code, reason = "reading the owned guarded allocation")]
            Store::Guarded(pointer) => unsafe { pointer.as_ref() },
            Store::Heap(bytes) => bytes,
        }
    }

    /// Whether both hold the same bytes, in constant time.
    pub fn equals(&self, other: &Self) -> bool {
        self.expose().ct_eq(other.expose()).into()
    }
}

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl<const N: usize> Drop for Secret<N> {
    fn drop(&mut self) {
        match &mut self.store {
            Store::Guarded(pointer) => {
                let pointer = *pointer;
                // SAFETY: allocated by `memsec::malloc`, freed once, not used afterwards; `free` wipes.
                #[expect(unsafe_code, reason = "memsec's allocator is a foreign interface")]
                unsafe {
                    memsec::free(pointer);
                }
            }
            Store::Heap(bytes) => bytes.zeroize(),
        }
    }
}

/// Secret bytes on the heap, wiped on drop at the speed of memory: for pages, of which a commit has dozens. What
/// [`zeroize`] does byte by byte takes as long as encrypting them.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Wiped(Vec<u8>);

impl Wiped {
    /// So many zeros.
    pub(crate) fn zeros(len: usize) -> Self {
        Self(vec![0; len])
    }
}

impl From<&[u8]> for Wiped {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl Deref for Wiped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Wiped {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl fmt::Debug for Wiped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wiped(..)")
    }
}

impl Drop for Wiped {
    fn drop(&mut self) {
        // SAFETY: the vector's own bytes, which nobody else borrows now. The call is not inlined, so that it is not
        // taken for a store which nobody reads.
        #[expect(unsafe_code, reason = "the wiping function takes a pointer")]
        unsafe {
            memsec::memzero(self.0.as_mut_ptr(), self.0.len());
        }
    }
}

/// A global allocator that wipes every block it frees, so that no copy a library made outlives its use.
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: lapwing_vault::WipingAllocator = lapwing_vault::WipingAllocator;
/// # fn main() {}
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct WipingAllocator;

// SAFETY: every call is passed to `System` with the layout it came with; the only addition is writing zeros
// to a block of exactly that layout before it is freed.
#[expect(unsafe_code, reason = "the allocator trait is unsafe by definition")]
unsafe impl GlobalAlloc for WipingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc_zeroed`. Fresh pages come zeroed from
        // the system, which keeps large allocations (Argon2's) from being touched twice.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the block is `layout.size()` bytes long and still owned by the caller.
        unsafe {
            memsec::memzero(pointer, layout.size());
            System.dealloc(pointer, layout);
        }
    }

    // `System.realloc` may move a block and leave the old one unwiped: allocate, copy, wipe, free instead.
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller guarantees a valid block, and that `new_size` makes a valid layout with the old
        // alignment; the regions do not overlap, since the new block is fresh.
        unsafe {
            let new_layout = Layout::from_size_align_unchecked(new_size, layout.align());
            let new_pointer = System.alloc(new_layout);
            if !new_pointer.is_null() {
                std::ptr::copy_nonoverlapping(pointer, new_pointer, layout.size().min(new_size));
                self.dealloc(pointer, layout);
            }
            new_pointer
        }
    }
}

/// Closes the process to other processes: no core dump, no `ptrace` and no `/proc` access for other
/// processes of the same user. Call it before the first passphrase is read. It works without privileges.
///
/// # Errors
///
/// The system's error, when a limit cannot be set; the caller decides whether to go on with a warning.
pub fn harden_process() -> io::Result<()> {
    use nix::sys::resource::{Resource, setrlimit};
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    nix::sys::prctl::set_dumpable(false)?;
    Ok(())
}

/// Keeps what the process holds now out of swap. Call it after the vault is unlocked, never before:
/// Argon2 would then need 256 MiB of lockable memory, where 8 MiB is the usual limit.
///
/// # Errors
///
/// The system's error, usually that the process is larger than its limit. Harmless: guarded secrets are
/// locked one by one, and `doctor` warns when swap is not encrypted.
pub fn lock_memory() -> io::Result<()> {
    use nix::sys::mman::{MlockAllFlags, mlockall};
    mlockall(MlockAllFlags::MCL_CURRENT)?;
    Ok(())
}

/// How much of the stack below the caller is overwritten: several times what decoding and ciphers use, a sixteenth of
/// what a program usually has.
const STACK_WIPED: usize = 512 << 10;

/// Overwrites what functions that have returned left on the stack of this thread, below the caller: decoders and ciphers
/// keep texts and keys there, and nothing clears them. Call it last, when the vault is closed.
#[inline(never)]
pub fn wipe_stack() {
    let mut left = [0u8; STACK_WIPED];
    left.as_mut_slice().zeroize();
    std::hint::black_box(&left);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_prints_no_byte_of_a_secret() {
        let secret = Secret::<4>::filled(|bytes| bytes.copy_from_slice(b"abcd"));
        assert_eq!(format!("{secret:?}"), "Secret(..)");
        let secret = Secret::<4>::guarded(|bytes| bytes.copy_from_slice(b"abcd"));
        assert_eq!(format!("{secret:#?}"), "Secret(..)");
    }

    #[test]
    fn copies_are_equal_and_others_are_not() {
        let one = Secret::<32>::guarded(|bytes| bytes.fill(7));
        assert!(one.equals(&one.duplicate()));
        assert!(!one.equals(&Secret::filled(|bytes| bytes.fill(8))));
        assert_eq!(one.expose(), &[7; 32]);
    }

    #[test]
    fn allocator_keeps_contents_when_a_block_grows_and_shrinks() {
        let allocator = WipingAllocator;
        let layout = Layout::from_size_align(64, 8).unwrap();
        // SAFETY: the layouts match the blocks, and each block is freed once.
        #[expect(unsafe_code, reason = "calling the allocator directly")]
        unsafe {
            let block = allocator.alloc(layout);
            std::ptr::write_bytes(block, 0x5a, 64);
            let grown = allocator.realloc(block, layout, 256);
            assert!((0..64).all(|i| *grown.add(i) == 0x5a));
            let shrunk = allocator.realloc(grown, Layout::from_size_align(256, 8).unwrap(), 16);
            assert!((0..16).all(|i| *shrunk.add(i) == 0x5a));
            allocator.dealloc(shrunk, Layout::from_size_align(16, 8).unwrap());
        }
    }
}
