//! Safety numbers: what two people compare to know that nobody sits between them (SES-12).
//!
//! ```text
//! half(key) = 30 digits of SHA-512 iterated 5200 times over version 00 00 | key | id | key, then hash | key
//! key       = 05 | identity 32              id = SAFETY_NUMBER label | identity 32
//! number    = the smaller half, then the other: 60 digits, the same for both sides
//! ```
//!
//! The construction is Signal's numeric fingerprint (libsignal `fingerprint.rs`), 5 bytes modulo 100,000 for each
//! group of five digits. Invariant: the number depends on the two identity keys and nothing else.

use std::fmt;

use libsignal_protocol::{Fingerprint, IdentityKey as SignalIdentity};
use subtle::ConstantTimeEq;

use super::error::SessionError;
use crate::{identity::IdentityKey, labels};

/// Version of the construction, shown nowhere and fixed for this label.
const VERSION: u32 = 2;

/// Hash iterations, as in Signal: 112 bits for a forger who searches for a colliding half.
const ITERATIONS: u32 = 5_200;

/// Number of digits.
const DIGITS: usize = 60;

/// The safety number of two identities. Public: people read it to each other.
#[derive(Clone, PartialEq, Eq)]
pub struct SafetyNumber(String);

impl SafetyNumber {
    /// The number of two identities, in either order. Takes about 5 ms.
    ///
    /// # Errors
    /// [`SessionError::WeakKey`] if libsignal refuses a key, which an [`IdentityKey`] excludes.
    pub fn of(one: &IdentityKey, other: &IdentityKey) -> Result<Self, SessionError> {
        let key = |identity: &IdentityKey| identity.to_signal().map_err(|_| SessionError::WeakKey);
        let id = |identity: &IdentityKey| [labels::SAFETY_NUMBER.as_bytes(), identity.as_bytes()].concat();
        let fingerprint = Fingerprint::new(
            VERSION,
            ITERATIONS,
            &id(one),
            &SignalIdentity::new(key(one)?),
            &id(other),
            &SignalIdentity::new(key(other)?),
        )
        .map_err(|_| SessionError::WeakKey)?;
        let digits = fingerprint.display_string().map_err(|_| SessionError::WeakKey)?;
        if digits.len() == DIGITS { Ok(Self(digits)) } else { Err(SessionError::WeakKey) }
    }

    /// The sixty digits without spaces.
    #[must_use]
    pub fn digits(&self) -> &str {
        &self.0
    }

    /// Whether `typed` is this number, in whatever grouping it was typed. Anything but digits and white space is a
    /// mismatch.
    #[must_use]
    pub fn matches(&self, typed: &str) -> bool {
        let typed: String = typed.chars().filter(|c| !c.is_whitespace()).take(DIGITS + 1).collect();
        typed.as_bytes().ct_eq(self.0.as_bytes()).into()
    }
}

impl fmt::Display for SafetyNumber {
    /// Twelve groups of five digits, four groups a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, digit) in self.0.chars().enumerate() {
            if position > 0 && position % 20 == 0 {
                f.write_str("\n")?;
            } else if position > 0 && position % 5 == 0 {
                f.write_str(" ")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for SafetyNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SafetyNumber(..)")
    }
}
