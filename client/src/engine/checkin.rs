//! An alert that leaves when nothing is heard of its owner for too long.
//!
//! It is a plan without a passphrase ([`plan`]): its tripwires hold an alerting deadline (TRP-10 to TRP-12), which only the
//! check-in's own token begins anew. An unlock does not: who makes somebody unlock a vault does not silence the alert with it.
//!
//! Rules (docs/duress.md): CHK-01 nothing but the check-in's own token counts as a word; CHK-02 what a relay has not confirmed
//! is not shown as running, and a word that no relay has confirmed is told as not given; CHK-03 a relay that has lost it is
//! told it anew, and the owner is told so.

use std::time::Duration;

use lapwing_wire::{
    address::{RelayAddress, RelayKey},
    limits::{MAX_DEADLINE, MIN_DEADLINE},
    time::Timestamp,
    tripwire::{Status as TokenStatus, StatusKey, Token},
};

use super::{Cx, Fault, outgoing::seed, plan, relays, view};
use crate::store::{OpKind, OpRow, PlanAction, PlanRow, PlanState, Unit};

/// What the owner decided.
pub struct CheckinSpec {
    /// The silence after which the alert leaves.
    pub after: Duration,
    /// Chats of the trusted contacts to alert.
    pub alert: Vec<String>,
    /// What the alert says.
    pub text: String,
    /// Last known place.
    pub place: Option<String>,
    /// What the contacts are asked to do.
    pub instructions: Option<String>,
    /// The relays that keep it ([`plan::alert_relays`]), and the token that checks in at each.
    pub tokens: Vec<(RelayAddress, Token)>,
}

/// What a relay's answer to the token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The time runs from now on.
    Running,
    /// The alert has left.
    Came,
    /// The relay knows nothing of it. It is told anew.
    Lost,
}

/// A check-in.
pub struct CheckinView {
    /// Which.
    pub id: [u8; 16],
    /// How far setting it up has come.
    pub state: PlanState,
    /// The silence after which the alert leaves.
    pub after: Duration,
    /// Chats of the contacts that are alerted.
    pub alerts: Vec<String>,
    /// Every relay holds what it should.
    pub armed: bool,
    /// A relay said that the alert has left.
    pub came: bool,
    /// When a relay last confirmed a word, or the beginning.
    pub heard: Option<Timestamp>,
    /// Its relays, and the token that checks in at each.
    pub tokens: Vec<(RelayAddress, Token)>,
}

/// The check-in of a compartment.
///
/// # Errors
/// [`Fault::Store`].
pub fn of(unit: &Unit<'_>) -> Result<Option<CheckinView>, Fault> {
    let Some((id, after, row)) = row_of(unit)? else { return Ok(None) };
    let tokens = row
        .tripwires
        .iter()
        .map(|tripwire| Ok::<_, Fault>((tripwire.relay.clone(), Token::from_bytes(seed(&tripwire.renew)?))));
    Ok(Some(CheckinView {
        id,
        state: row.state,
        after: Duration::from_secs(after),
        alerts: view::alerted(unit, &row)?,
        armed: view::is_armed(&row),
        came: row.tripwires.iter().any(|tripwire| tripwire.fired),
        heard: row.heard,
        tokens: tokens.collect::<Result<_, _>>()?,
    }))
}

/// Whether a relay has still to hear that a check-in, or a plan, is over.
///
/// # Errors
/// [`Fault::Store`].
pub fn is_ending(unit: &Unit<'_>) -> Result<bool, Fault> {
    Ok(unit.scan::<OpRow>(&[])?.iter().any(|(_, op)| matches!(op.kind, OpKind::Disarm { .. })))
}

fn row_of(unit: &Unit<'_>) -> Result<Option<([u8; 16], u64, PlanRow)>, Fault> {
    let rows = unit.scan::<PlanRow>(&[])?.into_iter();
    Ok(rows.filter_map(|(id, row)| Some((id, row.after?, row))).next())
}

/// Records a check-in as pending and has its tripwires armed.
pub(super) fn begin(cx: &mut Cx<'_, '_, '_>, spec: CheckinSpec) -> Result<[u8; 16], Fault> {
    let CheckinSpec { after, alert, text, place, instructions, tokens } = spec;
    if !(MIN_DEADLINE..=MAX_DEADLINE).contains(&after) {
        return Err(Fault::CheckinSpan);
    }
    if row_of(cx.unit)?.is_some() {
        return Err(Fault::CheckinRuns);
    }
    // Nobody would hear of the silence.
    if alert.is_empty() || tokens.is_empty() {
        return Err(Fault::NoTrust);
    }
    let alerts: Vec<[u8; 16]> = plan::trusts(cx.unit, &alert)?.into_iter().map(|(id, _)| id).collect();
    let tripwires = tokens.into_iter().map(|(relay, token)| {
        let nobodys = Token::generate(cx.rng);
        plan::tripwire(cx, relay, &nobodys, &token)
    });
    let row = PlanRow {
        name: String::new(),
        state: PlanState::Pending,
        action: PlanAction::Hide,
        shows: Vec::new(),
        alerts,
        text,
        place,
        instructions,
        tripwires: tripwires.collect(),
        sinks: Vec::new(),
        alert: cx.random(),
        made: cx.now,
        after: Some(after.as_secs()),
        heard: None,
        remote: None,
    };
    let id = cx.random();
    plan::arm_first(cx, &id, &row)?;
    Ok(id)
}

/// Reads the status in the answer to a check-in's token.
pub(super) fn answered(
    cx: &mut Cx<'_, '_, '_>,
    id: &[u8; 16],
    relay: &RelayKey,
    status: &TokenStatus,
) -> Result<Standing, Fault> {
    let mut row = cx.unit.get::<PlanRow>(id)?.ok_or(Fault::NoCheckin)?;
    let Some(tripwire) = row.tripwires.iter_mut().find(|tripwire| tripwire.relay.key() == relay) else {
        return Err(Fault::UnknownRelay);
    };
    let key = StatusKey::from_bytes(seed(&tripwire.status)?);
    let standing = match status.open(&key) {
        // CHK-03
        None => {
            let address = tripwire.relay.clone();
            tripwire.armed = None;
            tripwire.wanted = [0; 32];
            cx.unit.put(id, &row);
            plan::rearm(cx, id)?;
            // Everything else that it may have lost, at most once an hour; this one whenever its owner asks.
            relays::tell_anew(cx, &address)?;
            return Ok(Standing::Lost);
        }
        Some(open) if open.came.alerting => {
            tripwire.fired = true;
            Standing::Came
        }
        Some(_) => {
            row.heard = Some(cx.now);
            Standing::Running
        }
    };
    cx.unit.put(id, &row);
    Ok(standing)
}
