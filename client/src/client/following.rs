//! A client that stays connected.

use std::time::Duration;

use super::Client;
use crate::{
    driver::{Compartment, Next, Parting, Report},
    engine::Effect,
    signals::Stop,
};

/// How often a follower presents again what no relay has answered.
const TOKEN_RETRY: Duration = Duration::from_secs(5);

/// How often a follower overwrites what was deleted meanwhile. Each time costs some ten milliseconds, if there was
/// anything.
const SCRUB_EVERY: Duration = Duration::from_secs(30);

impl Client {
    /// Stays connected until `decide` ends it, or another command wants the vault.
    pub async fn follow(&mut self, decide: &mut Decide<'_>) -> Ended {
        let mut scrub_at = tokio::time::Instant::now() + SCRUB_EVERY;
        let mut stop = Stop::listen();
        loop {
            let (mut asked, mut retry, mut replaced) = (false, false, false);
            let (session, compartments, volumes) = (&self.session, &self.compartments, &self.volumes);
            let retry_at = (!self.due.is_empty()).then(|| tokio::time::Instant::now() + TOKEN_RETRY);
            let mut each = |effects: &[(usize, Effect)]| {
                let next = decide(compartments, effects);
                // What is taken from a relay now would be in a file that nobody opens again.
                if !session.is_at_its_path().unwrap_or(true) {
                    replaced = true;
                    return Next::End;
                }
                if session.lock_requested().unwrap_or(false) {
                    // What came is told before the vault is given up.
                    asked = true;
                    return Next::End;
                }
                // Between two rounds no transaction is alive.
                if effects.is_empty() && tokio::time::Instant::now() >= scrub_at {
                    for (_, base) in volumes {
                        // Tried again the next time, at the latest when the vault is locked.
                        let _ = base.scrub();
                    }
                    scrub_at = tokio::time::Instant::now() + SCRUB_EVERY;
                }
                retry = next == Next::On && retry_at.is_some_and(|at| tokio::time::Instant::now() >= at);
                if retry { Next::End } else { next }
            };
            // Dropping the driver's future between two of its awaits loses nothing: what counts is in the records.
            let report = tokio::select! {
                report = self.driver.follow(&self.compartments, &mut each) => report,
                () = stop.asked() => {
                    drop(stop);
                    self.driver.end_following(&self.compartments, Parting::Ended).await;
                    return Ended::Interrupted;
                }
            };
            if retry {
                self.retry_tokens().await;
                continue;
            }
            // The command that asked may talk to no relay, or open other compartments: its mark does not stand for ours.
            // Where another file is at the path, that one has to find what was done in this one.
            let parting = if replaced {
                Parting::Replaced
            } else if asked {
                Parting::Asked
            } else {
                Parting::Ended
            };
            self.driver.end_following(&self.compartments, parting).await;
            // What a signal asks for happens already.
            let _ = stop.close();
            return match parting {
                Parting::Replaced => Ended::Replaced,
                Parting::Asked => Ended::Asked(report),
                Parting::Ended => Ended::Decided(report),
            };
        }
    }
}

/// Asked with what each round brought, and often with nothing: whether following goes on.
pub type Decide<'a> = dyn FnMut(&[Compartment], &[(usize, Effect)]) -> Next + 'a;

/// Why following ended.
#[derive(Debug)]
pub enum Ended {
    /// As decided.
    Decided(Report),
    /// Another command wants the vault.
    Asked(Report),
    /// The person said stop, or the system did.
    Interrupted,
    /// The file is not at its path any more: moved, deleted, or another one took its place.
    Replaced,
}
