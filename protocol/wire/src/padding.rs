//! The four sizes an envelope may have, and the padding inside it.
//!
//! Padding is one byte `0x80` followed by zeros (ISO/IEC 7816-4), so that it is removed without a length field.

/// The size of an envelope as the relay sees it, sealing included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SizeClass {
    /// 1 KiB: a short text in a running conversation.
    Small,
    /// 4 KiB: a first message with its post-quantum key exchange.
    Medium,
    /// 16 KiB.
    Large,
    /// 64 KiB: the largest.
    Huge,
}

impl SizeClass {
    /// All classes, smallest first.
    pub const ALL: [Self; 4] = [Self::Small, Self::Medium, Self::Large, Self::Huge];

    /// Length in bytes of a sealed envelope of this class.
    pub const fn sealed_len(self) -> usize {
        match self {
            Self::Small => 1 << 10,
            Self::Medium => 4 << 10,
            Self::Large => 16 << 10,
            Self::Huge => 64 << 10,
        }
    }

    /// ENV-02: the class of a sealed envelope, if its length is one of the four.
    pub fn of_sealed(len: usize) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.sealed_len() == len)
    }

    /// The smallest class that holds `len` bytes, one byte of padding and `overhead` bytes of sealing.
    pub fn fitting(len: usize, overhead: usize) -> Option<Self> {
        let need = len.checked_add(overhead)?.checked_add(1)?;
        Self::ALL.into_iter().find(|class| class.sealed_len() >= need)
    }
}

/// Appends padding to `content` up to `total` bytes. `None` if it does not fit.
pub fn pad(mut content: Vec<u8>, total: usize) -> Option<Vec<u8>> {
    if content.len() >= total {
        return None;
    }
    content.push(0x80);
    content.resize(total, 0);
    Some(content)
}

/// Removes padding. `None` if there is none.
pub fn unpad(mut padded: Vec<u8>) -> Option<Vec<u8>> {
    let end = padded.iter().rposition(|byte| *byte != 0)?;
    if padded.get(end) != Some(&0x80) {
        return None;
    }
    padded.truncate(end);
    Some(padded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_comes_off() {
        for content in [vec![], vec![0], vec![0x80], vec![1, 0x80, 0, 0]] {
            let padded = pad(content.clone(), 16).unwrap();
            assert_eq!(padded.len(), 16);
            assert_eq!(unpad(padded), Some(content));
        }
        assert_eq!(pad(vec![1; 16], 16), None);
        assert_eq!(unpad(vec![0; 16]), None);
        assert_eq!(unpad(vec![1, 0, 0]), None);
    }

    #[test]
    fn classes_are_exact() {
        assert_eq!(SizeClass::fitting(1024 - 41, 40), Some(SizeClass::Small));
        assert_eq!(SizeClass::fitting(1024 - 40, 40), Some(SizeClass::Medium));
        assert_eq!(SizeClass::fitting(64 << 10, 40), None);
        assert_eq!(SizeClass::of_sealed(1025), None);
    }
}
