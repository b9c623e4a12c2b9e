//! Setting up, keeping up and removing what a duress passphrase sets off.
//!
//! Order of effects (design 5.2): the pending plan in the owner's compartment, the tripwires armed at their relays, the
//! cover in the header, the plan final. What a crash leaves is finished or undone by the next session that sees it.

use std::time::Duration;

use lapwing_vault::{Others, Passphrase, Spec, VolumeId};
use lapwing_wire::{capability::SecretKey, tripwire::Token};

use super::{Client, PayloadRelays, fault, generator, refused_by_engine};
use crate::{
    cli::prompt::TypedPassphrase,
    engine::{
        Command, Fault, Reply,
        plan::{PlanSpec, PlanTokens, alert_relays},
        view::{self, PlanView},
    },
    error::{Error, Retry},
    store::{PlanAction, PlanState, Sink, Unit},
};

/// How long the relays are waited for when a plan is armed.
pub(super) const ARM_WAIT: Duration = Duration::from_secs(20);

/// What the owner decided about a duress passphrase.
pub struct PlanRequest {
    /// Name of the plan.
    pub name: String,
    /// Compartments that stay.
    pub shows: Vec<String>,
    /// What becomes of the others.
    pub action: PlanAction,
    /// Chats of the trusted contacts to alert.
    pub alert: Vec<String>,
    /// What the alert says.
    pub text: String,
    /// Last known place.
    pub place: Option<String>,
    /// What the contacts are asked to do.
    pub instructions: Option<String>,
    /// How many of the contacts set it off from afar, together, if they may.
    pub remote: Option<u8>,
}

impl Client {
    /// The plans of all compartments, with the number of the compartment that holds each.
    ///
    /// # Errors
    /// The records cannot be read.
    pub fn plans(&self) -> Result<Vec<(usize, PlanView)>, Error> {
        let mut all = Vec::new();
        for number in 0..self.compartments.len() {
            all.extend(self.read(number, view::plans)?.into_iter().map(|plan| (number, plan)));
        }
        Ok(all)
    }

    /// The compartment in which a plan that shows these compartments and alerts these contacts can lie: one that it
    /// does not show.
    ///
    /// # Errors
    /// Every compartment would be shown, or the contacts are in none that stays hidden.
    pub fn plan_home(&self, shows: &[usize], alert: &[String]) -> Result<usize, Error> {
        let hidden: Vec<usize> = (0..self.compartments.len()).filter(|n| !shows.contains(n)).collect();
        if hidden.is_empty() {
            return Err(Error::refused(
                "the plan needs a compartment that its passphrase does not open",
                "make one with: lapwing compartment create NAME; it will hold the plan",
            ));
        }
        let mut first = None;
        for number in hidden {
            let unit = Unit::new(&*self.compartments[number].base);
            match alert_relays(&unit, alert) {
                Ok(_) => return Ok(number),
                Err(fault) => first = first.or(Some(fault)),
            }
        }
        Err(first.map_or_else(|| Error::bug("no compartment for a plan"), |fault| refused_by_engine(&fault)))
    }

    /// Sets up a plan and the passphrase that sets it off.
    ///
    /// # Errors
    /// The passphrase opens something already; a relay cannot be reached or refuses. Nothing is set up then.
    pub async fn add_plan(
        &mut self,
        request: PlanRequest,
        passphrase: &TypedPassphrase,
    ) -> Result<(), Error> {
        let shows: Vec<usize> =
            request.shows.iter().map(|name| self.compartment(Some(name))).collect::<Result<_, _>>()?;
        self.require_showable(&shows)?;
        let home = self.plan_home(&shows, &request.alert)?;
        let new = Passphrase::new(passphrase.expose());
        if self.session.opens(&new).map_err(|error| fault::change(&error))? {
            return Err(fault::change(&lapwing_vault::ChangeError::AlreadyOpens));
        }
        let (tokens, field) = self.cover_tokens(&shows, home, &request.alert)?;
        let sinks = self.sinks_of(request.action, &shows)?;
        let PlanRequest { name, shows: names, action, alert, text, place, instructions, remote } = request;
        let spec =
            PlanSpec { name, action, shows: names, alert, text, place, instructions, remote, sinks, tokens };
        let Reply::Plan(plan) = self.command(home, Command::PlanBegin(Box::new(spec)))? else {
            return Err(Error::bug("another reply was expected"));
        };
        let done = self.arm_and_seal(plan, home, &shows, action, &new, &field).await;
        let sealed = self.session.entries().iter().any(|entry| entry.label() == plan);
        // A passphrase that is in the header keeps its plan: the next session finishes it.
        if done.is_err() && !sealed {
            self.command(home, Command::PlanRemove { plan })?;
            self.settle(Duration::from_secs(5)).await;
        }
        done
    }

    async fn arm_and_seal(
        &mut self,
        plan: [u8; 16],
        home: usize,
        shows: &[usize],
        action: PlanAction,
        passphrase: &Passphrase,
        field: &[u8],
    ) -> Result<(), Error> {
        let report = self.settle(ARM_WAIT).await;
        if !self.is_armed(home, &plan)? {
            let message = if report.trouble.is_empty() {
                "the relay did not accept the plan; nothing was set up"
            } else {
                "the relay that has to keep the alert cannot be reached; nothing was set up"
            };
            return Err(Error::unreachable(message, "see: lapwing relay list; then try again")
                .with_retry(Retry::Later));
        }
        let volumes: Vec<VolumeId> =
            shows.iter().filter_map(|n| self.volumes.get(*n).map(|(id, _)| *id)).collect();
        let spec = Spec {
            volumes: &volumes,
            others: match action {
                PlanAction::Hide => Others::Keep,
                PlanAction::Destroy => Others::Refresh,
            },
            // Nothing in a payload may name another: who opens it reads all of it.
            spare: &[],
            application: field,
            label: &plan,
            home: self.volumes[home].0,
        };
        let added = self.session.add_passphrase(passphrase, &spec, &mut generator());
        // The records stay until they are remembered: what fails here is made up for by the next unlock.
        let _ = self.remember_records();
        added.map_err(|error| fault::change(&error))?;
        self.command(home, Command::PlanFinish { plan })?;
        Ok(())
    }

    fn is_armed(&self, home: usize, plan: &[u8; 16]) -> Result<bool, Error> {
        let plans = self.read(home, view::plans)?;
        Ok(plans.iter().any(|view| view.id == *plan && view.armed))
    }

    /// The tokens of a cover: for each relay of what it shows, and for each that keeps an alert. The latter are made
    /// relays of the shown compartments too, where they are not yet: a tripwire only uses relays at which its cover
    /// lives.
    fn cover_tokens(
        &mut self,
        shows: &[usize],
        home: usize,
        alert: &[String],
    ) -> Result<(Vec<PlanTokens>, Vec<u8>), Error> {
        let keepers = self.read(home, |unit| alert_relays(unit, alert))?;
        let mut rows = self.relay_rows(home)?;
        for relay in &keepers {
            let Some(position) = rows.iter().position(|row| row.address.key() == relay.key()) else {
                return Err(refused_by_engine(&Fault::NoCommonRelay));
            };
            let row = rows.swap_remove(position);
            for number in shows {
                if self.relay_rows(*number)?.iter().any(|known| known.address.key() == relay.key()) {
                    continue;
                }
                let seed: [u8; 32] =
                    row.access.as_slice().try_into().map_err(|_| Error::bug("a key has another length"))?;
                let share = Command::ShareRelay { relay: relay.clone(), access: SecretKey::from_seed(seed) };
                self.command(*number, share)?;
            }
            rows.push(row);
        }
        self.adopt_relays()?;
        let mut cover = PayloadRelays::default();
        let mut tokens = Vec::new();
        for relay in keepers {
            let fire = Token::generate(&mut generator());
            let renew =
                self.relays.token(relay.key()).cloned().ok_or_else(|| Error::bug("a relay without token"))?;
            cover.add(relay.clone(), fire.clone());
            tokens.push(PlanTokens { relay, fire, renew });
        }
        for number in shows {
            for row in self.relay_rows(*number)? {
                cover.add(row.address, Token::generate(&mut generator()));
            }
        }
        Ok((tokens, cover.encode()))
    }

    /// Mailboxes of the compartments that a destruction ends.
    fn sinks_of(&self, action: PlanAction, shows: &[usize]) -> Result<Vec<Sink>, Error> {
        let mut sinks = Vec::new();
        if action == PlanAction::Destroy {
            for number in (0..self.compartments.len()).filter(|number| !shows.contains(number)) {
                sinks.extend(self.read(number, view::sinks)?);
            }
        }
        Ok(sinks)
    }

    /// Arms anew the plans whose contents changed.
    pub(super) fn refresh_plans(&mut self) -> Result<(), Fault> {
        let plans = self.plans().map_err(|_| Fault::Inconsistent("plans cannot be read"))?;
        for (home, plan) in plans {
            if plan.state != PlanState::Armed || plan.fired {
                continue;
            }
            let shows: Vec<usize> =
                plan.shows.iter().filter_map(|name| self.compartment(Some(name)).ok()).collect();
            let sinks = self
                .sinks_of(plan.action, &shows)
                .map_err(|_| Fault::Inconsistent("mailboxes cannot be read"))?;
            let command = Command::PlanRefresh { plan: plan.id, sinks };
            self.driver.command(&self.compartments[home], command)?;
        }
        Ok(())
    }

    /// Finishes or undoes plans that a killed command left half set up.
    pub(super) fn settle_plans(&mut self) -> Result<(), Error> {
        for (home, plan) in self.plans()? {
            if plan.state == PlanState::Armed {
                continue;
            }
            let sealed = self.session.entries().iter().any(|entry| entry.label() == plan.id);
            let command = if sealed {
                Command::PlanFinish { plan: plan.id }
            } else {
                Command::PlanRemove { plan: plan.id }
            };
            self.command(home, command)?;
        }
        Ok(())
    }

    /// Removes a plan and the passphrase that sets it off.
    ///
    /// # Errors
    /// There is no such plan, or the file cannot be written.
    pub fn remove_plan(&mut self, name: &str) -> Result<(), Error> {
        let found = self.plans()?.into_iter().find(|(_, plan)| plan.name == name.trim());
        let (home, plan) = found.ok_or_else(|| refused_by_engine(&Fault::UnknownPlan))?;
        let entry = self
            .session
            .entries()
            .iter()
            .find(|entry| entry.label() == plan.id)
            .map(lapwing_vault::Entry::id);
        self.remember_records()?;
        // Whatever a kill leaves, the next unlock finds out from the header which it is: removed, or in force.
        self.command(home, Command::PlanUnfinish { plan: plan.id })?;
        // The passphrase dies first: an armed tripwire without it harms nobody.
        if let Some(entry) = entry {
            self.session.remove_entry(entry, &mut generator()).map_err(|error| fault::change(&error))?;
        }
        self.command(home, Command::PlanRemove { plan: plan.id })?;
        Ok(())
    }
}
