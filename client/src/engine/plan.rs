//! What a duress passphrase sets off at the relays (design 5.1 to 5.3).
//!
//! A plan lies in a compartment that its cover does not show. Its tripwires are armed through the outbox like
//! everything else; whenever what they would set off changes, they are armed anew with a higher serial.

use lapwing_protocol::{
    alert::{Alert, AlertId, Cause, Kind, Status, TrustId},
    envelope,
};
use lapwing_wire::{
    address::{RelayAddress, RelayKey},
    capability::{SecretKey, TripwireOwner, Write},
    codec,
    frame::Arm,
    ids::{TripwireId, labelled_hash},
    limits::MAX_FRAME,
    time::Timestamp,
    tripwire::{
        Action, Causes, Deadline, ListKey, Meaning, OpenRecord, OpenStatus, SealedList,
        Status as TokenStatus, StatusKey, Token, TokenRecord,
    },
};
use rand_core::CryptoRng;
use serde_bytes::ByteBuf;

use super::{
    Cx, Fault, contact,
    outgoing::{self, seed},
    relays, trust, voice,
};
use crate::store::{
    MailboxRow, OpKind, OpRow, PlanAction, PlanRow, PlanState, RecordsRow, RemoteRecord, Sink,
    TripwireRecord, TrustRow, TrustSide, Unit,
};

use crate::labels::PLAN_DIGEST as DIGEST;

/// Records that every tripwire leaves at its relay, whatever the plan holds: the number tells nothing.
const RECORDS: usize = 8;

/// Room in the request that arms a tripwire for all but its two sealed lists: records, voices, keys and lengths are some 4 KiB.
const BESIDE_LISTS: usize = 16 << 10;

/// How far a serial jumps after a conflict: further than any clock error between two tries.
const SERIAL_JUMP_MS: u64 = 24 * 3600 * 1000;

/// What the owner decided.
pub struct PlanSpec {
    /// The owner's name for it.
    pub name: String,
    /// What becomes of what the cover does not show.
    pub action: PlanAction,
    /// Names of the compartments that the cover shows.
    pub shows: Vec<String>,
    /// Chats of the trusted contacts to alert.
    pub alert: Vec<String>,
    /// What the alert says.
    pub text: String,
    /// Last known place.
    pub place: Option<String>,
    /// What the contacts are asked to do.
    pub instructions: Option<String>,
    /// How many of those contacts set it off from afar, if they may.
    pub remote: Option<u8>,
    /// Mailboxes of what `destroy` ends.
    pub sinks: Vec<Sink>,
    /// The tokens of the cover and of our own payload, per relay.
    pub tokens: Vec<PlanTokens>,
}

/// Tokens of one relay.
pub struct PlanTokens {
    /// The relay.
    pub relay: RelayAddress,
    /// Sent when the cover is opened.
    pub fire: Token,
    /// Sent when we unlock.
    pub renew: Token,
}

/// The relays on which the alert mailboxes of these contacts lie.
///
/// # Errors
/// [`Fault::NoTrust`] for somebody who is no trusted contact, or has not accepted.
pub fn alert_relays(unit: &Unit<'_>, chats: &[String]) -> Result<Vec<RelayAddress>, Fault> {
    let mut relays: Vec<RelayAddress> = Vec::new();
    for (_, row) in trusts(unit, chats)? {
        let relay = trust::request(&row)?.relay;
        if relays.iter().all(|known| known.key() != relay.key()) {
            relays.push(relay);
        }
    }
    Ok(relays)
}

pub(super) fn trusts(unit: &Unit<'_>, chats: &[String]) -> Result<Vec<([u8; 16], TrustRow)>, Fault> {
    chats
        .iter()
        .map(|name| {
            let chat = contact::id_of(unit, name)?;
            trust::of_chat(unit, chat, TrustSide::Ours)?.filter(|(_, row)| row.accepted).ok_or(Fault::NoTrust)
        })
        .collect()
}

/// Begins a plan: records it as pending and has its tripwires armed.
pub(super) fn begin(cx: &mut Cx<'_, '_, '_>, spec: PlanSpec) -> Result<[u8; 16], Fault> {
    let PlanSpec { name, action, shows, alert, text, place, instructions, remote, sinks, tokens } = spec;
    let name = contact::checked_name(&name)?;
    if cx.unit.scan::<PlanRow>(&[])?.iter().any(|(_, row)| row.name == name) {
        return Err(Fault::NameTaken);
    }
    let mut alerts: Vec<[u8; 16]> = Vec::new();
    for (id, _) in trusts(cx.unit, &alert)? {
        // AFR-04: whoever is named twice is one all the same.
        if !alerts.contains(&id) {
            alerts.push(id);
        }
    }
    if let Some(needed) = remote {
        voice::check(action, needed, alerts.len())?;
        voice::check_room(cx.unit, tokens.len())?;
    }
    let mut tripwires = Vec::new();
    for PlanTokens { relay, fire, renew } in tokens {
        tripwires.push(tripwire(cx, relay, &fire, &renew));
    }
    let plan = cx.random();
    let mut row = PlanRow {
        name,
        state: PlanState::Pending,
        action,
        shows,
        alerts,
        text,
        place,
        instructions,
        tripwires,
        sinks,
        alert: cx.random(),
        made: cx.now,
        after: None,
        heard: None,
        remote: remote.map(|needed| RemoteRecord { needed, alert: cx.random() }),
    };
    voice::share(cx, &mut row)?;
    // In the same commit: no page has held a plan of which the compartment does not know for good.
    let records = cx.unit.get::<RecordsRow>(&())?.unwrap_or_default();
    cx.unit.put(&(), &RecordsRow { held: true, ..records });
    arm_first(cx, &plan, &row)?;
    Ok(plan)
}

/// A tripwire that no relay has yet.
pub(super) fn tripwire(
    cx: &mut Cx<'_, '_, '_>,
    relay: RelayAddress,
    fire: &Token,
    renew: &Token,
) -> TripwireRecord {
    let owner: SecretKey<TripwireOwner> = SecretKey::generate(cx.rng);
    TripwireRecord {
        relay,
        id: TripwireId::of_owner(&owner.public()),
        owner: ByteBuf::from(owner.expose_seed().to_vec()),
        fire: ByteBuf::from(fire.expose().to_vec()),
        renew: ByteBuf::from(renew.expose().to_vec()),
        status: ByteBuf::from(cx.random::<32>().to_vec()),
        floor: 0,
        wanted: [0; 32],
        armed: None,
        fired: false,
        quorum: None,
        former: None,
        agreed: false,
    }
}

/// Records a plan and has its tripwires armed. Everything is tried once here, so that what cannot be armed is refused and
/// not recorded.
pub(super) fn arm_first(cx: &mut Cx<'_, '_, '_>, plan: &[u8; 16], row: &PlanRow) -> Result<(), Fault> {
    cx.unit.put(plan, row);
    for tripwire in &row.tripwires {
        armed(cx.unit, row, tripwire, cx.now, cx.rng)?;
    }
    rearm(cx, plan)
}

/// The header holds the cover: the plan is in force, and who has a voice in it is told.
pub(super) fn finish(cx: &mut Cx<'_, '_, '_>, plan: &[u8; 16]) -> Result<(), Fault> {
    let mut row = cx.unit.get::<PlanRow>(plan)?.ok_or(Fault::UnknownPlan)?;
    row.state = PlanState::Armed;
    cx.unit.put(plan, &row);
    voice::tell(cx)
}

/// The cover is about to leave the header: a plan that is there without its passphrase would be relied on for nothing.
pub(super) fn unfinish(cx: &mut Cx<'_, '_, '_>, plan: &[u8; 16]) -> Result<(), Fault> {
    let mut row = cx.unit.get::<PlanRow>(plan)?.ok_or(Fault::UnknownPlan)?;
    row.state = PlanState::Pending;
    cx.unit.put(plan, &row);
    Ok(())
}

/// Ends a plan: its tripwires are removed from the relays.
pub(super) fn remove(cx: &mut Cx<'_, '_, '_>, plan: &[u8; 16]) -> Result<(), Fault> {
    let row = cx.unit.get::<PlanRow>(plan)?.ok_or(Fault::UnknownPlan)?;
    for (op, pending) in cx.unit.scan::<OpRow>(&[])? {
        if matches!(&pending.kind, OpKind::Arm { plan: armed } if armed == plan) {
            cx.unit.delete::<OpRow>(&op);
        }
    }
    for tripwire in row.tripwires {
        outgoing::push(cx, &tripwire.relay, OpKind::Disarm { owner: tripwire.owner }, None)?;
    }
    cx.unit.delete::<PlanRow>(plan);
    voice::tell(cx)
}

/// Takes the mailboxes that `destroy` ends now, and arms anew what changed.
pub(super) fn refresh(cx: &mut Cx<'_, '_, '_>, plan: &[u8; 16], sinks: Vec<Sink>) -> Result<(), Fault> {
    let mut row = cx.unit.get::<PlanRow>(plan)?.ok_or(Fault::UnknownPlan)?;
    if row.sinks != sinks {
        row.sinks = sinks;
        cx.unit.put(plan, &row);
    }
    rearm(cx, plan)
}

/// Arms every tripwire of a plan whose contents differ from what its relay has.
pub(super) fn rearm(cx: &mut Cx<'_, '_, '_>, plan: &[u8; 16]) -> Result<(), Fault> {
    let mut row = cx.unit.get::<PlanRow>(plan)?.ok_or(Fault::UnknownPlan)?;
    let mut due = Vec::new();
    let digests: Vec<[u8; 32]> =
        row.tripwires.iter().map(|tripwire| digest(cx.unit, &row, tripwire)).collect::<Result<_, _>>()?;
    for (tripwire, digest) in row.tripwires.iter_mut().zip(digests) {
        if tripwire.wanted != digest && !tripwire.fired {
            tripwire.wanted = digest;
            due.push(tripwire.relay.clone());
        }
    }
    cx.unit.put(plan, &row);
    for relay in due {
        outgoing::push(cx, &relay, OpKind::Arm { plan: *plan }, None)?;
    }
    Ok(())
}

/// A relay turned out to have forgotten something: its tripwires are armed anew.
pub(super) fn forgotten(cx: &mut Cx<'_, '_, '_>, relay: &RelayKey) -> Result<(), Fault> {
    for (plan, mut row) in cx.unit.scan::<PlanRow>(&[])? {
        let mut changed = false;
        for tripwire in row.tripwires.iter_mut().filter(|t| t.relay.key() == relay && !t.fired) {
            tripwire.wanted = [0; 32];
            tripwire.armed = None;
            changed = true;
        }
        if changed {
            cx.unit.put(&plan, &row);
            rearm(cx, &plan)?;
        }
    }
    Ok(())
}

/// The relay confirmed an arming.
pub(super) fn confirmed(cx: &mut Cx<'_, '_, '_>, plan: &[u8; 16], relay: &RelayKey) -> Result<(), Fault> {
    let Some(mut row) = cx.unit.get::<PlanRow>(plan)? else { return Ok(()) };
    // What was asked for before a change says nothing of what is wanted since: the request that is due for it will.
    let is_due = |(_, op): &(_, OpRow)| {
        op.relay.key() == relay && matches!(&op.kind, OpKind::Arm { plan: armed } if armed == plan)
    };
    if cx.unit.scan::<OpRow>(&[])?.iter().any(is_due) {
        return Ok(());
    }
    for tripwire in row.tripwires.iter_mut().filter(|t| t.relay.key() == relay) {
        tripwire.armed = Some(ByteBuf::from(tripwire.wanted.to_vec()));
        tripwire.former = None;
        // Arming begins a deadline.
        row.heard = row.after.and(Some(cx.now));
    }
    cx.unit.put(plan, &row);
    voice::tell(cx)
}

/// The relay holds a higher serial, after a clock error of ours: the next try jumps over it.
pub(super) fn conflicted(cx: &mut Cx<'_, '_, '_>, plan: &[u8; 16], relay: &RelayKey) -> Result<(), Fault> {
    let Some(mut row) = cx.unit.get::<PlanRow>(plan)? else { return Ok(()) };
    for tripwire in row.tripwires.iter_mut().filter(|t| t.relay.key() == relay) {
        tripwire.floor = tripwire.floor.max(cx.now.as_millis()).saturating_add(SERIAL_JUMP_MS);
    }
    cx.unit.put(plan, &row);
    Ok(())
}

/// Reads the status in the answer to our own token. What was set off is marked, and not armed again.
///
/// TRP-06: the relay keeps the renewing record of a tripwire that was set off, and answers its token with that. Only a
/// status that a tripwire's own key opens says anything: one answer speaks of one tripwire, whatever else is armed there.
///
/// Where tripwires of this token are armed and the answer is of none of them, the relay has lost them: it came back from a
/// backup, which holds none, or lies. It is told everything anew.
pub(super) fn token_answer(
    cx: &mut Cx<'_, '_, '_>,
    relay: &RelayKey,
    token: &Token,
    status: &TokenStatus,
) -> Result<(), Fault> {
    let plans = cx.unit.scan::<PlanRow>(&[])?;
    let (mut is_known, mut missed) = (false, None);
    for (plan, mut row) in plans {
        let mut changed = false;
        for tripwire in row.tripwires.iter_mut().filter(|t| t.relay.key() == relay) {
            let key = StatusKey::from_bytes(seed(&tripwire.status)?);
            let opened = status.open(&key);
            is_known |= opened.is_some();
            if !tripwire.fired && tripwire.armed.is_some() && tripwire.renew.as_slice() == token.expose() {
                missed = Some(tripwire.relay.clone());
            }
            let (gone, agreed) =
                opened.map_or((false, false), |OpenStatus { serial: _, fired, came }| (fired, came.quorum));
            let now = (tripwire.fired | gone | agreed, tripwire.agreed | agreed);
            changed |= now != (tripwire.fired, tripwire.agreed);
            (tripwire.fired, tripwire.agreed) = now;
        }
        if changed {
            cx.unit.put(&plan, &row);
        }
    }
    match missed.filter(|_| !is_known) {
        Some(relay) => relays::tell_anew(cx, &relay),
        None => Ok(()),
    }
}

/// The request that arms a plan's tripwire at a relay, and the key that proves it. `None` if there is nothing to arm:
/// the plan is gone, its tripwire was set off, or the relay has confirmed what is wanted.
pub(super) fn arm_request(
    unit: &Unit<'_>,
    plan: &[u8; 16],
    relay: &RelayKey,
    now: Timestamp,
    rng: &mut dyn CryptoRng,
) -> Result<Option<(SecretKey<TripwireOwner>, Arm)>, Fault> {
    let Some(row) = unit.get::<PlanRow>(plan)? else { return Ok(None) };
    let Some(tripwire) = row.tripwires.iter().find(|t| t.relay.key() == relay) else { return Ok(None) };
    if tripwire.fired || tripwire.armed.as_deref().is_some_and(|armed| armed.as_slice() == tripwire.wanted) {
        return Ok(None);
    }
    let owner: SecretKey<TripwireOwner> = SecretKey::from_seed(seed(&tripwire.owner)?);
    let Lists { meaning, list_key, token_list, causes } = armed(unit, &row, tripwire, now, rng)?;
    let status_key = StatusKey::from_bytes(seed(&tripwire.status)?);
    let fire = Token::from_bytes(seed(&tripwire.fire)?);
    let renew = Token::from_bytes(seed(&tripwire.renew)?);
    let mut records = vec![
        record(&fire, meaning, tripwire.id, list_key, StatusKey::generate(rng), rng),
        record(&renew, Meaning::Renew, tripwire.id, ListKey::generate(rng), status_key, rng),
    ];
    while records.len() < RECORDS {
        let token = Token::generate(rng);
        let (list, status) = (ListKey::generate(rng), StatusKey::generate(rng));
        records.push(record(&token, Meaning::Nothing, tripwire.id, list, status, rng));
    }
    records.sort_by_key(|record| record.lookup);
    // Milliseconds: higher at each try without a write of our own before it.
    let serial = tripwire.floor.max(now.as_millis());
    Ok(Some((
        SecretKey::from_seed(*owner.expose_seed()),
        Arm { owner: owner.public(), access: None, serial, records, token_list, causes },
    )))
}

/// What a tripwire holds.
struct Lists {
    meaning: Meaning,
    list_key: ListKey,
    token_list: SealedList,
    causes: Causes,
}

/// What the tripwire is to hold now.
fn armed(
    unit: &Unit<'_>,
    row: &PlanRow,
    tripwire: &TripwireRecord,
    now: Timestamp,
    rng: &mut dyn CryptoRng,
) -> Result<Lists, Fault> {
    let list_key = ListKey::generate(rng);
    // Of a check-in nobody has the token that fires, and the list that it would set off is empty.
    let (meaning, actions, causes) = match row.after {
        None => {
            let quorum = match &row.remote {
                Some(remote) => {
                    let agreed = actions(unit, row, tripwire, (Cause::Quorum, remote.alert), now, rng)?;
                    voice::quorum(row, tripwire, &agreed, rng)?
                }
                None => None,
            };
            let actions = actions(unit, row, tripwire, (Cause::Token, row.alert), now, rng)?;
            (Meaning::Fire, actions, Causes { quorum, ..Causes::default() })
        }
        Some(after_s) => {
            let actions = actions(unit, row, tripwire, (Cause::Deadline, row.alert), now, rng)?;
            let alerting = Some(Deadline { after_s, actions });
            (Meaning::Nothing, Vec::new(), Causes { alerting, ..Causes::default() })
        }
    };
    let token_list =
        SealedList::seal(&actions, &tripwire.id, &list_key, rng).map_err(|_| Fault::PlanTooLarge)?;
    let agreed = causes.quorum.as_ref().map_or(0, |quorum| quorum.list.as_bytes().len());
    if token_list.as_bytes().len().saturating_add(agreed) > MAX_FRAME - BESIDE_LISTS {
        return Err(Fault::PlanTooLarge);
    }
    Ok(Lists { meaning, list_key, token_list, causes })
}

fn record(
    token: &Token,
    meaning: Meaning,
    tripwire: TripwireId,
    list_key: ListKey,
    status_key: StatusKey,
    rng: &mut dyn CryptoRng,
) -> TokenRecord {
    TokenRecord::seal(token, &OpenRecord { tripwire, meaning, list_key, status_key }, rng)
}

/// What the tripwire sets off: the alerts at its relay, sealed now, and the sinks there.
fn actions(
    unit: &Unit<'_>,
    plan: &PlanRow,
    tripwire: &TripwireRecord,
    (cause, alert): (Cause, [u8; 16]),
    now: Timestamp,
    rng: &mut dyn CryptoRng,
) -> Result<Vec<Action>, Fault> {
    let mut actions = Vec::new();
    for id in &plan.alerts {
        let Some(row) = unit.get::<TrustRow>(id)? else { continue };
        let request = trust::request(&row)?;
        if request.relay.key() != tripwire.relay.key() {
            continue;
        }
        let Some(mailbox) = unit.get::<MailboxRow>(&request.mailbox)? else { continue };
        let write = mailbox.write.ok_or(Fault::Inconsistent("a write key is missing"))?;
        let write: SecretKey<Write> = SecretKey::from_seed(seed(&write)?);
        let alert = Alert {
            trust: TrustId::from_bytes(*id),
            id: AlertId::from_bytes(alert),
            serial: 1,
            tripwire: tripwire.id,
            kind: Kind::Alert,
            status: Status::Actual,
            cause,
            made: now,
            text: plan.text.clone(),
            place: plan.place.clone(),
            instructions: plan.instructions.clone(),
            quarantine: Vec::new(),
        };
        let sealed = alert.seal(&request.seal, &trust::signer(&row)?, rng).map_err(|_| Fault::TextTooLong)?;
        let envelope = envelope::seal(&trust::envelope_key(&request), &request.mailbox, &sealed, rng)
            .map_err(|_| Fault::TextTooLong)?;
        actions.push(Action::append(request.mailbox, envelope, &write));
    }
    for sink in plan.sinks.iter().filter(|sink| sink.relay == *tripwire.relay.key()) {
        actions.push(Action::sink(sink.mailbox, &SecretKey::from_seed(seed(&sink.admin)?)));
    }
    // Sealed once to learn whether it fits.
    SealedList::seal(&actions, &tripwire.id, &ListKey::generate(rng), rng)
        .map_err(|_| Fault::PlanTooLarge)?;
    Ok(actions)
}

/// What decides whether a tripwire has to be armed anew.
fn digest(unit: &Unit<'_>, plan: &PlanRow, tripwire: &TripwireRecord) -> Result<[u8; 32], Fault> {
    let mut mailboxes = Vec::new();
    for id in &plan.alerts {
        if let Some(row) = unit.get::<TrustRow>(id)? {
            let request = trust::request(&row)?;
            if request.relay.key() == tripwire.relay.key() {
                mailboxes.push(request.mailbox);
            }
        }
    }
    let sinks: Vec<_> = plan
        .sinks
        .iter()
        .filter(|sink| sink.relay == *tripwire.relay.key())
        .map(|sink| sink.mailbox)
        .collect();
    let parts = codec::encode(&(mailboxes, sinks, &plan.text, &plan.place, &plan.instructions));
    let after = plan.after.map(u64::to_be_bytes);
    let needed = plan.remote.as_ref().map_or(0, |remote| remote.needed).to_be_bytes();
    let mut parts: Vec<&[u8]> = vec![&parts, &tripwire.fire, &tripwire.renew];
    parts.extend(after.as_ref().map(<[u8; 8]>::as_slice));
    if let Some(quorum) = &tripwire.quorum {
        parts.extend([needed.as_slice(), &quorum.key]);
    }
    Ok(labelled_hash(DIGEST, &parts))
}
