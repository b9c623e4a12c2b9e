//! `wipe`: the end of a relay.

use std::{io, time::Duration};

use serde_json::json;

use super::{CliError, WipeArgs, output::Output};
use crate::{
    operator::{self, Ask},
    place::{Place, PlaceError},
};

/// How long a running relay may take to stop: it drains for five seconds at most.
const STOPPING: Duration = Duration::from_secs(15);
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
    // What it holds open it would write again; whoever cannot be asked is still seen by its lock.
    operator::ask(&place.control(), &Ask::Stop).await.ok();
    let stopped = async {
        while place.is_in_use() {
            tokio::time::sleep(LOOK).await;
        }
    };
    if tokio::time::timeout(STOPPING, stopped).await.is_err() {
        return Err(CliError::StillRuns);
    }
    place.wipe(&mut rand::rng())?;
    let text = "The relay is destroyed: keys overwritten, files removed.\n\
                What a disk keeps of overwritten sectors, snapshots and backups are not reached: destroy those too";
    output.result("wiped", json!({ "dir": place.dir().display().to_string() }), text);
    Ok(())
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
