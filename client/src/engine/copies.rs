//! Notices that a vault is used in two places: its file was copied, or an older state of it was put back.
//!
//! ```text
//! mark = 11 | number 8, big endian | random 16         the content of an envelope in our own mailbox at each relay
//! ```
//!
//! Two copies would continue the same ratchets, which breaks the sessions and encrypts two texts under one key. Nobody
//! but a copy can write to the mailbox that only shows that we live at a relay. So each copy leaves marks there, and
//! finds those of the other.
//!
//! Rules: CPY-01 a mark is recorded in the commit that records its sending, so that a crash, a lost answer or a relay
//! that shows an older state make no foreign mark of an own one; CPY-02 a mark that is not ours, with a number that we
//! have not left behind, is another copy's; CPY-03 whoever finds one continues behind its number and leaves a mark at
//! once, so that the other copy finds it too; CPY-04 own sender keys of groups are dropped then; CPY-05 it is told until
//! every contact's session was begun anew afterwards; CPY-06 every session leaves a mark, one that goes on and is used
//! leaves more, and the newest stay at the relay, so that a state from before any of them finds one, however old and however
//! young it is. Of what no mark came after, nothing tells: where the relay was away, or the session was killed.

use std::time::Duration;

use lapwing_wire::time::Timestamp;

use super::{Cx, Effect, Fault, outgoing};
use crate::store::{
    ChatId, ChatRow, ContactRow, ContactState, GroupRow, MailboxRow, MarksRow, OpKind, OpRow, Purpose,
    RenewalRow, Unit,
};

/// How often a compartment leaves a mark in a session that goes on: two copies that are used at the same time notice it
/// within that time.
const PERIOD: Duration = Duration::from_secs(6 * 3600);

/// How often at most a session in which something is taken and sent leaves one: a state from the middle of it that is put
/// back finds what came later. Six envelopes of the smallest size an hour.
const USED_PERIOD: Duration = Duration::from_secs(600);

/// Marks that stay at the relay, in the smallest envelopes; older ones are acknowledged. CPY-06.
pub(super) const KEPT: u64 = 64;

/// Own marks that are remembered: as many as stay at the relay, and some that one may show again. An older one says nothing.
const REMEMBERED: usize = 128;

const MARK: u8 = 0x11;
const MARK_LEN: usize = 1 + 8 + 16;

/// Leaves a mark at every relay, when a session begins or it is time.
pub(super) fn tick(cx: &mut Cx<'_, '_, '_>, begins: bool) -> Result<(), Fault> {
    let row = cx.unit.get::<MarksRow>(&())?.unwrap_or_default();
    if !begins && is_younger(&row, PERIOD, cx.now) {
        return Ok(());
    }
    // Nothing is on its way yet.
    leave(cx, row, begins)
}

/// Whether a session in which something was taken or sent since its last mark leaves another one now.
///
/// # Errors
/// [`Fault::Store`].
pub(crate) fn is_due_again(unit: &Unit<'_>, now: Timestamp) -> Result<bool, Fault> {
    Ok(!is_younger(&unit.get::<MarksRow>(&())?.unwrap_or_default(), USED_PERIOD, now))
}

/// CPY-06: leaves another mark in a session that has left one. Between two rounds: nothing is on its way.
pub(super) fn leave_again(cx: &mut Cx<'_, '_, '_>) -> Result<(), Fault> {
    let row = cx.unit.get::<MarksRow>(&())?.unwrap_or_default();
    leave(cx, row, true)
}

fn is_younger(row: &MarksRow, than: Duration, now: Timestamp) -> bool {
    row.left.is_some_and(|left| now.since(left) < than && left <= now)
}

/// Leaves a mark at every relay; with `replaces`, instead of those that still wait for theirs.
fn leave(cx: &mut Cx<'_, '_, '_>, mut row: MarksRow, replaces: bool) -> Result<(), Fault> {
    let homes = cx.unit.scan::<MailboxRow>(&[])?.into_iter();
    let homes: Vec<_> =
        homes.filter(|(_, home)| home.purpose == Purpose::Home).map(|(mailbox, _)| mailbox).collect();
    if homes.is_empty() {
        return Ok(());
    }
    if replaces {
        // A mark that still waits for its relay may be known to an older state: this one takes
        // its place, and a relay that is away for long does not find many.
        for (op, row) in cx.unit.scan::<OpRow>(&[])? {
            if is_mark(cx.unit, &row)? {
                cx.unit.delete::<OpRow>(&op);
            }
        }
    }
    row.number = row.number.saturating_add(1);
    let random: [u8; 16] = cx.random();
    row.own.push((row.number, random.to_vec().into()));
    let surplus = row.own.len().saturating_sub(REMEMBERED);
    row.own.drain(..surplus);
    row.left = Some(cx.now);
    let mark = [&[MARK], row.number.to_be_bytes().as_slice(), &random].concat();
    // CPY-01.
    cx.unit.put(&(), &row);
    for mailbox in homes {
        let route = outgoing::route_to(cx, &mailbox)?;
        outgoing::append(cx, &route, ChatId::NOBODY, &mark, None, Some(mailbox))?;
    }
    Ok(())
}

/// Whether an operation leaves a mark: nobody waits for it to be done.
///
/// # Errors
/// [`Fault::Store`].
pub(crate) fn is_mark(unit: &Unit<'_>, op: &OpRow) -> Result<bool, Fault> {
    let OpKind::Append { mailbox, .. } = &op.kind else { return Ok(false) };
    Ok(unit.get::<MailboxRow>(mailbox)?.is_some_and(|row| row.purpose == Purpose::Home))
}

/// What came to the mailbox that nobody else writes to. `false` if it is no mark.
pub(super) fn found(cx: &mut Cx<'_, '_, '_>, message: &[u8]) -> Result<bool, Fault> {
    let Ok(mark) = <&[u8; MARK_LEN]>::try_from(message) else { return Ok(false) };
    let Some(([MARK], rest)) = mark.split_first_chunk::<1>() else { return Ok(false) };
    let Some((number, random)) = rest.split_first_chunk::<8>() else { return Ok(false) };
    let number = u64::from_be_bytes(*number);
    let mut row = cx.unit.get::<MarksRow>(&())?.unwrap_or_default();
    let is_own = row.own.iter().any(|(own, bytes)| *own == number && bytes.as_slice() == random);
    let oldest = row.own.first().map_or(0, |(oldest, _)| *oldest);
    // CPY-02.
    if is_own || (number < oldest && row.own.len() >= REMEMBERED) {
        return Ok(true);
    }
    // CPY-03: told, and answered, once; what the other copy leaves from then on is the same story.
    let is_told = copied(cx.unit)?.is_some();
    row.number = row.number.max(number);
    if !is_told {
        row.left = None;
        row.copied = Some(cx.now);
    }
    cx.unit.put(&(), &row);
    if is_told {
        return Ok(true);
    }
    // CPY-04.
    for (chat, mut group) in cx.unit.scan::<GroupRow>(&[])? {
        if group.sender.is_some() {
            group.sender = None;
            group.sender_made = None;
            group.given_to.clear();
            cx.unit.put(&chat, &group);
        }
    }
    cx.group = None;
    cx.tell(Effect::Copied);
    Ok(true)
}

/// CPY-05: since when it is known that this compartment is used in two places.
///
/// # Errors
/// [`Fault::Store`].
pub fn copied(unit: &Unit<'_>) -> Result<Option<Timestamp>, Fault> {
    let Some(since) = unit.get::<MarksRow>(&())?.and_then(|row| row.copied) else { return Ok(None) };
    let mut contacts = 0;
    for (chat, shown) in unit.scan::<ChatRow>(&[])? {
        let Some(contact) = unit.get::<ContactRow>(&chat)? else { continue };
        if contact.state != ContactState::Established || shown.blocked {
            continue;
        }
        contacts += 1;
        let renewal = unit.get::<RenewalRow>(&chat)?.unwrap_or_default();
        let begun = renewal.waiting.map(|waiting| waiting.since).max(renewal.renewed);
        if begun.is_none_or(|begun| begun < since) {
            return Ok(Some(since));
        }
    }
    // Without contacts nothing can be begun anew: told for as long as marks of another copy may come.
    Ok((contacts == 0).then_some(since))
}
