//! `demo`: everything at work, with a real relay, real vaults and real connections, each step verified.

mod people;
mod relay;
mod story;

use std::time::Duration;

use crate::{
    cli::{args::DemoArgs, exit::Exit, output::Record, shell::Shell},
    clock,
    error::Error,
};

/// The whole demo, with room for a slow computer; it ends in failure rather than hang.
const TIME: Duration = Duration::from_secs(300);

/// Carries out the demo in a folder of its own, which is removed afterwards.
pub(super) async fn run(shell: &mut Shell, args: &DemoArgs) -> Result<Exit, Error> {
    let folder = people::Folder::new()?;
    let begun = clock::now();
    let told = tokio::time::timeout(TIME, story::tell(shell, args, folder.path())).await;
    let steps = match told {
        Ok(steps) => steps?,
        Err(_) => {
            return Err(Error::refused("the demo took too long", "try again when the computer is less busy"));
        }
    };
    if args.keep {
        shell.output.talk(format_args!("Vaults and relay are kept in {}", folder.keep().display()));
    }
    shell.output.emit(&Finished { steps, seconds: clock::now().since(begun).as_secs() })?;
    Ok(Exit::Done)
}

#[derive(serde::Serialize)]
struct Finished {
    steps: usize,
    seconds: u64,
}

impl Record for Finished {
    const TYPE: &'static str = "demo";
    fn human(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "All {} steps verified in {} seconds.", self.steps, self.seconds)
    }
}
