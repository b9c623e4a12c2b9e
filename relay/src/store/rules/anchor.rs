//! Anchors: count, compare, release, destroy.
//!
//! Invariants: ANC-04 an evaluation is counted in the change that lets it be answered; ANC-05 every proof is compared with
//! all entries and writes the same records; ANC-06 what an entry's deed says is done in the change that releases its share;
//! ANC-09 ten failures freeze; ANC-11 every change of secrets is a new version, whose predecessors' keys are forgotten.

use lapwing_wire::{
    anchor::{Entry, GroupKey, OuterKey, Proof},
    capability::{AnchorOwner, PublicKey},
    codec,
    frame::{
        AddEntry, CreateAnchor, Evaluate, ProveEntry, RaiseThaw, Refusal, Release, SetEntry, Settle, Stage,
    },
    ids::AnchorId,
    limits::{ANCHOR_ENTRIES, MAX_FAILURES},
    oprf::{Blinded, OprfKey},
    time::Timestamp,
};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{
    super::{
        AnchorChange, AnchorOutcome, Charge, Day, StoreError, damage,
        record::{self, Anchor, Evaluation, Secrets, Shown, Staged, anchor_key, secrets_key, untold_key},
        tables::{Batch, Space, Tables},
    },
    Scene,
    access::{self, Cost},
    tripwire::{frozen, token},
};

/// What an anchor is charged: its state and its secrets, twice while they change.
const COST: Cost = Cost { bytes: 8192, mailboxes: 0 };
/// Evaluations that are remembered; the oldest that are settled go first.
const MAX_EVALUATIONS: usize = 16;

pub(super) fn change<T: Tables>(
    batch: &mut Batch<'_, T>,
    change: &AnchorChange,
    scene: &mut Scene,
    now: Timestamp,
) -> Result<AnchorOutcome, StoreError> {
    // The same write in any case.
    scene.fill(batch);
    match change {
        AnchorChange::Create { make, charge } => create(batch, make, *charge, scene, now),
        AnchorChange::Set(set) => change_entry(batch, set, scene),
        AnchorChange::Remove(owner) => remove(batch, owner),
        AnchorChange::Evaluate(asked) => evaluate(batch, asked, scene),
        AnchorChange::Prove(shown) => prove(batch, shown, scene),
        AnchorChange::Stage { proof, stage } => lay(batch, proof, stage, scene),
        AnchorChange::Commit { proof, settle } => self::settle(batch, proof, settle, true, scene),
        AnchorChange::Abort { proof, settle } => self::settle(batch, proof, settle, false, scene),
        AnchorChange::Add { proof, add } => inherit(batch, proof, add, scene),
        AnchorChange::Thaw(raise) => thaw(batch, raise, scene),
    }
}

const NOT_ALLOWED: Result<AnchorOutcome, StoreError> = Ok(AnchorOutcome::Refused(Refusal::NotAllowed));
const CONFLICT: Result<AnchorOutcome, StoreError> = Ok(AnchorOutcome::Refused(Refusal::Conflict));

fn load<T: Tables>(batch: &Batch<'_, T>, id: &AnchorId) -> Result<Option<Anchor>, StoreError> {
    batch.load_as(Space::State, &anchor_key(id))
}

fn save<T: Tables>(batch: &mut Batch<'_, T>, id: &AnchorId, anchor: &Anchor) {
    batch.put_as(Space::State, anchor_key(id), anchor);
}

fn open<T: Tables>(batch: &Batch<'_, T>, id: &AnchorId, anchor: &Anchor) -> Result<Secrets, StoreError> {
    let key = secrets_key(id, anchor.version);
    let opened = batch.load_sealed(&key)?.ok_or(StoreError::Damaged)?;
    record::decode(&opened)
}

/// ANC-11: the next version of the secrets; what leads to the ones before is forgotten.
fn seal<T: Tables>(
    batch: &mut Batch<'_, T>,
    id: &AnchorId,
    anchor: &mut Anchor,
    secrets: &mut Secrets,
    scene: &mut Scene,
) {
    drop_lost_copy(secrets, scene);
    batch.delete(Space::Bulk, secrets_key(id, anchor.version));
    anchor.version = anchor.version.saturating_add(1);
    let plain = Zeroizing::new(codec::encode(secrets));
    batch.put(Space::Bulk, secrets_key(id, anchor.version), record::encode_part(anchor.slot, &plain));
    batch.forget_keys(anchor.slot, anchor.version);
}

/// ANC-08: a stage's copy of an entry goes with the entry, whatever took that. Whoever has the anchor's key tries passphrases at a copy as at
/// the entry, and at its mark alone. The outer key stays, to be settled.
fn drop_lost_copy(secrets: &mut Secrets, scene: &mut Scene) {
    // Drawn in any case, so that all are alike in time.
    let random = Entry::random(&mut scene.rng);
    let Secrets { key: _, outer: _, staged, entries } = secrets;
    if let Some(Staged { outer: _, mark, by }) = staged
        && entries.iter().filter(|entry| entry.with_mark(mark) == *by).count() == 0
    {
        (*mark, *by) = (random.mark(), random);
    }
}

/// Gives an anchor another slot where nothing can be sealed in its own any more.
fn leave_spoilt_keys<T: Tables>(batch: &mut Batch<'_, T>, anchor: &mut Anchor) -> Result<(), StoreError> {
    if !batch.has_keys(anchor.slot, anchor.version.saturating_add(1)) {
        let spoilt = std::mem::replace(&mut anchor.slot, batch.allocate_anchor()?);
        batch.forget_keys(spoilt, u64::MAX);
    }
    Ok(())
}

fn create<T: Tables>(
    batch: &mut Batch<'_, T>,
    make: &CreateAnchor,
    charge: Charge,
    scene: &mut Scene,
    now: Timestamp,
) -> Result<AnchorOutcome, StoreError> {
    let CreateAnchor { owner, access: _, serial, key, outer, entries, thaw } = make;
    let id = AnchorId::of_owner(owner);
    let digest: [u8; 32] = Sha256::digest(&*Zeroizing::new(codec::encode(make))).into();
    let there = load(batch, &id)?;
    if let Some(there) = &there {
        if there.serial == *serial && there.digest == digest {
            return Ok(AnchorOutcome::Done);
        }
        if there.serial >= *serial {
            return CONFLICT;
        }
    }
    let freed = there.as_ref().filter(|there| there.access == charge.key()).map_or(0, |there| there.charged);
    if !access::allows(batch, charge, COST, freed, now)? {
        return Ok(AnchorOutcome::Refused(Refusal::NoAccess));
    }
    let (slot, version) = match &there {
        Some(there) => {
            access::give(batch, there.access.as_ref(), Cost { bytes: there.charged, mailboxes: 0 })?;
            (there.slot, there.version)
        }
        None => (batch.allocate_anchor()?, 0),
    };
    access::take(batch, charge.key().as_ref(), COST)?;
    let mut anchor = Anchor {
        owner: *owner,
        serial: *serial,
        digest,
        slot,
        version,
        failures: 0,
        since: scene.day,
        is_frozen: false,
        evaluations: Vec::new(),
        thaw: thaw.clone(),
        raised: Vec::new(),
        charged: COST.bytes,
        access: charge.key(),
    };
    let mut secrets =
        Secrets { key: key.clone(), outer: outer.clone(), staged: None, entries: entries.clone() };
    leave_spoilt_keys(batch, &mut anchor)?;
    seal(batch, &id, &mut anchor, &mut secrets, scene);
    save(batch, &id, &anchor);
    Ok(AnchorOutcome::Done)
}

fn change_entry<T: Tables>(
    batch: &mut Batch<'_, T>,
    set: &SetEntry,
    scene: &mut Scene,
) -> Result<AnchorOutcome, StoreError> {
    let id = AnchorId::of_owner(&set.owner);
    let Some(mut anchor) = load(batch, &id)? else { return NOT_ALLOWED };
    let mut secrets = open(batch, &id, &anchor)?;
    let Some(place) = secrets.entries.get_mut(usize::from(set.index)) else {
        return Ok(AnchorOutcome::Refused(Refusal::TooLarge));
    };
    *place = set.entry;
    seal(batch, &id, &mut anchor, &mut secrets, scene);
    save(batch, &id, &anchor);
    Ok(AnchorOutcome::Done)
}

fn remove<T: Tables>(
    batch: &mut Batch<'_, T>,
    owner: &PublicKey<AnchorOwner>,
) -> Result<AnchorOutcome, StoreError> {
    let id = AnchorId::of_owner(owner);
    if let Some(anchor) = load(batch, &id)? {
        batch.delete(Space::Bulk, secrets_key(&id, anchor.version));
        batch.delete(Space::State, anchor_key(&id));
        batch.delete(Space::State, untold_key(&id));
        batch.forget_keys(anchor.slot, u64::MAX);
        access::give(batch, anchor.access.as_ref(), Cost { bytes: anchor.charged, mailboxes: 0 })?;
    }
    Ok(AnchorOutcome::Done)
}

/// ANC-09: one failure a day is forgotten.
fn decay(anchor: &mut Anchor, day: Day) {
    let days = day.value().saturating_sub(anchor.since.value());
    if days > 0 || anchor.failures == 0 {
        anchor.failures = anchor.failures.saturating_sub(u8::try_from(days).unwrap_or(u8::MAX));
        anchor.since = day;
    }
}

/// ANC-09: no guess counts from here on, and the owner's tripwires tell. Whether all have: else whoever asked is to ask again.
fn freeze<T: Tables>(
    batch: &mut Batch<'_, T>,
    id: &AnchorId,
    anchor: &mut Anchor,
    scene: &mut Scene,
) -> Result<bool, StoreError> {
    anchor.is_frozen = true;
    anchor.raised.clear();
    let is_whole = frozen::tell(batch, id, scene)?;
    if is_whole {
        batch.delete(Space::State, untold_key(id));
    } else {
        batch.put(Space::State, untold_key(id), vec![1]);
    }
    Ok(is_whole)
}

/// Somebody asks an anchor that is frozen: what could not be told then is tried again.
fn refuse_frozen<T: Tables>(
    batch: &mut Batch<'_, T>,
    id: &AnchorId,
    scene: &mut Scene,
) -> Result<AnchorOutcome, StoreError> {
    if batch.has(Space::State, &untold_key(id)) == Ok(true) && frozen::tell(batch, id, scene)? {
        batch.delete(Space::State, untold_key(id));
    }
    Ok(AnchorOutcome::Refused(Refusal::Frozen))
}

fn evaluation_of(blinded: &Blinded) -> [u8; 32] {
    Sha256::digest(blinded.as_bytes()).into()
}

fn evaluate<T: Tables>(
    batch: &mut Batch<'_, T>,
    asked: &Evaluate,
    scene: &mut Scene,
) -> Result<AnchorOutcome, StoreError> {
    let Evaluate { anchor: id, blinded } = asked;
    let Some(mut anchor) = load(batch, id)? else { return NOT_ALLOWED };
    if anchor.is_frozen {
        return refuse_frozen(batch, id, scene);
    }
    decay(&mut anchor, scene.day);
    let evaluation = evaluation_of(blinded);
    // The same again tells nothing new.
    if !anchor.evaluations.iter().any(|known| known.id == evaluation) {
        if anchor.failures >= MAX_FAILURES {
            let is_told = freeze(batch, id, &mut anchor, scene)?;
            save(batch, id, &anchor);
            return Ok(AnchorOutcome::Refused(if is_told { Refusal::Frozen } else { Refusal::Busy }));
        }
        anchor.failures += 1;
        if anchor.evaluations.len() >= MAX_EVALUATIONS {
            let settled = anchor.evaluations.iter().position(|known| known.shown.is_some()).unwrap_or(0);
            anchor.evaluations.remove(settled);
        }
        anchor.evaluations.push(Evaluation { id: evaluation, shown: None, is_counted: true });
    }
    save(batch, id, &anchor);
    Ok(AnchorOutcome::Evaluate(open(batch, id, &anchor)?.key))
}

fn prove<T: Tables>(
    batch: &mut Batch<'_, T>,
    shown: &ProveEntry,
    scene: &mut Scene,
) -> Result<AnchorOutcome, StoreError> {
    let ProveEntry { anchor: id, blinded, proof } = shown;
    let Some(mut anchor) = load(batch, id)? else { return NOT_ALLOWED };
    if anchor.is_frozen {
        return refuse_frozen(batch, id, scene);
    }
    decay(&mut anchor, scene.day);
    let evaluation = evaluation_of(blinded);
    let before = (anchor.failures, anchor.evaluations.clone());
    let this = Shown::of(blinded, proof);
    // One try for each evaluation; the same try again gets the same answer.
    let Some(at) = anchor.evaluations.iter().position(|known| known.id == evaluation) else {
        return NOT_ALLOWED;
    };
    let Some(own) = anchor.evaluations.get_mut(at) else { return NOT_ALLOWED };
    if *own.shown.get_or_insert(this) != this {
        return NOT_ALLOWED;
    }
    let mut secrets = open(batch, id, &anchor)?;
    let found = find(id, &secrets, proof);
    let outcome = match found {
        Some((index, deed)) => {
            forgive(&mut anchor, &evaluation);
            if deed.destroys {
                replace(&mut secrets, Some(&deed.group), Some(index), scene);
            }
            let entry = secrets.entries.get(index).ok_or(StoreError::Damaged)?;
            let release = Release {
                share: entry.share(),
                mark: entry.mark(),
                outer: secrets.outer.clone(),
                staged: secrets.staged.as_ref().map_or(&secrets.outer, |staged| &staged.outer).clone(),
            };
            if let Some(fires) = &deed.fires {
                // The deed may reach this very anchor.
                seal(batch, id, &mut anchor, &mut secrets, scene);
                save(batch, id, &anchor);
                if !token::present(batch, fires, scene)?.is_whole {
                    damage::found();
                    return unjudged(batch, id, before);
                }
                return Ok(AnchorOutcome::Released(Box::new(release)));
            }
            AnchorOutcome::Released(Box::new(release))
        }
        None => {
            let is_told = anchor.failures < MAX_FAILURES || freeze(batch, id, &mut anchor, scene)?;
            AnchorOutcome::Refused(if is_told { Refusal::NotAllowed } else { Refusal::Busy })
        }
    };
    seal(batch, id, &mut anchor, &mut secrets, scene);
    save(batch, id, &anchor);
    Ok(outcome)
}

/// ANC-06: a deed could not be done whole. What could be stays done; evaluation and try are as they were before the proof came, so that it
/// can come again.
fn unjudged<T: Tables>(
    batch: &mut Batch<'_, T>,
    id: &AnchorId,
    (failures, evaluations): (u8, Vec<Evaluation>),
) -> Result<AnchorOutcome, StoreError> {
    let Some(mut anchor) = load(batch, id)? else { return NOT_ALLOWED };
    (anchor.failures, anchor.evaluations) = (failures, evaluations);
    save(batch, id, &anchor);
    Ok(AnchorOutcome::Refused(Refusal::Busy))
}

/// ANC-09: takes back the counting of one evaluation.
fn forgive(anchor: &mut Anchor, evaluation: &[u8; 32]) {
    for own in anchor.evaluations.iter_mut().filter(|known| known.id == *evaluation && known.is_counted) {
        own.is_counted = false;
        anchor.failures = anchor.failures.saturating_sub(1);
    }
}

/// ANC-05: the entry of a proof; all are tried.
fn find(id: &AnchorId, secrets: &Secrets, proof: &Proof) -> Option<(usize, lapwing_wire::anchor::Deed)> {
    let mut found = None;
    for (index, entry) in secrets.entries.iter().enumerate() {
        if let Some(deed) = entry.open(id, proof) {
            found = Some((index, deed));
        }
    }
    found
}

/// Puts random bytes in the place of all entries but those of a group.
fn replace(secrets: &mut Secrets, spare: Option<&GroupKey>, own: Option<usize>, scene: &mut Scene) {
    for (index, entry) in secrets.entries.iter_mut().enumerate() {
        let is_spared = spare.is_some_and(|group| entry.is_of(group)) || own == Some(index);
        // Drawn for each, so that all are alike in time.
        let random = Entry::random(&mut scene.rng);
        if !is_spared {
            *entry = random;
        }
    }
    if spare.is_none() {
        secrets.outer = OuterKey::generate(&mut scene.rng);
        secrets.staged = None;
    }
}

/// Secrets that lead nowhere.
fn nothing(scene: &mut Scene) -> Secrets {
    let Scene { rng, .. } = scene;
    let entries = (0..ANCHOR_ENTRIES).map(|_| Entry::random(rng)).collect();
    Secrets { key: OprfKey::generate(rng), outer: OuterKey::generate(rng), staged: None, entries }
}

/// What a tripwire asks for.
pub(super) fn refresh<T: Tables>(
    batch: &mut Batch<'_, T>,
    id: &AnchorId,
    mut anchor: Anchor,
    spare: Option<&GroupKey>,
    scene: &mut Scene,
) -> Result<(), StoreError> {
    let mut secrets = match open(batch, id, &anchor) {
        // Nobody gets at them any more but who has the disk: from there they go, with all groups.
        Err(StoreError::Damaged) => nothing(scene),
        opened => opened?,
    };
    replace(&mut secrets, spare, None, scene);
    leave_spoilt_keys(batch, &mut anchor)?;
    seal(batch, id, &mut anchor, &mut secrets, scene);
    save(batch, id, &anchor);
    Ok(())
}

/// ANC-08: lays an outer key beside the old one.
fn lay<T: Tables>(
    batch: &mut Batch<'_, T>,
    proof: &Proof,
    stage: &Stage,
    scene: &mut Scene,
) -> Result<AnchorOutcome, StoreError> {
    let Stage { anchor: id, outer, mark } = stage;
    let Some(mut anchor) = load(batch, id)? else { return NOT_ALLOWED };
    let mut secrets = open(batch, id, &anchor)?;
    let Some((index, _)) = find(id, &secrets, proof) else { return NOT_ALLOWED };
    let by = secrets.entries.get(index).ok_or(StoreError::Damaged)?.with_mark(mark);
    match &secrets.staged {
        Some(staged) if staged.outer == *outer && staged.by == by => return Ok(AnchorOutcome::Done),
        Some(_) => return CONFLICT,
        None => {}
    }
    secrets.staged = Some(Staged { outer: outer.clone(), mark: *mark, by });
    seal(batch, id, &mut anchor, &mut secrets, scene);
    save(batch, id, &anchor);
    Ok(AnchorOutcome::Done)
}

/// ANC-08: ends a stage, one way or the other.
fn settle<T: Tables>(
    batch: &mut Batch<'_, T>,
    proof: &Proof,
    settle: &Settle,
    is_commit: bool,
    scene: &mut Scene,
) -> Result<AnchorOutcome, StoreError> {
    let Settle { anchor: id, stage } = settle;
    let Some(mut anchor) = load(batch, id)? else { return NOT_ALLOWED };
    let mut secrets = open(batch, id, &anchor)?;
    if find(id, &secrets, proof).is_none() {
        return NOT_ALLOWED;
    }
    let is_pending = secrets.staged.as_ref().is_some_and(|staged| staged.outer.stage() == *stage);
    if !is_pending {
        let is_done = if is_commit { secrets.outer.stage() == *stage } else { secrets.staged.is_none() };
        return if is_done { Ok(AnchorOutcome::Done) } else { CONFLICT };
    }
    if let Some(Staged { outer, mark, by }) = secrets.staged.take().filter(|_| is_commit) {
        secrets.outer = outer;
        // One that was destroyed meanwhile is not brought back.
        for entry in secrets.entries.iter_mut().filter(|entry| entry.with_mark(&mark) == by) {
            *entry = by;
        }
    }
    seal(batch, id, &mut anchor, &mut secrets, scene);
    save(batch, id, &anchor);
    Ok(AnchorOutcome::Done)
}

/// ANC-07: an entry for another passphrase, with deed and group of the session's.
fn inherit<T: Tables>(
    batch: &mut Batch<'_, T>,
    proof: &Proof,
    add: &AddEntry,
    scene: &mut Scene,
) -> Result<AnchorOutcome, StoreError> {
    let AddEntry { anchor: id, blinded, index, proof: new, share, mark } = add;
    let Some(mut anchor) = load(batch, id)? else { return NOT_ALLOWED };
    let mut secrets = open(batch, id, &anchor)?;
    let Some((_, deed)) = find(id, &secrets, proof) else { return NOT_ALLOWED };
    let entry = Entry::seal(id, new, share, mark, &deed, &mut scene.rng);
    let Some(place) = secrets.entries.get_mut(usize::from(*index)) else {
        return Ok(AnchorOutcome::Refused(Refusal::TooLarge));
    };
    *place = entry;
    // It stays counted, and is the try of this proof: else what is added would pay for a guess, or make one right.
    let evaluation = evaluation_of(blinded);
    let Some(own) = anchor.evaluations.iter_mut().find(|known| known.id == evaluation) else {
        return NOT_ALLOWED;
    };
    let this = Shown::of(blinded, new);
    if *own.shown.get_or_insert(this) != this {
        return NOT_ALLOWED;
    }
    own.is_counted = false;
    seal(batch, id, &mut anchor, &mut secrets, scene);
    save(batch, id, &anchor);
    Ok(AnchorOutcome::Done)
}

/// ANC-10: a voice for going on; nothing happens while nothing is frozen.
fn thaw<T: Tables>(
    batch: &mut Batch<'_, T>,
    raise: &RaiseThaw,
    scene: &Scene,
) -> Result<AnchorOutcome, StoreError> {
    let RaiseThaw { anchor: id, key } = raise;
    let Some(mut anchor) = load(batch, id)? else { return NOT_ALLOWED };
    let is_kit = anchor.thaw.kit == Some(*key);
    if !is_kit && !anchor.thaw.voices.contains(key) {
        return NOT_ALLOWED;
    }
    if anchor.is_frozen {
        if !is_kit && !anchor.raised.contains(key) {
            anchor.raised.push(*key);
        }
        let threshold = usize::from(anchor.thaw.threshold.max(1));
        if is_kit || anchor.raised.len() >= threshold {
            anchor.is_frozen = false;
            anchor.failures = 0;
            anchor.since = scene.day;
            anchor.raised.clear();
            anchor.evaluations.clear();
        }
    }
    save(batch, id, &anchor);
    Ok(AnchorOutcome::Done)
}
