//! NIST SP 800-22 revision 1a, all fifteen tests with their 200 results, over one long sequence. The battery is a
//! library's; its authors check it against the worked examples of the publication.

use entropy::{nist, result::Status, rng::Corpus};

use crate::verdict::{Finding, corrected};

/// Bits of a sequence: what the publication asks for, for the tests with the longest need.
pub const BITS: usize = 1_000_000;

/// A sequence cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum BatteryError {
    /// It has another length than a battery needs.
    #[error("a sequence has {0} bytes; a battery needs {expected}", expected = BITS / 8)]
    Length(usize),
    /// A test of the library came to no probability.
    #[error("{0} came to no probability")]
    Failed(String),
}

/// Results over several named sequences, corrected together. Tests that do not apply to a sequence (random excursions
/// of a walk that returns too seldom) are left out.
///
/// # Errors
/// [`BatteryError`].
pub fn judge(sequences: &[(String, &[u8])]) -> Result<Vec<Finding>, BatteryError> {
    let mut raw = Vec::new();
    for (name, bytes) in sequences {
        if bytes.len() != BITS / 8 {
            return Err(BatteryError::Length(bytes.len()));
        }
        let mut corpus = Corpus::from_le_bytes(bytes).map_err(|_| BatteryError::Length(bytes.len()))?;
        for result in nist::run_all(&mut corpus, BITS) {
            match result.status {
                Status::Scored => {
                    let note = result.note.unwrap_or_default();
                    raw.push((format!("{}, {name}", result.name), result.p_value, note));
                }
                Status::Insufficient => {}
                Status::Unsupported | Status::Error => {
                    return Err(BatteryError::Failed(format!("{}, {name}", result.name)));
                }
            }
        }
    }
    Ok(corrected(raw))
}
