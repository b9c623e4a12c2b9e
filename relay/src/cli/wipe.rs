//! `wipe`: the end of a relay.

use std::{io, time::Duration};

use serde_json::json;
use tokio::time::Instant;

use super::{CliError, WipeArgs, output::Output};
use crate::{
    operator,
    place::{FolderLock, Holder, Place, PlaceError},
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
/// How often it is then: sooner than a relay that something starts again can take the folder.
const LOOK_AFTER_KILL: Duration = Duration::from_millis(2);
/// What a person has to type.
const WORD: &str = "wipe";

pub(super) async fn run(args: &WipeArgs, place: &Place, output: &Output) -> Result<(), CliError> {
    if place.is_empty()? {
        return Err(PlaceError::Absent(place.dir().to_path_buf()).into());
    }
    if !args.yes && !is_confirmed(place, output) {
        return Err(CliError::NotConfirmed);
    }
    let held = take(place, output).await?;
    place.wipe(&held, &mut rand::rng())?;
    let text = "The relay is destroyed: keys overwritten, files removed.\n\
                What a disk keeps of overwritten sectors, snapshots and backups are not reached: destroy those too";
    output.result("wiped", json!({ "dir": place.dir().display().to_string() }), text);
    Ok(())
}

/// Ends whoever uses the folder, and takes it: until everything is destroyed nobody begins to use it.
///
/// What it holds open it would write again; whoever cannot be asked is still seen by its lock.
async fn take(place: &Place, output: &Output) -> Result<FolderLock, CliError> {
    let is_granted = operator::wish_end(&place.control(), ASKING).await.ok().flatten();
    let patience = if is_granted.unwrap_or(true) { STOPPING } else { Duration::ZERO };
    let mut lock = place.lock()?;
    let taken = tokio::time::timeout(patience, async {
        while !is_taken(&mut lock)? {
            tokio::time::sleep(LOOK).await;
        }
        Ok::<_, PlaceError>(())
    });
    match taken.await {
        Ok(taken) => return Ok(taken.map(|()| lock)?),
        Err(_late) => {}
    }
    // Whoever the kernel names, whether it still listens or not: a stop removes the socket first, and may hang after that. Again and again:
    // something may start a relay that was ended at once.
    let begun = Instant::now();
    let mut has_told = false;
    loop {
        if is_taken(&mut lock)? {
            return Ok(lock);
        }
        // With the folder's lock taken, it is an engine's that somebody has: no program of this version, and nobody knows who.
        let ended = if lock.is_taken() { Ok(Holder::Gone) } else { lock.end_holder() };
        if matches!(ended, Ok(Holder::Ended)) && !has_told {
            output.talk("the relay did not stop: its process was ended");
            has_told = true;
        }
        if begun.elapsed() >= KILLING {
            return Err(if matches!(ended, Ok(Holder::Unseen)) {
                CliError::Unseen
            } else {
                CliError::StillRuns
            });
        }
        tokio::time::sleep(LOOK_AFTER_KILL).await;
    }
}

fn is_taken(lock: &mut FolderLock) -> Result<bool, PlaceError> {
    Ok(lock.try_take()? && lock.try_take_engines()?)
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
