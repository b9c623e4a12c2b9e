//! The one container for bytes that must not be seen or left behind.

use std::fmt;

use zeroize::{Zeroize, Zeroizing};

/// Secret bytes of any length: private keys, session records, plaintexts.
///
/// Wiped when dropped. Has no `Clone`, `PartialEq`, `Display` or serde: persisting goes through the owning type's
/// `export`, reading through [`SecretBytes::expose`].
///
/// # Security
/// Wiping covers this buffer only. libsignal's own types do not wipe theirs; the binaries therefore run on an
/// allocator that wipes what it frees.
pub struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    /// Takes over `bytes`, which are wiped when the value is dropped.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// A copy of `bytes`. The source stays the caller's to wipe.
    #[must_use]
    pub fn copy_of(bytes: &[u8]) -> Self {
        Self::new(bytes.to_vec())
    }

    /// The bytes.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Removes the first `count` bytes, which are wiped; all of them when there are fewer.
    pub(crate) fn drop_front(&mut self, count: usize) {
        let len = self.0.len();
        let count = count.min(len);
        self.0.copy_within(count.., 0);
        if let Some(tail) = self.0.get_mut(len - count..) {
            tail.zeroize();
        }
        self.0.truncate(len - count);
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_neither_bytes_nor_length() {
        assert_eq!(format!("{:?}", SecretBytes::new(vec![0xA5; 7])), "SecretBytes(..)");
    }

    #[test]
    fn drop_front_keeps_the_rest() {
        for cut in 0..6 {
            let mut secret = SecretBytes::new(vec![1, 2, 3, 4]);
            secret.drop_front(cut);
            assert_eq!(secret.expose(), &[1, 2, 3, 4][cut.min(4)..]);
        }
    }
}
