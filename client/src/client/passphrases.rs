//! Passphrases of a session: its own, and those that it knows of others.
//!
//! Invariants: an added passphrase keeps every slot that it does not know, so it never costs anybody anything; no payload
//! names another; what it is called lies in the record by which its maker finds it, which is written before the header
//! and means nothing without it (VLT-40), so a crash leaves it whole or not at all.

use lapwing_vault::{Entry, Others, Passphrase, Spec, VolumeId};
use lapwing_wire::tripwire::Token;

use super::{Client, PayloadRelays, fault, generator};
use crate::{
    cli::{alike::too_close, prompt::TypedPassphrase},
    error::Error,
    untrusted::is_plain,
};

/// Begins the label of a named passphrase; a plan's label is its id, 16 bytes.
const NAMED: &[u8] = b"\0n";

/// What the others call the passphrase that was there before them.
const FIRST: &str = "first";

/// Longest name of a passphrase in bytes: what a record's label has room for.
const MAX_NAME: usize = lapwing_vault::LABEL_MAX - NAMED.len();

/// A passphrase that opens something of what this session opens.
#[derive(Debug)]
pub struct KnownPassphrase {
    /// Its name; `None` for the one that opened this session.
    pub name: Option<String>,
    /// The compartments that it opens.
    pub opens: Vec<String>,
    /// A plan has this name and goes with it.
    pub planned: bool,
}

impl Client {
    /// Replaces the passphrase that opened this session.
    ///
    /// # Errors
    /// The new one opens something already; the file cannot be written. The old one stays then.
    pub fn change_passphrase(&mut self, new: &TypedPassphrase) -> Result<(), Error> {
        let home = self.private_volume();
        let changed = self.session.change_passphrase(&Passphrase::new(new.expose()), home, &mut generator());
        // The record stays until it is remembered: what fails here is made up for by the next unlock.
        let _ = self.remember_records();
        changed.map_err(|error| fault::change(&error))
    }

    /// Adds a passphrase that opens these compartments, by number, and answers its name.
    ///
    /// # Errors
    /// The name is taken or no name; the passphrase opens something already; there is no room for another; what it would
    /// show is not fit to be shown without the rest. Nothing was changed then.
    pub fn add_passphrase(
        &mut self,
        name: Option<&str>,
        shows: &[usize],
        new: &TypedPassphrase,
    ) -> Result<String, Error> {
        let name = self.new_name(name)?;
        self.require_showable(shows)?;
        let mut volumes: Vec<VolumeId> =
            shows.iter().filter_map(|n| self.volumes.get(*n).map(|(id, _)| *id)).collect();
        if shows.len() < self.compartments.len() {
            // Its sessions keep their notes in the first: the one that fewest others open.
            let entries = self.session.entries();
            let readers = |id: &VolumeId| entries.iter().filter(|entry| entry.volumes().contains(id)).count();
            volumes.sort_by_key(readers);
        }
        let home = self.private_volume();
        if shows.len() == self.compartments.len() {
            // It opens whatever we open: it may know of us, and must, or it would take our slots for free ones.
            let label = [NAMED, FIRST.as_bytes()].concat();
            self.session.record_own(home, &label, &mut generator()).map_err(|error| fault::change(&error))?;
        }
        let field = self.new_tokens(shows)?.encode();
        let label = [NAMED, name.as_bytes()].concat();
        let spec = Spec {
            volumes: &volumes,
            // Whatever this session does not know of stays.
            others: Others::Keep,
            spare: &[],
            application: &field,
            label: &label,
            home,
        };
        let added = self.session.add_passphrase(&Passphrase::new(new.expose()), &spec, &mut generator());
        // As after a change.
        let _ = self.remember_records();
        added.map_err(|error| fault::change(&error))?;
        Ok(name)
    }

    /// What can be shown by a passphrase that does not open everything.
    ///
    /// # Errors
    /// The first compartment, or one that has held a plan or led to something else, would be shown without the rest.
    pub fn require_showable(&self, shows: &[usize]) -> Result<(), Error> {
        if shows.len() == self.compartments.len() {
            return Ok(());
        }
        // The first volume has held the records of all others; old blocks still do.
        if shows.contains(&0) {
            return Err(Error::refused(
                "the first compartment cannot be shown without the others: it has noted their keys",
                "show all, or others: lapwing compartment list; to make one: lapwing compartment create NAME",
            ));
        }
        // The same holds for whatever has held a plan.
        if self.plans()?.iter().any(|(home, _)| shows.contains(home)) {
            return Err(Error::refused(
                "a compartment that holds a plan cannot be shown without the others",
                "show all, or others: lapwing compartment list; to make one: lapwing compartment create NAME",
            ));
        }
        // And for whatever was recorded beside it, by a session that knew less, and taken away since.
        for number in shows {
            if self.has_led_outside(*number, shows)? {
                return Err(Error::refused(
                    "a compartment that has held a plan, or noted keys, cannot be shown without the others",
                    "show all, or others: lapwing compartment list; to make one: lapwing compartment create NAME",
                ));
            }
        }
        Ok(())
    }

    /// The passphrases that this session knows: its own first, then the others by name.
    ///
    /// # Errors
    /// The records cannot be read.
    pub fn passphrases(&self) -> Result<Vec<KnownPassphrase>, Error> {
        let own = self.compartments.iter().map(|one| one.name.clone()).collect();
        let mut all = vec![KnownPassphrase { name: None, opens: own, planned: false }];
        all.extend(self.others()?.into_iter().map(|(_, known)| known));
        Ok(all)
    }

    /// Destroys a passphrase that this session knows. What it opens stays.
    ///
    /// # Errors
    /// There is none of that name, or a plan goes with it.
    pub fn remove_passphrase(&mut self, name: &str) -> Result<(), Error> {
        let found = self.others()?.into_iter().find(|(_, known)| known.name.as_deref() == Some(name.trim()));
        let Some((number, known)) = found else {
            return Err(Error::negative(
                "no passphrase of that name is known",
                "see: lapwing passphrase list",
            )
            .with_code("unknown_passphrase"));
        };
        if known.planned {
            return Err(Error::refused(
                "this passphrase belongs to a plan",
                "remove both with: lapwing sos remove NAME",
            ));
        }
        let entry = self.session.entries().get(number).map(Entry::id);
        let entry = entry.ok_or_else(|| Error::bug("a passphrase has no entry"))?;
        self.remember_records()?;
        self.session.remove_entry(entry, &mut generator()).map_err(|error| fault::change(&error))
    }

    /// Whether another passphrase is known that opens something else than this session.
    #[must_use]
    pub fn knows_other_passphrases(&self) -> bool {
        let own = self.volumes.len();
        self.session.entries().iter().any(|entry| entry.volumes().len() < own)
    }

    /// The known passphrases of others, with the numbers of their entries, in the order of their names.
    fn others(&self) -> Result<Vec<(usize, KnownPassphrase)>, Error> {
        let plans = self.plans()?;
        let mut all: Vec<(usize, KnownPassphrase)> = Vec::new();
        for (number, entry) in self.session.entries().iter().enumerate() {
            let plan = plans.iter().find(|(_, plan)| entry.label() == plan.id);
            let name = match plan {
                Some((_, plan)) => plan.name.clone(),
                None => named(entry.label()).unwrap_or_else(|| "unnamed".to_owned()),
            };
            let taken = |name: &str| all.iter().any(|(_, known)| known.name.as_deref() == Some(name));
            // Made in different sessions, two may have one name.
            let name = (1..=all.len() + 1)
                .map(|n| if n == 1 { name.clone() } else { format!("{name} {n}") })
                .find(|name| !taken(name))
                .unwrap_or(name);
            let volumes = entry.volumes();
            let opens = self.compartments.iter().zip(&self.volumes);
            let opens = opens.filter(|(_, (id, _))| volumes.contains(id)).map(|(one, _)| one.name.clone());
            let known = KnownPassphrase { name: Some(name), opens: opens.collect(), planned: plan.is_some() };
            all.push((number, known));
        }
        all.sort_by(|(_, one), (_, other)| one.name.cmp(&other.name));
        Ok(all)
    }

    /// A name that no known passphrase has: the one that was asked for, or the next number.
    ///
    /// # Errors
    /// It is taken, or not a name.
    pub fn new_name(&self, wanted: Option<&str>) -> Result<String, Error> {
        let known = self.others()?;
        let taken = |name: &str| known.iter().any(|(_, known)| known.name.as_deref() == Some(name));
        let Some(wanted) = wanted.map(str::trim) else {
            let mut numbered = (2..).map(|n| format!("passphrase {n}"));
            return numbered.find(|name| !taken(name)).ok_or_else(|| Error::bug("no number is left"));
        };
        if wanted.is_empty() || wanted.len() > MAX_NAME || !wanted.chars().all(is_plain) {
            return Err(Error::refused(
                "that is not a name: it needs 1 to 62 bytes of printable text",
                "choose another with --name",
            ));
        }
        if taken(wanted) {
            return Err(Error::refused(
                "there is already a passphrase of that name",
                "choose another with --name; see: lapwing passphrase list",
            ));
        }
        Ok(wanted.to_owned())
    }

    /// A token, which means nothing, for each relay of these compartments.
    fn new_tokens(&self, shows: &[usize]) -> Result<PayloadRelays, Error> {
        let mut relays = PayloadRelays::default();
        for number in shows {
            for row in self.relay_rows(*number)? {
                relays.add(row.address, Token::generate(&mut generator()));
            }
        }
        Ok(relays)
    }
}

fn named(label: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(label.strip_prefix(NAMED)?).ok()?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// Refuses a second passphrase that a slip of the finger, or stopping early, would make of the first.
///
/// # Errors
/// They are within three edits, or one begins the other.
pub fn require_distinct(one: &TypedPassphrase, other: &TypedPassphrase) -> Result<(), Error> {
    if too_close(one.expose(), other.expose()) {
        return Err(Error::refused(
            "the two passphrases are too much alike: a slip of the finger would turn one into the other",
            "choose one that differs in more than three places and does not begin like the other",
        )
        .with_code("alike"));
    }
    Ok(())
}
