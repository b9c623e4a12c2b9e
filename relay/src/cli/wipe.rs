//! `wipe`: the end of a relay.

use std::{io, time::Duration};

use serde_json::json;

use super::{CliError, WipeArgs, output::Output};
use crate::{
    operator,
    place::{Holder, Place, PlaceError},
};

/// How long a running relay may take to say that it stops. One that does not is stopped itself, or busy with its disk, and whoever
/// wipes has no time.
const ASKING: Duration = Duration::from_secs(5);
/// How long it may take then, or whoever else has the store open: it drains for five seconds at most, but may wait for its disk.
const STOPPING: Duration = Duration::from_secs(7);
/// How long the system may take to end a process at once: it waits for a write that is on its way.
const KILLING: Duration = Duration::from_secs(5);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(100);
/// What a person has to type.
const WORD: &str = "wipe";

pub(super) async fn run(args: &WipeArgs, place: &Place, output: &Output) -> Result<(), CliError> {
    if place.is_empty() {
        return Err(PlaceError::Absent(place.dir().to_path_buf()).into());
    }
    if !args.yes && !is_confirmed(place, output) {
        return Err(CliError::NotConfirmed);
    }
    end_relay(place, output).await?;
    place.wipe(&mut rand::rng())?;
    let text = "The relay is destroyed: keys overwritten, files removed.\n\
                What a disk keeps of overwritten sectors, snapshots and backups are not reached: destroy those too";
    output.result("wiped", json!({ "dir": place.dir().display().to_string() }), text);
    Ok(())
}

/// What it holds open it would write again; whoever cannot be asked is still seen by its lock.
async fn end_relay(place: &Place, output: &Output) -> Result<(), CliError> {
    let wished = operator::wish_end(&place.control(), ASKING).await.ok().flatten();
    let is_waited_for = wished.is_none_or(|wished| wished.is_granted);
    if is_free_within(place, if is_waited_for { STOPPING } else { Duration::ZERO }).await {
        return Ok(());
    }
    // Only whom the kernel names as the one that has the store, whether it still listens or not: a stop removes the socket first, and
    // may hang after that.
    match place.kill_holder(wished.and_then(|wished| wished.process)) {
        Ok(Holder::Ended) => {}
        Ok(Holder::Unseen) => return Err(CliError::Unseen),
        Ok(Holder::Stranger) | Err(_) => return Err(CliError::StillRuns),
    }
    output.talk("the relay did not stop: its process was ended");
    if is_free_within(place, KILLING).await { Ok(()) } else { Err(CliError::StillRuns) }
}

async fn is_free_within(place: &Place, patience: Duration) -> bool {
    let free = async {
        while place.is_in_use() {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(patience, free).await.is_ok()
}

fn is_confirmed(place: &Place, output: &Output) -> bool {
    output.talk(&format!(
        "This destroys the relay in {}: its key, everything that waits on it, every tripwire.\n\
         Nobody can bring it back, and people's programs will not find it again.\n\
         Type the word {WORD} and Enter to go on:",
        place.dir().display()
    ));
    let mut typed = String::new();
    io::stdin().read_line(&mut typed).is_ok() && typed.trim() == WORD
}
