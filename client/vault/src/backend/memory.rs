//! A container in memory: the reference of the backend contract, for tests and rehearsals.

use std::{
    fmt, io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{Backend, poll_lock};

/// Bytes in memory. [`MemoryBackend::another_handle`] gives a second, independent opener of the same bytes,
/// as a second process would be.
pub struct MemoryBackend {
    shared: Arc<Shared>,
    handle: u64,
}

struct Shared {
    state: Mutex<State>,
    next_handle: AtomicU64,
}

#[derive(Default)]
struct State {
    image: Vec<u8>,
    holder: Option<u64>,
    waiting: Vec<u64>,
}

impl MemoryBackend {
    /// Empty: for creating a container.
    pub fn new() -> Self {
        Self::with_image(Vec::new())
    }

    /// With the bytes of a container.
    pub fn with_image(image: Vec<u8>) -> Self {
        let state = Mutex::new(State { image, ..State::default() });
        Self { shared: Arc::new(Shared { state, next_handle: AtomicU64::new(1) }), handle: 0 }
    }

    /// The same bytes, opened a second time.
    pub fn another_handle(&self) -> Self {
        let handle = self.shared.next_handle.fetch_add(1, Ordering::Relaxed);
        Self { shared: Arc::clone(&self.shared), handle }
    }

    /// A copy of the bytes as they are now.
    pub fn image(&self) -> Vec<u8> {
        self.state().image.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryBackend {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryBackend(..)")
    }
}

impl Backend for MemoryBackend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().image.len() as u64)
    }

    fn reserve(&self, _size: u64) -> io::Result<()> {
        Ok(())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let end = start.checked_add(out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        let bytes = state.image.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        let end = start.checked_add(bytes.len()).ok_or(io::ErrorKind::InvalidInput)?;
        if state.image.len() < end {
            state.image.resize(end, 0);
        }
        state.image[start..end].copy_from_slice(bytes);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn finish_creation(&self) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, wait: Duration) -> io::Result<bool> {
        let locked = poll_lock(wait, || {
            let mut state = self.state();
            match state.holder {
                Some(holder) if holder != self.handle => {
                    if !state.waiting.contains(&self.handle) {
                        state.waiting.push(self.handle);
                    }
                    Ok(false)
                }
                _ => {
                    state.holder = Some(self.handle);
                    Ok(true)
                }
            }
        });
        self.state().waiting.retain(|waiter| *waiter != self.handle);
        locked
    }

    fn unlock(&self) {
        let mut state = self.state();
        if state.holder == Some(self.handle) {
            state.holder = None;
        }
    }

    fn lock_requested(&self) -> io::Result<bool> {
        Ok(self.state().waiting.iter().any(|waiter| *waiter != self.handle))
    }
}

impl Drop for MemoryBackend {
    fn drop(&mut self) {
        self.unlock();
    }
}
