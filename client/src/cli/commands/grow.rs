//! `grow`.

use lapwing_vault::ContainerSize;

use super::vault::Made;
use crate::{
    cli::{args::GrowArgs, exit::Exit, progress::Progress, prompt::Question, shell::Shell, size},
    error::Error,
};

pub(super) async fn grow(shell: &mut Shell, args: &GrowArgs) -> Result<Exit, Error> {
    let container = ContainerSize::new(args.size)
        .map_err(|error| Error::usage(error.to_string(), "try: lapwing grow --size 1GiB"))?;
    let client = shell.unlock().await?;
    client.require_larger(container)?;
    shell.output.talk(format_args!(
        "Everything that this passphrase knows is carried over to a vault of {}; every passphrase stays\n\
         as it is. What it does not know stays behind, for good. The old file is erased.",
        size::words(container.bytes())
    ));
    for (name, _) in client.damaged_keys() {
        shell.output.warn(format_args!(
            "not carried over: the keys of {name} that do not open; the old file is erased, and with it the last copy of them"
        ));
    }
    if !(args.yes || shell.prompt.confirm(Question::new("do that", "--yes"))?) {
        return Err(Error::negative("nothing was changed", "run it again whenever you like"));
    }
    let path = shell.vault.clone();
    let bar = Progress::bar(&shell.output, "writing the larger vault", container.bytes());
    // The bar shows the size, the work is more: it is read back.
    client.grow(&path, container, &mut |done, all| bar.set(scaled(done, all, container.bytes()))).await?;
    drop(bar);
    shell.output.emit(&Made { path: path.display().to_string(), bytes: container.bytes() })?;
    Ok(Exit::Done)
}

/// `done` of `all` as a part of `whole`.
fn scaled(done: u64, all: u64, whole: u64) -> u64 {
    // At most 16 GiB and 1,000: no overflow.
    whole / 1000 * (done.saturating_mul(1000) / all.max(1)).min(1000)
}
