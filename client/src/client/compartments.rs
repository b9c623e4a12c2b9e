//! Making, renaming and deleting compartments.
//!
//! Order of effects of a deletion: everything in it is left and it is marked, in one commit; relays are told; its volume dies. What a
//! crash leaves is a marked compartment, which the next session that opens it deletes.

use super::{Client, fault, generator, refused_by_engine};
use crate::{
    driver::Driver,
    engine::{
        Command,
        view::{self, ChatState},
    },
    error::Error,
    store::ChatKind,
};

impl Client {
    /// Makes a compartment.
    ///
    /// # Errors
    /// The name is taken, or there is no room.
    pub fn create_compartment(&mut self, name: &str) -> Result<(), Error> {
        if self.compartments.iter().any(|compartment| compartment.name == name.trim()) {
            return Err(Error::refused(
                "there is already a compartment of that name",
                "choose another name; see: lapwing compartment list",
            ));
        }
        let home = self.private_volume();
        let made = self.session.create_volume(home, b"", &mut generator());
        // Before anything can take the record away again; what fails here is made up for by the next unlock.
        let _ = self.remember_records();
        let id = made.map_err(|e| fault::change(&e))?;
        self.open_volume(id)?;
        let number = self.compartments.len().saturating_sub(1);
        match self.command(number, Command::Name { name: name.to_owned() }) {
            Ok(_) => {
                self.share_newest()?;
                self.name_compartments()
            }
            Err(error) => {
                self.compartments.pop();
                self.volumes.pop();
                self.session.delete_volume(id, &mut generator()).map_err(|e| fault::change(&e))?;
                Err(error)
            }
        }
    }

    /// Gives a compartment another name.
    ///
    /// # Errors
    /// There is no such compartment, or the name is taken.
    pub fn rename_compartment(&mut self, from: &str, to: &str) -> Result<(), Error> {
        let number = self.compartment(Some(from))?;
        if self.compartments.iter().any(|compartment| compartment.name == to.trim()) {
            return Err(Error::refused(
                "there is already a compartment of that name",
                "choose another name; see: lapwing compartment list",
            ));
        }
        let old = self.compartments[number].name.clone();
        self.command(number, Command::Name { name: to.to_owned() })?;
        self.name_compartments()?;
        let new = self.compartments[number].name.clone();
        for home in 0..self.compartments.len() {
            self.command(home, Command::PlansRename { from: old.clone(), to: new.clone() })?;
        }
        Ok(())
    }

    /// Whether no chat is on its way from or to a compartment, by number: it would be lost with it, or left out.
    ///
    /// # Errors
    /// One is (MOV-09).
    pub fn require_settled(&self, number: usize) -> Result<(), Error> {
        let Some(compartment) = self.compartments.get(number) else {
            return Err(Error::bug("no such compartment"));
        };
        let moving = Driver::is_on_the_way(&self.compartments, compartment);
        if moving.map_err(|fault| refused_by_engine(&fault))? {
            return Err(Error::refused(
                format!("a chat on its way from or to {} is not in its place yet", compartment.name),
                "run: lapwing sync; where there is no room, delete what is not needed there, or: lapwing grow --size SIZE",
            ));
        }
        Ok(())
    }

    /// Whether a compartment, by number, can be deleted.
    ///
    /// # Errors
    /// It is the first; something outside of it depends on it; a group in it was not left; a chat is on its way from or to
    /// it (MOV-09).
    pub fn require_deletable(&self, number: usize) -> Result<(), Error> {
        let refused = |message: String, hint: String| Err(Error::refused(message, hint));
        let Some(compartment) = self.compartments.get(number) else {
            return Err(Error::bug("no such compartment"));
        };
        let name = compartment.name.as_str();
        if number == 0 {
            return refused(
                format!(
                    "{name} is the first compartment, through which the others are found; it cannot be deleted"
                ),
                "delete what is in it: lapwing chat list; or rename it: lapwing compartment rename".into(),
            );
        }
        self.require_settled(number)?;
        if self.checkins()?.iter().any(|(home, _)| *home == number) {
            return refused(
                format!("a check-in is running in {name}"),
                format!("end it first: lapwing checkin stop --compartment {}", quoted(name)),
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
