//! The store: what the relay that runs says, else what can be seen without opening it.

use super::{Answer, Finding};
use crate::{
    config::Config,
    place::Place,
    store::{Fault, StoreError, inspect},
};

const NAME: &str = "store";

pub(super) fn examine(place: &Place, config: Option<&Config>, answer: &Answer) -> Finding {
    match answer {
        Answer::Status(_) => return Finding::fine(NAME, "the relay has it open"),
        Answer::None(reason) => {
            return Finding::care(
                NAME,
                format!("the relay runs and did not say how it does: {reason}"),
                "its disk may hang; see its own messages and those of the system",
            );
        }
        Answer::NotRunning => {}
    }
    let found = inspect(&place.store(), config.map(|config| config.storage.engine));
    // Looked at afterwards: what a relay changes meanwhile may have looked like damage.
    judge(found, place.is_in_use())
}

fn judge(found: Result<bool, Fault>, is_in_use: bool) -> Finding {
    if is_in_use {
        return Finding::note(
            NAME,
            "a process has it open and does not answer",
            "if a relay is being started or stopped, look again; else end that process",
        );
    }
    let fault = match found {
        Ok(true) => {
            return Finding::fine(
                NAME,
                "its marks and keys are whole; what it holds is looked at by `serve` only",
            );
        }
        Ok(false) => {
            return Finding::note(
                NAME,
                "there is none",
                "the next start makes an empty one: people's programs create their mailboxes anew, tripwires have to be armed again",
            );
        }
        Err(fault) => fault,
    };
    let advice = match fault.error {
        StoreError::Damaged => {
            "do not start it as it is: see the system's own log about the disk, and restore the relay from a backup in another folder"
        }
        StoreError::Engine => "set storage.engine in relay.toml to the engine of this store",
        StoreError::Version => {
            "use the version of lapwing-relay that wrote it, or restore the relay from a backup"
        }
        _ => "look as the user of the relay; if it is, the disk refuses to read",
    };
    Finding::care(NAME, fault.to_string(), advice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn a_store_is_judged_by_what_was_seen_and_not_while_somebody_has_it() {
        let fault = |error| Err(Fault { file: "store.keys", error });
        assert_eq!(judge(Ok(true), false).level, Level::Fine);
        assert_eq!(judge(Ok(false), false).level, Level::Note);
        for error in [StoreError::Damaged, StoreError::Version, StoreError::Engine, StoreError::Disk] {
            let found = judge(fault(error), false);
            assert!(
                found.level == Level::Care && found.message.starts_with("store.keys"),
                "{}",
                found.message
            );
            assert_eq!(judge(fault(error), true).level, Level::Note, "{error}");
        }
    }
}
