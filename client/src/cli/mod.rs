//! Commands, prompts, output.
//!
//! | module | what |
//! | --- | --- |
//! | [`args`] | the command line |
//! | [`shell`] | what every command works with |
//! | `commands` | one module per group of verbs |
//! | [`output`], [`prompt`] | the only ways to and from the person |
//! | [`process`] | a whole process: arguments in, exit code out |
//! | [`exit`] | exit codes |
//! | [`progress`], [`qr`], [`strength`], [`alike`], [`table`], [`size`] | how things are shown and read |

pub mod alike;
pub mod args;
mod commands;
pub mod exit;
pub mod output;
pub mod process;
pub mod progress;
pub mod prompt;
pub mod qr;
pub mod shell;
pub mod size;
pub mod strength;
pub mod table;

pub use commands::run;
