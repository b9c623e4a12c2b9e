//! An unlocked vault.
