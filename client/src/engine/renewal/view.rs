//! What is shown of renewals.

use std::collections::BTreeSet;

use lapwing_wire::time::Timestamp;
use serde::{Deserialize, de::IgnoredAny};

use super::super::Fault;
use crate::store::{ChatId, ChatRow, RenewalRow, Unit};

/// A contact who has not answered yet.
#[derive(Debug)]
pub struct RenewalView {
    /// Which chat.
    pub chat: ChatId,
    /// Its name.
    pub name: String,
    /// When the session was begun anew.
    pub since: Timestamp,
}

/// Contacts who have not answered yet.
///
/// # Errors
/// [`Fault::Store`].
pub fn renewals(unit: &Unit<'_>) -> Result<Vec<RenewalView>, Fault> {
    let mut all = Vec::new();
    for (chat, row) in unit.scan::<RenewalRow>(&[])? {
        let Some(waiting) = row.waiting else { continue };
        let Some(shown) = unit.get::<ChatRow>(&chat)? else { continue };
        all.push(RenewalView { chat, name: shown.name, since: waiting.since });
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

/// Whether the safety number of a chat is another one than the one that its owner compared.
///
/// # Errors
/// [`Fault::Store`].
pub fn carried(unit: &Unit<'_>, chat: &ChatId) -> Result<bool, Fault> {
    Ok(unit.get::<RenewalRow>(chat)?.is_some_and(|row| row.carried))
}

/// Whether the session of a chat was begun anew and the peer has not answered yet.
pub(in super::super) fn is_waiting(unit: &Unit<'_>, chat: &ChatId) -> Result<bool, Fault> {
    Ok(unit.get::<RenewalRow>(chat)?.is_some_and(|row| row.waiting.is_some()))
}

/// Whether the peer is being told of another identity of ours and has not answered yet.
pub(in super::super) fn names_successor(unit: &Unit<'_>, chat: &ChatId) -> Result<bool, Fault> {
    let waiting = unit.get::<RenewalRow>(chat)?.and_then(|row| row.waiting);
    Ok(waiting.is_some_and(|waiting| waiting.first.is_some()))
}

/// The chats of which [`is_waiting`] says yes.
pub(in super::super) fn waiting(unit: &Unit<'_>) -> Result<BTreeSet<ChatId>, Fault> {
    #[derive(Deserialize)]
    struct Waiting {
        #[serde(default)]
        waiting: Option<IgnoredAny>,
    }
    let rows = unit.range_as::<RenewalRow, Waiting>(&[], None, usize::MAX, false)?;
    Ok(rows.into_iter().filter(|(_, row)| row.waiting.is_some()).map(|(chat, _)| chat).collect())
}
