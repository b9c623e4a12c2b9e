//! Trusted contacts who set off, together and from afar, what the owner prepared (design 5.3).
//!
//! The owner's side: each tripwire of such a plan holds a list for its quorum, sealed under a key of its own, which is shared
//! among the contacts that the plan alerts. The contact's side: what he was given, and what became of it.
//!
//! Rules (docs/duress.md): AFR-01 who has a voice is told so in the commit that puts the plan in force, and whoever has none
//! any more in the one that notes that it counts no more; AFR-02 the contacts stay the same: so do their voices, whatever else
//! changes; one less: all voices are new, told when the relay has taken them, and his counts for nothing from then on; AFR-03
//! too few contacts are left: nobody has a voice; AFR-04 one contact is one voice, and destroys nothing alone; AFR-05 a voice
//! that no relay has taken waits, through kills and restarts; AFR-06 a voice is told as given for as long as it surely counts.

use std::{collections::BTreeSet, time::Duration};

use lapwing_protocol::{
    alert::{self, MAX_HELD_VOICES, TrustId, Voices},
    content::Body,
};
use lapwing_wire::{
    address::RelayAddress,
    capability::{SecretKey, Trigger},
    frame::RaiseTrigger,
    ids::{TripwireId, labelled_hash},
    limits::{MAX_VOICES, MIN_DESTROYING_VOICES, VOICE_DAYS},
    sharing::{SHARE_LENGTH, Share, split},
    time::Timestamp,
    tripwire::{Action, ListKey, Quorum},
};
use rand_core::CryptoRng;
use serde_bytes::ByteBuf;

use super::{
    Cx, Effect, Fault, contact, conversation,
    outgoing::{self, seed},
    trust,
};
use crate::{
    labels::VOICES_DIGEST,
    store::{
        ChatId, HeldVoices, OpKind, OpRow, PlanAction, PlanRow, PlanState, QuorumRecord, RemoteRecord,
        ToldVoices, TripwireRecord, TrustRow, TrustSide, Unit, VoiceRecord,
    },
};

const HOUR: Duration = Duration::from_secs(3600);

/// How long a voice surely counts. Its relay counts days: the first may be almost over when the voice comes. And it looks at
/// its clock about once an hour: the first may even be over, unseen. One more hour is for what the clock here is set back
/// or forth by meanwhile.
const SURELY: Duration =
    Duration::from_secs(24 * 3600).saturating_mul(VOICE_DAYS - 1).saturating_sub(HOUR.saturating_mul(2));

/// How many contacts set a plan off together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteView {
    /// So many suffice.
    pub needed: u8,
    /// So many have a voice: none where too few are left.
    pub of: usize,
}

/// What we can set off for a contact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VoiceView {
    /// So many suffice.
    pub needed: u8,
    /// So many there are.
    pub of: u8,
    /// Where it is given.
    pub relays: Vec<RelayAddress>,
    /// What became of it.
    pub state: VoiceState,
}

/// What became of a voice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoiceState {
    /// It was not given.
    Held,
    /// It was given, and a relay has not taken it yet.
    Waiting,
    /// Every relay took it; the first then.
    Given(Timestamp),
}

impl VoiceState {
    /// AFR-06: until when a voice that was given surely counts. `None` where it was not, or where at `now` that is not sure
    /// any more: too long ago, or so far ahead that it was given by a wrong clock.
    #[must_use]
    pub fn counts_until(self, now: Timestamp) -> Option<Timestamp> {
        let Self::Given(at) = self else { return None };
        let until = at.plus(SURELY);
        (now < until && at.since(now) <= HOUR).then_some(until)
    }
}

/// AFR-04: whether so many of these contacts may set off such a plan.
pub(super) fn check(action: PlanAction, needed: u8, contacts: usize) -> Result<(), Fault> {
    if needed < 1 || usize::from(needed) > contacts || contacts > MAX_VOICES {
        return Err(Fault::Voices);
    }
    if action == PlanAction::Destroy && needed < MIN_DESTROYING_VOICES {
        return Err(Fault::OneVoice);
    }
    Ok(())
}

/// Whether the contacts of the compartment can hold voices at so many more relays.
pub(super) fn check_room(unit: &Unit<'_>, relays: usize) -> Result<(), Fault> {
    let plans = unit.scan::<PlanRow>(&[])?.into_iter().filter(|(_, row)| row.remote.is_some());
    let held: usize = plans.map(|(_, row)| row.tripwires.len()).sum();
    if held.saturating_add(relays) > MAX_HELD_VOICES { Err(Fault::PlanTooLarge) } else { Ok(()) }
}

/// AFR-02, AFR-03: new voices for the contacts that a plan has now. What was set off stays as it is.
pub(super) fn share(cx: &mut Cx<'_, '_, '_>, row: &mut PlanRow) -> Result<(), Fault> {
    let Some(RemoteRecord { needed, alert: _ }) = row.remote else { return Ok(()) };
    cx.tell(Effect::Voices);
    let contacts: BTreeSet<[u8; 16]> = row.alerts.iter().copied().collect();
    for tripwire in row.tripwires.iter_mut().filter(|tripwire| !tripwire.fired) {
        let quorum = if contacts.len() < usize::from(needed) {
            None
        } else {
            Some(shared(cx.rng, needed, &contacts)?)
        };
        let before = std::mem::replace(&mut tripwire.quorum, quorum);
        tripwire.former = tripwire.former.take().or(before);
    }
    Ok(())
}

fn shared(rng: &mut dyn CryptoRng, needed: u8, contacts: &BTreeSet<[u8; 16]>) -> Result<QuorumRecord, Fault> {
    let key = ListKey::generate(rng);
    let shares = split(&key, usize::from(needed), contacts.len(), rng).map_err(|_| Fault::Voices)?;
    let voices = contacts.iter().zip(shares).map(|(trust, share)| {
        let key: SecretKey<Trigger> = SecretKey::generate(rng);
        VoiceRecord {
            trust: *trust,
            key: ByteBuf::from(key.expose_seed().to_vec()),
            share: ByteBuf::from(share.expose().to_vec()),
        }
    });
    let voices = voices.collect();
    Ok(QuorumRecord { key: ByteBuf::from(key.expose().to_vec()), voices })
}

/// What a tripwire does when enough of its contacts say so.
pub(super) fn quorum(
    row: &PlanRow,
    tripwire: &TripwireRecord,
    actions: &[Action],
    rng: &mut dyn CryptoRng,
) -> Result<Option<Quorum>, Fault> {
    let (Some(remote), Some(quorum)) = (&row.remote, &tripwire.quorum) else { return Ok(None) };
    let voices = quorum
        .voices
        .iter()
        .map(|voice| Ok((secret(&voice.key)?.public(), share_of(&voice.share)?)))
        .collect::<Result<Vec<_>, Fault>>()?;
    let key = ListKey::from_bytes(seed(&quorum.key)?);
    let sealed = Quorum::seal(&tripwire.id, &key, remote.needed, &voices, actions, rng);
    sealed.map(Some).map_err(|_| Fault::PlanTooLarge)
}

fn secret(bytes: &[u8]) -> Result<SecretKey<Trigger>, Fault> {
    Ok(SecretKey::from_seed(seed(bytes)?))
}

fn share_of(bytes: &[u8]) -> Result<Share, Fault> {
    let bytes: [u8; SHARE_LENGTH] =
        bytes.try_into().map_err(|_| Fault::Inconsistent("a share has another length"))?;
    Ok(Share::from_bytes(bytes))
}

/// How many contacts set a plan off from afar.
pub(super) fn remote(row: &PlanRow) -> Option<RemoteView> {
    let needed = row.remote.as_ref()?.needed;
    let fewest = row.tripwires.iter().map(|tripwire| tripwire.quorum.as_ref().map_or(0, |q| q.voices.len()));
    Some(RemoteView { needed, of: fewest.min().unwrap_or(0) })
}

/// AFR-01: tells every trusted contact of ours what he can set off now, where that is not what he was told.
pub(super) fn tell(cx: &mut Cx<'_, '_, '_>) -> Result<(), Fault> {
    let trusts = cx.unit.scan::<TrustRow>(&[])?;
    let mut plans = None;
    for (id, mut row) in trusts.into_iter().filter(|(_, row)| row.side == TrustSide::Ours && row.accepted) {
        let plans = match &plans {
            Some(plans) => plans,
            None => plans.insert(cx.unit.scan::<PlanRow>(&[])?),
        };
        let voices = Voices { trust: TrustId::from_bytes(id), number: 0, plans: given_to(plans, &id)? };
        let digest = labelled_hash(VOICES_DIGEST, &[voices.export().expose()]);
        let told = match &row.told {
            None => voices.plans.is_empty(),
            Some(told) => told.digest == digest,
        };
        if told {
            continue;
        }
        // ALT-07: higher than any before, also where the record of those is from an older backup.
        let last = row.told.as_ref().map_or(0, |told| told.number);
        let number = cx.now.as_millis().max(last.saturating_add(1));
        match outgoing::send_content(cx, row.chat, Body::Voices(Voices { number, ..voices }), None, None) {
            // Told when a session is there again.
            Err(Fault::NotEstablished) => continue,
            other => other?,
        };
        row.told = Some(ToldVoices { number, digest });
        cx.unit.put(&id, &row);
    }
    Ok(())
}

/// The voices of one contact in all plans that are in force.
fn given_to(plans: &[([u8; 16], PlanRow)], trust: &[u8; 16]) -> Result<Vec<alert::PlanVoices>, Fault> {
    let mut given = Vec::new();
    for (_, row) in plans.iter().filter(|(_, row)| row.state == PlanState::Armed) {
        let Some(remote) = &row.remote else { continue };
        let (mut voices, mut of) = (Vec::new(), 0);
        for tripwire in &row.tripwires {
            // AFR-02: what the relay holds, for as long as it has not taken the new.
            let Some(quorum) = tripwire.former.as_ref().or(tripwire.quorum.as_ref()) else { continue };
            let Some(voice) = quorum.voices.iter().find(|voice| voice.trust == *trust) else { continue };
            of = of.max(quorum.voices.len());
            voices.push(alert::HeldVoice {
                relay: tripwire.relay.clone(),
                tripwire: tripwire.id,
                key: secret(&voice.key)?,
                share: share_of(&voice.share)?,
            });
        }
        let of = u8::try_from(of).map_err(|_| Fault::Inconsistent("a plan has too many voices"))?;
        if !voices.is_empty() {
            given.push(alert::PlanVoices { needed: remote.needed, of, voices });
        }
    }
    Ok(given)
}

/// ALT-07: a contact whose trusted contact we are says what we can set off for him.
pub(super) fn received(cx: &mut Cx<'_, '_, '_>, chat: ChatId, voices: &Voices) -> Result<(), Fault> {
    let id = *voices.trust.as_bytes();
    let known = cx.unit.get::<TrustRow>(&id)?;
    let is_ours = |row: &TrustRow| row.chat == chat && row.side == TrustSide::Theirs && row.accepted;
    let Some(mut row) = known.filter(is_ours) else { return Ok(()) };
    let before = held(&row)?;
    if before.as_ref().is_some_and(|before| before.number >= voices.number) {
        return Ok(());
    }
    let earlier = row.held.as_ref().map_or(&[][..], |held| &held.given);
    let stays = |tripwire: &TripwireId| {
        let old = before.as_ref().and_then(|before| find(before, tripwire));
        let new = find(voices, tripwire);
        old.zip(new).is_some_and(|(old, new)| old.key.public() == new.key.public())
    };
    let given: Vec<_> = earlier.iter().filter(|(tripwire, _)| stays(tripwire)).copied().collect();
    let (lost, had) = (given.len() < earlier.len(), before.is_some_and(|before| !before.plans.is_empty()));
    row.held = Some(HeldVoices { voices: ByteBuf::from(voices.export().expose().to_vec()), given });
    cx.unit.put(&id, &row);
    let note = match (had, voices.plans.is_empty()) {
        (_, false) if lost => Some("has given out new voices: yours counts no more until you give it again"),
        (false, false) => {
            Some("gives you a voice in what they prepared for an emergency: lapwing trust list")
        }
        (true, true) => Some("took back the voice that you had"),
        (true, false) | (false, true) => None,
    };
    if let Some(note) = note {
        conversation::note(cx, chat, note)?;
        cx.tell(Effect::Trust { trust: id });
    }
    Ok(())
}

fn held(row: &TrustRow) -> Result<Option<Voices>, Fault> {
    let Some(held) = &row.held else { return Ok(None) };
    Voices::import(&held.voices).map(Some).map_err(|_| Fault::Inconsistent("voices cannot be read"))
}

fn find<'v>(voices: &'v Voices, tripwire: &TripwireId) -> Option<&'v alert::HeldVoice> {
    voices.plans.iter().flat_map(|plan| &plan.voices).find(|voice| voice.tripwire == *tripwire)
}

/// AFR-05: gives our voice in everything that a contact prepared: recorded here, taken by the relays later.
pub(super) fn raise(cx: &mut Cx<'_, '_, '_>, name: &str) -> Result<(), Fault> {
    let (chat, _) = contact::find(cx, name)?;
    let (id, row) = trust::of_chat(cx.unit, chat, TrustSide::Theirs)?.ok_or(Fault::NoVoice)?;
    let voices = held(&row)?.filter(|voices| !voices.plans.is_empty()).ok_or(Fault::NoVoice)?;
    for (op, pending) in cx.unit.scan::<OpRow>(&[])? {
        if matches!(&pending.kind, OpKind::Trigger { trust, .. } if *trust == id) {
            cx.unit.delete::<OpRow>(&op);
        }
    }
    for voice in voices.plans.iter().flat_map(|plan| &plan.voices) {
        let kind = OpKind::Trigger { trust: id, tripwire: voice.tripwire };
        outgoing::push(cx, &voice.relay, kind, None)?;
    }
    Ok(())
}

/// The request that raises our voice, and the key that proves it. `None` if we have none any more.
pub(super) fn request(
    unit: &Unit<'_>,
    trust: &[u8; 16],
    tripwire: &TripwireId,
) -> Result<Option<(SecretKey<Trigger>, RaiseTrigger)>, Fault> {
    let Some(row) = unit.get::<TrustRow>(trust)? else { return Ok(None) };
    let Some(voices) = held(&row)? else { return Ok(None) };
    Ok(find(&voices, tripwire).map(|voice| {
        let key = SecretKey::from_seed(*voice.key.expose_seed());
        let raise = RaiseTrigger { tripwire: *tripwire, key: key.public(), share: voice.share.clone() };
        (key, raise)
    }))
}

/// A relay took our voice. It says so to everybody (TRP-16).
pub(super) fn taken(cx: &mut Cx<'_, '_, '_>, trust: &[u8; 16], tripwire: &TripwireId) -> Result<(), Fault> {
    let Some(mut row) = cx.unit.get::<TrustRow>(trust)? else { return Ok(()) };
    let Some(held) = &mut row.held else { return Ok(()) };
    held.given.retain(|(known, _)| known != tripwire);
    held.given.push((*tripwire, cx.now));
    cx.unit.put(trust, &row);
    Ok(())
}

/// What we can set off through a trust.
pub(super) fn views(unit: &Unit<'_>, id: &[u8; 16], row: &TrustRow) -> Result<Vec<VoiceView>, Fault> {
    let Some(voices) = held(row)? else { return Ok(Vec::new()) };
    let mut waiting = BTreeSet::new();
    for (_, op) in unit.scan::<OpRow>(&[])? {
        if let OpKind::Trigger { trust, tripwire } = op.kind
            && trust == *id
        {
            waiting.insert(*tripwire.as_bytes());
        }
    }
    let given = row.held.as_ref().map_or(&[][..], |held| &held.given);
    let view = |plan: &alert::PlanVoices| {
        let at = |voice: &alert::HeldVoice| {
            given.iter().find(|(tripwire, _)| *tripwire == voice.tripwire).map(|(_, at)| *at)
        };
        let state = if plan.voices.iter().any(|voice| waiting.contains(voice.tripwire.as_bytes())) {
            VoiceState::Waiting
        } else {
            let taken: Option<Vec<Timestamp>> = plan.voices.iter().map(at).collect();
            taken.and_then(|taken| taken.into_iter().min()).map_or(VoiceState::Held, VoiceState::Given)
        };
        let relays = plan.voices.iter().map(|voice| voice.relay.clone()).collect();
        VoiceView { needed: plan.needed, of: plan.of, relays, state }
    };
    Ok(voices.plans.iter().map(view).collect())
}
