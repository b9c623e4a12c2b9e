//! Commands, prompts, output.

pub mod exit;
pub mod output;
pub mod progress;
pub mod prompt;
pub mod qr;
pub mod strength;
pub mod table;
