//! What somebody finds who knows everything.
pub mod blocks;
pub mod canary;
