//! `demo`.

use std::path::PathBuf;

use clap::Args;

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Keep the folder with the vaults and the relay, and say where it is
    #[arg(long)]
    pub keep: bool,
    /// The relay's program [default: lapwing-relay beside this one]
    #[arg(long, value_name = "PATH")]
    pub relay: Option<PathBuf>,
}
