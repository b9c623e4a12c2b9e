//! Deleting a compartment.
//!
//! Order of effects: everything in it is left and it is marked, in one commit; relays are told; its volume dies. What a
//! crash leaves is a marked compartment, which the next session that opens it deletes.

use super::{Client, fault, generator};
use crate::{
    engine::{
        Command,
        view::{self, ChatState},
    },
    error::Error,
    store::ChatKind,
};

impl Client {
    /// Whether a compartment, by number, can be deleted.
    ///
    /// # Errors
    /// It is the first; something outside of it depends on it; a group in it was not left.
    pub fn require_deletable(&self, number: usize) -> Result<(), Error> {
        let refused = |message: String, hint: String| Err(Error::refused(message, hint));
        let Some(name) = self.compartments.get(number).map(|one| one.name.as_str()) else {
            return Err(Error::bug("no such compartment"));
        };
        if number == 0 {
            return refused(
                format!(
                    "{name} is the first compartment, through which the others are found; it cannot be deleted"
                ),
                "delete what is in it: lapwing chat list; or rename it: lapwing compartment rename".into(),
            );
        }
        let plans = self.plans()?;
        if let Some((_, plan)) = plans.iter().find(|(home, _)| *home == number) {
            return refused(
                format!("{name} holds the plan {}", plan.name),
                format!("remove it first: lapwing sos remove {}", quoted(&plan.name)),
            );
        }
        if let Some((_, plan)) = plans.iter().find(|(_, plan)| plan.shows.iter().any(|shown| shown == name)) {
            return refused(
                format!("the plan {} shows {name}", plan.name),
                format!("remove it first: lapwing sos remove {}", quoted(&plan.name)),
            );
        }
        let all = self.compartments.len();
        let known = self.passphrases()?;
        if let Some(other) =
            known.iter().find(|one| one.opens.len() < all && one.opens.iter().any(|opened| opened == name))
        {
            let other = other.name.clone().unwrap_or_default();
            return refused(
                format!("the passphrase {other} opens {name}"),
                format!("remove it first: lapwing passphrase remove {}", quoted(&other)),
            );
        }
        let groups: Vec<String> = self
            .read(number, view::chats)?
            .into_iter()
            .filter(|chat| chat.kind == ChatKind::Group && chat.state != ChatState::Ended)
            .map(|chat| chat.name)
            .collect();
        if !groups.is_empty() {
            return refused(
                format!("{name} is in groups: {}", groups.join(", ")),
                "leave them first: lapwing group leave GROUP".into(),
            );
        }
        Ok(())
    }

    /// Leaves everything in a compartment: from here on its deletion is finished by whatever session opens it next.
    ///
    /// # Errors
    /// Those of [`Client::require_deletable`]; the records cannot be written.
    pub fn vacate_compartment(&mut self, number: usize) -> Result<(), Error> {
        self.require_deletable(number)?;
        self.remember_records()?;
        self.command(number, Command::Vacate)?;
        Ok(())
    }

    /// Destroys a compartment that was vacated, and answers how many operations no relay had carried out.
    ///
    /// # Errors
    /// It was not vacated; the file cannot be written: the next session tries again.
    pub fn delete_compartment(&mut self, number: usize) -> Result<usize, Error> {
        if !self.read(number, view::leaving)? {
            return Err(Error::bug("a compartment that is in use was to be deleted"));
        }
        let waiting = self.read(number, view::waiting)?.len();
        // The volume has to be closed before its region can be given up.
        self.compartments.remove(number);
        let (id, base) = self.volumes.remove(number);
        drop(base);
        self.session.delete_volume(id, &mut generator()).map_err(|error| fault::change(&error))?;
        Ok(waiting)
    }

    /// Finishes deletions that a killed command left.
    pub(super) fn finish_deletions(&mut self) -> Result<(), Error> {
        for number in (1..self.compartments.len()).rev() {
            if self.read(number, view::leaving)? {
                self.delete_compartment(number)?;
            }
        }
        Ok(())
    }

    /// Passphrases that open everything open what was just made too: the last compartment.
    pub(super) fn share_newest(&mut self) -> Result<(), Error> {
        let Some((newest, _)) = self.volumes.last().map(|(id, base)| (*id, base)) else { return Ok(()) };
        let before = self.volumes.len().saturating_sub(1);
        self.reseal_entries(|entry| {
            let mut volumes = entry.volumes();
            let all = volumes.len() == before && !volumes.contains(&newest);
            all.then(|| {
                volumes.push(newest);
                (volumes, entry.application().to_vec())
            })
        })
    }
}

/// A name as it is typed into a shell.
fn quoted(name: &str) -> String {
    if name.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c)) {
        return name.to_owned();
    }
    format!("'{}'", name.replace('\'', "'\\''"))
}
