//! Whether containers can be told apart by somebody who has no passphrase. Never published, linked by no program.
//!
//! Two populations of containers that differ in what must not show, and a third of plain random bytes, are looked at
//! by the same statistics and by trained classifiers; every result is a p-value, and all of one comparison are
//! corrected together. The same pipeline has to catch controls that leak on purpose: otherwise its silence would mean
//! nothing. Method and figures: `docs/statistics.md`.
//!
//! | module | what |
//! | --- | --- |
//! | [`layout`] | which bytes of a container are looked at |
//! | [`population`] | containers with and without a second passphrase, made from seeds |
//! | [`leak`] | the controls |
//! | [`features`] | what is measured of one container |
//! | [`positions`] | each bit position over a whole population |
//! | [`sample`] | a population, measured |
//! | [`classifier`] | trained on one part of two populations, judged on the other |
//! | [`verdict`] | p-values, their correction, the report |
//! | [`battery`] | NIST SP 800-22 over one long sequence |
//!
//! Everything is seeded: a run gives the same figures on every machine of the same word size.

#![expect(clippy::cast_precision_loss, reason = "counts are far below 2^52; they become statistics")]

pub mod battery;
pub mod classifier;
pub mod features;
pub mod layout;
pub mod leak;
pub mod population;
pub mod positions;
pub mod sample;
pub mod verdict;
