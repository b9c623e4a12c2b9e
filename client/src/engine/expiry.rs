//! Messages that disappear: how long a chat keeps them, and when each one's time is over.
//!
//! TMR-01 the shorter of both sides' wishes counts, so nobody can make the other keep more, and two who set it at once
//! need not agree on who was first. TMR-02 a wish with a number that is not higher than the last one of its side changes
//! nothing. TMR-03 a wish concerns what is stored after it; nothing that is here gets another end. TMR-04 the time of our
//! own message runs from its writing, that of another's from when it was first shown, and one that is never shown goes
//! [`UNSEEN`] after it came, or after its lifetime where that is longer. TMR-05 what is due is erased at every unlock before
//! anything is shown, and while following. TMR-06 in a group the owner's and the admins' last word counts for all members;
//! a member's own counts for his vault. TMR-07 a clock that was set back lengthens no time beyond a whole one from then on,
//! and what had been right counts again when the clock is; one that jumps ahead erases what its time makes due: a device that
//! lay in a drawer cannot be told from it.

use std::{collections::BTreeMap, time::Duration};

use lapwing_protocol::{
    content::Body,
    group::Role,
    timer::{Lifetime, Timer},
};
use lapwing_wire::time::Timestamp;

use super::{Cx, Effect, Fault, contact, conversation, erasing, group, outgoing};
use crate::{
    clock::span_words,
    store::{
        ChatId, ChatKind, ChatRow, ClockRow, ContactRow, ContactState, DeadlineRow, DueRow, MessageRow,
        Order, TimerRow, Unit, Writer,
    },
};

/// How long a message that was never shown is kept, unless its lifetime is longer: who was away for some days still reads
/// what came, and what nobody reads does not lie there for ever.
pub(super) const UNSEEN: Duration = Duration::from_secs(7 * 24 * 3600);

/// How far a clock may go back without being taken for one that was set: corrections of a network's time.
const CLOCK_ERROR: Duration = Duration::from_secs(5 * 60);

/// How far ahead of our clock the number of a group's timer may be: it is the setter's time, and a number from the end of
/// time would be the last.
const NUMBER_AHEAD: Duration = Duration::from_secs(24 * 3600);

/// How many times a clock may be set back without having come right in between, until the furthest time is forgotten.
const MAX_AHEAD: usize = 8;

/// Messages erased in one commit. More would hold many pages of a full volume at once.
const STEP: usize = 500;

/// TMR-01
pub(super) fn lifetime(unit: &Unit<'_>, chat: &ChatId) -> Result<Option<Lifetime>, Fault> {
    Ok(unit.get::<TimerRow>(chat)?.and_then(|row| shorter(&row)))
}

/// TMR-01: of every chat that has a timer.
pub(super) fn lifetimes(unit: &Unit<'_>) -> Result<BTreeMap<ChatId, Lifetime>, Fault> {
    let rows = unit.scan::<TimerRow>(&[])?;
    Ok(rows.into_iter().filter_map(|(chat, row)| Some((chat, shorter(&row)?))).collect())
}

fn shorter(row: &TimerRow) -> Option<Lifetime> {
    row.ours.into_iter().chain(row.theirs).min().and_then(Lifetime::from_secs)
}

/// Sets how long messages of a chat are kept from now on, and tells the other side.
pub(super) fn set(cx: &mut Cx<'_, '_, '_>, name: &str, wanted: Option<Lifetime>) -> Result<(), Fault> {
    let (chat, shown) = contact::find(cx, name)?;
    let mut row = cx.unit.get::<TimerRow>(&chat)?.unwrap_or_default();
    let for_all = shown.kind == ChatKind::Group && group::role(cx.unit, &chat)?.is_some_and(Role::may_commit);
    let known = if for_all { row.theirs } else { row.ours };
    let ours = wanted.map(Lifetime::as_secs);
    if known == ours && !(for_all && row.ours.is_some()) {
        return Ok(());
    }
    if for_all {
        row.their_number = next_number(cx, row.their_number);
        row.theirs = ours;
        row.ours = None;
    } else {
        row.our_number = next_number(cx, row.our_number);
        row.ours = ours;
    }
    cx.unit.put(&chat, &row);
    match shown.kind {
        ChatKind::Direct => announce(cx, chat)?,
        ChatKind::Group if for_all => group::announce_timer(cx, chat)?,
        ChatKind::Group => {}
    }
    let whose = match shown.kind {
        ChatKind::Group if !for_all => "you, for this vault only",
        _ => "you",
    };
    told(cx, chat, whose, wanted)
}

fn next_number(cx: &Cx<'_, '_, '_>, last: u64) -> u64 {
    cx.now.as_millis().max(last.saturating_add(1))
}

/// Tells the contact what we want, if there is anything to tell and he can be told.
pub(super) fn announce(cx: &mut Cx<'_, '_, '_>, chat: ChatId) -> Result<(), Fault> {
    let Some(row) = cx.unit.get::<TimerRow>(&chat)?.filter(|row| row.our_number > 0) else { return Ok(()) };
    let Some(contact) = cx.unit.get::<ContactRow>(&chat)? else { return Ok(()) };
    let reachable = matches!(contact.state, ContactState::Joined | ContactState::Established);
    let blocked = cx.unit.get::<ChatRow>(&chat)?.is_none_or(|shown| shown.blocked);
    if !reachable || blocked || contact.session.is_none() || contact.route.is_none() {
        return Ok(());
    }
    let timer = Timer { lifetime: row.ours.and_then(Lifetime::from_secs), number: row.our_number };
    outgoing::send_content(cx, chat, Body::Timer(timer), None, contact.inbox)?;
    Ok(())
}

/// A contact said how long he wants messages to be kept. TMR-02, TMR-03.
pub(super) fn received(cx: &mut Cx<'_, '_, '_>, chat: ChatId, timer: Timer) -> Result<(), Fault> {
    take(cx, chat, timer, "the other side")
}

/// TMR-06: the owner or an admin of a group said so; the caller has checked the role.
pub(super) fn received_in_group(
    cx: &mut Cx<'_, '_, '_>,
    chat: ChatId,
    timer: Timer,
    author: &str,
) -> Result<(), Fault> {
    let latest = cx.now.plus(NUMBER_AHEAD).as_millis();
    take(cx, chat, Timer { number: timer.number.min(latest), ..timer }, author)
}

fn take(cx: &mut Cx<'_, '_, '_>, chat: ChatId, timer: Timer, who: &str) -> Result<(), Fault> {
    let mut row = cx.unit.get::<TimerRow>(&chat)?.unwrap_or_default();
    if timer.number <= row.their_number {
        return Ok(());
    }
    let wanted = timer.lifetime.map(Lifetime::as_secs);
    let changed = row.theirs != wanted;
    row.theirs = wanted;
    row.their_number = timer.number;
    cx.unit.put(&chat, &row);
    if changed { told(cx, chat, who, timer.lifetime) } else { Ok(()) }
}

/// The group's timer, for a message that tells it to all.
pub(super) fn of_group(unit: &Unit<'_>, chat: &ChatId) -> Result<Option<Timer>, Fault> {
    let row = unit.get::<TimerRow>(chat)?.filter(|row| row.their_number > 0);
    Ok(row.map(|row| Timer { lifetime: row.theirs.and_then(Lifetime::from_secs), number: row.their_number }))
}

/// A line in the chat: who set what, and what counts now, where that is something else.
fn told(cx: &mut Cx<'_, '_, '_>, chat: ChatId, who: &str, wanted: Option<Lifetime>) -> Result<(), Fault> {
    let counts = lifetime(cx.unit, &chat)?;
    let set = match wanted {
        Some(wanted) => format!("messages disappear {} after they were read", span_words(wanted.span())),
        None => "messages are kept".to_owned(),
    };
    let rest = match counts {
        Some(counts) if wanted != Some(counts) => {
            format!("; the shorter time counts, which is {}", span_words(counts.span()))
        }
        _ => String::new(),
    };
    conversation::note(cx, chat, &format!("{set} (set by {who}){rest}"))?;
    Ok(())
}

/// TMR-04: a message was stored; answers how long it lives.
pub(super) fn begin(
    cx: &mut Cx<'_, '_, '_>,
    place: (ChatId, Order),
    writer: Writer,
) -> Result<Option<Lifetime>, Fault> {
    let Some(lifetime) = lifetime(cx.unit, &place.0)? else { return Ok(None) };
    let runs = writer == Writer::Me;
    follow_clock(cx)?;
    let at = cx.now.plus(span(lifetime, runs));
    // How far a wrong clock is behind, nobody knows: what is left when it comes right counts from then.
    let behind = cx.unit.get::<ClockRow>(&())?.map_or(0, |clock| clock.ahead.len());
    put_deadline(
        cx,
        place,
        &DeadlineRow { at, runs, right: vec![Timestamp::from_millis(u64::MAX); behind] },
    )?;
    Ok(Some(lifetime))
}

fn span(lifetime: Lifetime, runs: bool) -> Duration {
    if runs { lifetime.span() } else { lifetime.span().max(UNSEEN) }
}

/// TMR-04: a message was shown for the first time.
pub(super) fn shown(
    cx: &mut Cx<'_, '_, '_>,
    place: (ChatId, Order),
    message: &MessageRow,
) -> Result<(), Fault> {
    let Some(lifetime) = message.lives.and_then(Lifetime::from_secs) else { return Ok(()) };
    follow_clock(cx)?;
    let Some(row) = cx.unit.get::<DeadlineRow>(&place)?.filter(|row| !row.runs) else { return Ok(()) };
    let at = row.at.min(cx.now.plus(lifetime.span()));
    put_deadline(cx, place, &DeadlineRow { at, runs: true, ..row })
}

fn put_deadline(
    cx: &mut Cx<'_, '_, '_>,
    place: (ChatId, Order),
    deadline: &DeadlineRow,
) -> Result<(), Fault> {
    forget_deadline(cx, place)?;
    cx.unit.put(&place, deadline);
    cx.unit.put(&(deadline.at, place.0, place.1), &DueRow {});
    let clock = cx.unit.get::<ClockRow>(&())?;
    if clock.as_ref().is_none_or(|clock| clock.latest < cx.now) {
        let (swept, ahead) = clock.map(|clock| (clock.swept, clock.ahead)).unwrap_or_default();
        cx.unit.put(&(), &ClockRow { latest: cx.now, swept, ahead });
    }
    Ok(())
}

/// A message came from another compartment with its deadline. Of a clock that is behind here, its end counts by that one's.
pub(super) fn carried_over(
    cx: &mut Cx<'_, '_, '_>,
    place: (ChatId, Order),
    mut deadline: DeadlineRow,
) -> Result<(), Fault> {
    follow_clock(cx)?;
    let behind = cx.unit.get::<ClockRow>(&())?.map_or(0, |clock| clock.ahead.len());
    let right = deadline.right.first().copied().unwrap_or(Timestamp::from_millis(u64::MAX));
    deadline.right.resize(behind, right);
    put_deadline(cx, place, &deadline)
}

/// A message is erased: nothing is left to wait for.
pub(super) fn forget_deadline(cx: &mut Cx<'_, '_, '_>, place: (ChatId, Order)) -> Result<(), Fault> {
    if let Some(row) = cx.unit.get::<DeadlineRow>(&place)? {
        cx.unit.delete::<DeadlineRow>(&place);
        cx.unit.delete::<DueRow>(&(row.at, place.0, place.1));
    }
    Ok(())
}

/// TMR-07: where the clock was set back, deadlines count by it until it is right again.
pub(super) fn follow_clock(cx: &mut Cx<'_, '_, '_>) -> Result<(), Fault> {
    let Some(mut clock) = cx.unit.get::<ClockRow>(&())? else { return Ok(()) };
    if clock.latest > cx.now.plus(CLOCK_ERROR) {
        return went_back(cx, clock);
    }
    let behind = clock.ahead.iter().take_while(|mark| **mark > cx.now.plus(CLOCK_ERROR)).count();
    if behind == clock.ahead.len() {
        return Ok(());
    }
    for (place, mut row) in cx.unit.scan::<DeadlineRow>(&[])? {
        // Of several times that were passed at once the furthest counts: the others were of wrong clocks themselves.
        let Some(right) = row.right.get(behind).copied() else { continue };
        row.right.truncate(behind);
        // What has passed by the wrong clock has passed.
        row.at = right.min(cx.now.plus(row.at.since(clock.latest)));
        put_deadline(cx, place, &row)?;
    }
    clock.ahead.truncate(behind);
    clock.latest = cx.now;
    cx.unit.put(&(), &clock);
    Ok(())
}

fn went_back(cx: &mut Cx<'_, '_, '_>, mut clock: ClockRow) -> Result<(), Fault> {
    let full = clock.ahead.len() >= MAX_AHEAD;
    for (place, mut row) in cx.unit.scan::<DeadlineRow>(&[])? {
        let Some(message) = cx.unit.get::<MessageRow>(&place)? else { continue };
        let Some(lifetime) = message.lives.and_then(Lifetime::from_secs) else { continue };
        if full && !row.right.is_empty() {
            row.right.remove(0);
        }
        row.right.push(row.at);
        let whole = span(lifetime, row.runs);
        let rest = if row.at > clock.latest { row.at.since(clock.latest).min(whole) } else { whole };
        row.at = row.at.min(cx.now.plus(rest));
        put_deadline(cx, place, &row)?;
    }
    if full {
        clock.ahead.remove(0);
    }
    clock.ahead.push(clock.latest);
    clock.latest = cx.now;
    clock.swept = clock.swept.map(|swept| swept.min(cx.now));
    cx.unit.put(&(), &clock);
    Ok(())
}

/// Erases messages whose time is over. `true` if there may be more of them.
pub(super) fn erase_due(cx: &mut Cx<'_, '_, '_>) -> Result<bool, Fault> {
    let found = cx.unit.range::<DueRow>(&[], None, STEP, false)?;
    let due: Vec<(Timestamp, ChatId, Order)> =
        found.into_iter().map(|(place, DueRow {})| place).take_while(|(at, ..)| *at <= cx.now).collect();
    let mut eraser = erasing::Eraser::default();
    for (at, chat, order) in &due {
        cx.unit.delete::<DueRow>(&(*at, *chat, *order));
        eraser.erase(cx, (*chat, *order))?;
    }
    let unsent = eraser.finish(cx)?;
    for (chat, count) in unsent {
        // A chat that is being deleted is told nothing.
        if cx.unit.get::<ChatRow>(&chat)?.is_some() {
            conversation::note(
                cx,
                chat,
                &format!("{count} message(s) of yours were not sent in time and are gone"),
            )?;
        }
    }
    if !due.is_empty() {
        cx.tell(Effect::Erased);
    }
    Ok(due.len() == STEP)
}

/// When the next message is due.
///
/// # Errors
/// [`Fault::Store`].
pub fn next_due(unit: &Unit<'_>) -> Result<Option<Timestamp>, Fault> {
    Ok(unit.range::<DueRow>(&[], None, 1, false)?.into_iter().next().map(|((at, ..), DueRow {})| at))
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;
    use crate::store::MemoryBase;

    const CHAT: ChatId = ChatId::from_bytes([1; 16]);
    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    #[test]
    fn tmr_02_a_wish_counts_only_if_its_number_is_higher() {
        let base = MemoryBase::default();
        let mut unit = Unit::new(&base);
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let mut cx = Cx { unit: &mut unit, now: NOW, rng: &mut rng, effects: Vec::new(), group: None };
        let timer = |seconds: u32, number: u64| Timer { lifetime: Lifetime::from_secs(seconds), number };
        let mut said = |timer: Timer, wanted: u32| {
            received(&mut cx, CHAT, timer).unwrap();
            assert_eq!(lifetime(cx.unit, &CHAT).unwrap(), Lifetime::from_secs(wanted), "{timer:?}");
        };
        said(timer(3600, 5), 3600);
        said(timer(300, 5), 3600);
        said(timer(300, 4), 3600);
        said(timer(300, 6), 300);
        said(timer(0, 7), 0);
        // The last number there is silences its sender, nobody else.
        said(timer(600, u64::MAX), 600);
        said(timer(0, u64::MAX), 600);
    }

    #[test]
    fn tmr_06_a_number_from_the_end_of_time_is_not_the_groups_last() {
        let base = MemoryBase::default();
        let mut unit = Unit::new(&base);
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let mut cx = Cx { unit: &mut unit, now: NOW, rng: &mut rng, effects: Vec::new(), group: None };
        let timer = |seconds: u32, number: u64| Timer { lifetime: Lifetime::from_secs(seconds), number };
        received_in_group(&mut cx, CHAT, timer(600, u64::MAX), "ann").unwrap();
        let later = NOW.plus(NUMBER_AHEAD).as_millis() + 1;
        received_in_group(&mut cx, CHAT, timer(900, later), "bob").unwrap();
        assert_eq!(
            lifetime(cx.unit, &CHAT).unwrap(),
            Lifetime::from_secs(600),
            "clamped to a day ahead as well"
        );
        cx.now = NOW.plus(Duration::from_millis(1));
        received_in_group(&mut cx, CHAT, timer(900, later), "bob").unwrap();
        assert_eq!(lifetime(cx.unit, &CHAT).unwrap(), Lifetime::from_secs(900));
    }
}
