//! Anchors through real connections.

use std::time::Duration;

use lapwing_relay::limits::Limits;
use lapwing_wire::{
    anchor::*,
    capability::{AnchorOwner, SecretKey, Subject, Thaw},
    frame::*,
    ids::{AnchorId, TripwireId},
    limits::{ANCHOR_ENTRIES, MAX_FAILURES},
    oprf::{Blinded, Blinding, OprfKey},
    tripwire::*,
};

use crate::{
    support::{Client, NOW, Relay, envelope, local},
    tripwire::{Plan, present},
};

/// An anchor with an owner, an everyday passphrase, one that fires and destroys, and a second everyday one.
pub struct Anchored {
    pub owner: SecretKey<AnchorOwner>,
    pub voices: [SecretKey<Thaw>; 3],
    pub kit: SecretKey<Thaw>,
    pub key: OprfKey,
    pub outer: OuterKey,
    pub main: GroupKey,
    pub other: GroupKey,
}

pub const REAL: &[u8] = b"real";
pub const ALSO_REAL: &[u8] = b"also real";
pub const COVER: &[u8] = b"cover";

impl Anchored {
    pub fn new() -> Self {
        let mut rng = rand::rng();
        Self {
            owner: SecretKey::generate(&mut rng),
            voices: [(); 3].map(|()| SecretKey::generate(&mut rng)),
            kit: SecretKey::generate(&mut rng),
            key: OprfKey::generate(&mut rng),
            outer: OuterKey::generate(&mut rng),
            main: GroupKey::generate(&mut rng),
            other: GroupKey::generate(&mut rng),
        }
    }

    pub fn id(&self) -> AnchorId {
        AnchorId::of_owner(&self.owner.public())
    }

    pub fn keys(&self, passphrase: &[u8]) -> EntryKeys {
        EntryKeys::derive(&self.id(), &self.key.output(passphrase).unwrap())
    }

    pub fn entry(&self, passphrase: &[u8], share: u8, deed: &Deed) -> Entry {
        let mut rng = rand::rng();
        let keys = self.keys(passphrase);
        let sealed = keys.seal_share(&VaultShare::from_bytes([share; 32]), &mut rng);
        Entry::seal(&self.id(), keys.proof(), &sealed, &keys.seal_mark(1, &mut rng), deed, &mut rng)
    }

    pub fn create(
        &self,
        access: Option<&SecretKey<lapwing_wire::capability::Access>>,
        fires: Option<Token>,
    ) -> CreateAnchor {
        let everyday = Deed { fires: None, destroys: false, group: self.main.clone() };
        let cover = Deed { destroys: true, fires, group: self.other.clone() };
        let mut entries = vec![
            self.entry(REAL, 1, &everyday),
            self.entry(COVER, 2, &cover),
            self.entry(ALSO_REAL, 3, &everyday),
        ];
        entries.resize_with(ANCHOR_ENTRIES, || Entry::random(&mut rand::rng()));
        CreateAnchor {
            owner: self.owner.public(),
            access: access.map(SecretKey::public),
            serial: 1,
            key: self.key.clone(),
            outer: self.outer.clone(),
            entries,
            thaw: ThawRule {
                threshold: 2,
                voices: self.voices.iter().map(SecretKey::public).collect(),
                kit: Some(self.kit.public()),
            },
        }
    }

    pub async fn make(&self, relay: &Relay, fires: Option<Token>) -> Client {
        let mut client = relay.client().await;
        client.prove_access(&relay.access).await;
        client.prove(Subject::Anchor(self.owner.public()), &self.owner).await;
        let create = self.create(Some(&relay.access), fires);
        assert_eq!(client.anchor(AnchorRequest::Create(create)).await, ResponseBody::Done);
        client
    }
}

impl Client {
    pub async fn anchor(&mut self, request: AnchorRequest) -> ResponseBody {
        self.ask(RequestBody::Anchor(request)).await
    }

    pub async fn evaluate(
        &mut self,
        anchor: AnchorId,
        passphrase: &[u8],
    ) -> Result<(EntryKeys, Blinded), Refusal> {
        let (blinding, blinded) = Blinding::begin(passphrase, &mut rand::rng()).unwrap();
        match self.anchor(AnchorRequest::Evaluate(Evaluate { anchor, blinded })).await {
            ResponseBody::Anchor(AnchorAnswer::Evaluated(evaluated)) => {
                let output = blinding.finish(&evaluated).unwrap();
                Ok((EntryKeys::derive(&anchor, &output), blinded))
            }
            ResponseBody::Refused(refusal) => Err(refusal),
            other => panic!("an evaluation, not {other:?}"),
        }
    }

    pub async fn prove_entry(
        &mut self,
        anchor: AnchorId,
        keys: &EntryKeys,
        blinded: Blinded,
    ) -> Result<Release, Refusal> {
        let proof = keys.proof().clone();
        match self.anchor(AnchorRequest::Prove(ProveEntry { anchor, blinded, proof })).await {
            ResponseBody::Anchor(AnchorAnswer::Released(release)) => Ok(release),
            ResponseBody::Refused(refusal) => Err(refusal),
            other => panic!("a release, not {other:?}"),
        }
    }

    /// A whole unlock without the new outer key.
    pub async fn unlock(
        &mut self,
        anchor: AnchorId,
        passphrase: &[u8],
    ) -> Result<(EntryKeys, Release), Refusal> {
        let (keys, blinded) = self.evaluate(anchor, passphrase).await?;
        let release = self.prove_entry(anchor, &keys, blinded).await?;
        Ok((keys, release))
    }
}

const NOT_ALLOWED: ResponseBody = ResponseBody::Refused(Refusal::NotAllowed);
const CONFLICT: ResponseBody = ResponseBody::Refused(Refusal::Conflict);

#[tokio::test(flavor = "multi_thread")]
async fn anc_06_an_entry_does_its_deed_before_it_gives_its_share_and_destroys_the_others() {
    let relay = Relay::start().await;
    let plan = Plan::new();
    let anchored = Anchored::new();
    let mut owner = anchored.make(&relay, Some(plan.duress.clone())).await;
    owner.prove(Subject::Tripwire(plan.owner.public()), &plan.owner).await;
    let alerts = owner.mailbox(&relay.access, MailboxKind::Queue).await;
    let actions = [Action::append(alerts.id(), envelope(911), &alerts.write)];
    assert_eq!(owner.ask(RequestBody::Arm(plan.arm(&relay, 1, &actions))).await, ResponseBody::Done);

    let mut client = relay.client().await;
    let (keys, release) = client.unlock(anchored.id(), REAL).await.unwrap();
    assert_eq!(keys.open_share(&release.share), Some(VaultShare::from_bytes([1; 32])));
    assert_eq!(keys.open_mark(&release.mark), Some(1));
    assert!(release.outer == anchored.outer && release.staged == anchored.outer);
    assert!(owner.window(alerts.id(), 0).await.items.is_empty(), "an everyday passphrase sets nothing off");

    let mut other = relay.client().await;
    let (keys, release) = other.unlock(anchored.id(), COVER).await.unwrap();
    // Asked after the answer: the deed was done before it.
    assert_eq!(owner.window(alerts.id(), 0).await.items.len(), 1);
    assert_eq!(keys.open_share(&release.share), Some(VaultShare::from_bytes([2; 32])));
    assert!(release.outer == anchored.outer, "the cover's header stays open");

    for passphrase in [REAL, ALSO_REAL] {
        let gone = relay.client().await.unlock(anchored.id(), passphrase).await;
        assert_eq!(gone.unwrap_err(), Refusal::NotAllowed, "as for a wrong passphrase");
    }
    // The session that was open has lost its entry.
    let stage = AnchorRequest::Stage(Stage {
        anchor: anchored.id(),
        outer: OuterKey::generate(&mut rand::rng()),
        mark: Mark::random(&mut rand::rng()),
    });
    assert_eq!(client.anchor(stage).await, NOT_ALLOWED);
    // Again and again, and it fires once.
    for _ in 0..2 {
        let (_, again) = relay.client().await.unlock(anchored.id(), COVER).await.unwrap();
        assert!(again.outer == anchored.outer);
    }
    assert_eq!(owner.window(alerts.id(), 0).await.newest, Seq::new(1));
    let said = present(&mut owner, &plan.own).await.open(&plan.status).unwrap();
    assert!(said.fired);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn anc_04_anc_09_ten_guesses_freeze_and_alert_and_contacts_or_the_kit_thaw() {
    let relay = Relay::in_memory(Limits::default(), local()).await;
    let (plan, anchored) = (Plan::new(), Anchored::new());
    let mut owner = anchored.make(&relay, None).await;
    owner.prove(Subject::Tripwire(plan.owner.public()), &plan.owner).await;
    let alerts = owner.mailbox(&relay.access, MailboxKind::Queue).await;
    let tripwire = TripwireId::of_owner(&plan.owner.public());
    let actions = vec![Action::append(alerts.id(), envelope(911), &alerts.write)];
    let mut arm = plan.arm(&relay, 1, &[]);
    // TRP-15: nobody but the anchor's owner has a tripwire told.
    let stranger = SecretKey::<AnchorOwner>::generate(&mut rand::rng());
    let forged = Frozen { anchor: anchored.id(), ..Frozen::new(&stranger, &tripwire, actions.clone()) };
    arm.causes.frozen = Some(forged);
    assert_eq!(owner.ask(RequestBody::Arm(arm.clone())).await, NOT_ALLOWED);
    arm.causes.frozen = Some(Frozen::new(&anchored.owner, &tripwire, actions));
    assert_eq!(owner.ask(RequestBody::Arm(arm)).await, ResponseBody::Done);

    let mut thief = relay.client().await;
    for round in 0..2 {
        // Right ones take back their own counting, however often.
        for _ in 0..usize::from(MAX_FAILURES) + 3 {
            thief.unlock(anchored.id(), COVER).await.unwrap();
        }
        for guess in 0..MAX_FAILURES {
            let wrong = thief.unlock(anchored.id(), &[b"guess", &[guess][..]].concat()).await;
            assert_eq!(wrong.unwrap_err(), Refusal::NotAllowed, "{guess}");
        }
        assert_eq!(thief.unlock(anchored.id(), COVER).await.unwrap_err(), Refusal::Frozen);
        assert_eq!(owner.window(alerts.id(), 0).await.newest, Seq::new(1), "once for each arming");
        let came = present(&mut owner, &plan.own).await.open(&plan.status).unwrap().came;
        assert!(came.frozen && !came.alerting && !came.quorum);

        let thaw = |key: &SecretKey<Thaw>| {
            AnchorRequest::Thaw(RaiseThaw { anchor: anchored.id(), key: key.public() })
        };
        let mut contact = relay.client().await;
        assert_eq!(contact.anchor(thaw(&anchored.voices[0])).await, NOT_ALLOWED, "without its proof");
        let nobody = SecretKey::<Thaw>::generate(&mut rand::rng());
        contact.prove(Subject::Thaw(nobody.public()), &nobody).await;
        assert_eq!(contact.anchor(thaw(&nobody)).await, NOT_ALLOWED);
        let keys: &[&SecretKey<Thaw>] =
            if round == 0 { &[&anchored.voices[0], &anchored.voices[2]] } else { &[&anchored.kit] };
        for (n, key) in keys.iter().enumerate() {
            contact.prove(Subject::Thaw(key.public()), key).await;
            for _ in 0..2 {
                let frozen = relay.client().await.evaluate(anchored.id(), COVER).await;
                assert_eq!(frozen.unwrap_err(), Refusal::Frozen, "the same voice again is no other");
                if n + 1 < keys.len() {
                    assert_eq!(contact.anchor(thaw(key)).await, ResponseBody::Done);
                }
            }
            assert_eq!(contact.anchor(thaw(key)).await, ResponseBody::Done);
        }
        // What is not needed is no voice for the next time.
        contact.prove(Subject::Thaw(anchored.voices[1].public()), &anchored.voices[1]).await;
        assert_eq!(contact.anchor(thaw(&anchored.voices[1])).await, ResponseBody::Done);
        thief.unlock(anchored.id(), COVER).await.unwrap();
    }
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn anc_09_a_right_proof_pays_for_its_own_evaluation_only_and_each_has_one_try() {
    let relay = Relay::in_memory(Limits::default(), local()).await;
    let anchored = Anchored::new();
    anchored.make(&relay, None).await;
    let id = anchored.id();
    let mut thief = relay.client().await;
    // Who knows one passphrase lets it pay for the evaluation of a guess, and then has nothing to prove the guess with.
    let (guess, of_guess) = thief.evaluate(id, b"guess").await.unwrap();
    thief.prove_entry(id, &anchored.keys(COVER), of_guess).await.unwrap();
    assert_eq!(thief.prove_entry(id, &guess, of_guess).await.unwrap_err(), Refusal::NotAllowed);
    let never = Blinding::begin(b"x", &mut rand::rng()).unwrap().1;
    assert_eq!(thief.prove_entry(id, &anchored.keys(COVER), never).await.unwrap_err(), Refusal::NotAllowed);
    // A try that was wrong is spent: the right proof comes too late for it. The same try again is the same answer.
    let (right, spent) = thief.evaluate(id, COVER).await.unwrap();
    for _ in 0..2 {
        assert_eq!(thief.prove_entry(id, &guess, spent).await.unwrap_err(), Refusal::NotAllowed);
    }
    assert_eq!(thief.prove_entry(id, &right, spent).await.unwrap_err(), Refusal::NotAllowed);
    // An answer that was lost is asked for again, and counted once.
    let (blinding, blinded) = Blinding::begin(COVER, &mut rand::rng()).unwrap();
    let mut answers = Vec::new();
    for _ in 0..2 * MAX_FAILURES {
        answers.push(thief.anchor(AnchorRequest::Evaluate(Evaluate { anchor: id, blinded })).await);
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
    let ResponseBody::Anchor(AnchorAnswer::Evaluated(evaluated)) = &answers[0] else {
        panic!("{:?}", answers[0])
    };
    let keys = EntryKeys::derive(&id, &blinding.finish(evaluated).unwrap());
    let first = thief.prove_entry(id, &keys, blinded).await.unwrap();
    assert_eq!(thief.prove_entry(id, &keys, blinded).await.unwrap(), first, "and so is a release");
    // One failure is left of all that: nine more guesses.
    for n in 0..MAX_FAILURES - 1 {
        assert_eq!(thief.unlock(id, &[n]).await.unwrap_err(), Refusal::NotAllowed);
    }
    assert_eq!(thief.evaluate(id, COVER).await.unwrap_err(), Refusal::Frozen);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn anc_09_one_failure_a_day_is_forgotten() {
    let relay = Relay::in_memory(Limits::default(), local()).await;
    let anchored = Anchored::new();
    anchored.make(&relay, None).await;
    let mut thief = relay.client().await;
    let day = Duration::from_secs(24 * 3600);
    for n in 0..MAX_FAILURES - 1 {
        thief.unlock(anchored.id(), &[n]).await.unwrap_err();
    }
    for later in 1..=3 {
        relay.service.sweep(NOW.plus(day * later)).await.unwrap();
        assert_eq!(thief.unlock(anchored.id(), b"once a day").await.unwrap_err(), Refusal::NotAllowed);
    }
    thief.unlock(anchored.id(), REAL).await.unwrap();
    // A clock that jumps is worth two days at most.
    relay.service.sweep(NOW.plus(day * 4000)).await.unwrap();
    for n in 0..2 {
        assert_eq!(thief.unlock(anchored.id(), &[n, n]).await.unwrap_err(), Refusal::NotAllowed);
    }
    assert_eq!(thief.unlock(anchored.id(), b"one more").await.unwrap_err(), Refusal::NotAllowed);
    assert_eq!(thief.evaluate(anchored.id(), REAL).await.unwrap_err(), Refusal::Frozen);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn anc_08_the_outer_key_changes_in_two_phases() {
    let relay = Relay::start().await;
    let anchored = Anchored::new();
    anchored.make(&relay, None).await;
    let id = anchored.id();
    let [first, second] = [(); 2].map(|()| OuterKey::generate(&mut rand::rng()));
    let keys = anchored.keys(REAL);
    let mark = |serial| keys.seal_mark(serial, &mut rand::rng());
    let settle = |key: &OuterKey| Settle { anchor: id, stage: key.stage() };
    let stage =
        |outer: &OuterKey, mark| AnchorRequest::Stage(Stage { anchor: id, outer: outer.clone(), mark });

    let mut client = relay.client().await;
    assert_eq!(client.anchor(stage(&first, mark(2))).await, NOT_ALLOWED, "nothing was proved here");
    client.unlock(id, REAL).await.unwrap();
    let begun = stage(&first, mark(2));
    assert_eq!(client.anchor(begun.clone()).await, ResponseBody::Done);
    assert_eq!(client.anchor(begun).await, ResponseBody::Done, "again");
    assert_eq!(client.anchor(stage(&second, mark(2))).await, CONFLICT, "one at a time");
    assert_eq!(client.anchor(AnchorRequest::Commit(settle(&second))).await, CONFLICT);
    drop(client);

    // A crash: another passphrase finds both, and ends it either way.
    let mut other = relay.client().await;
    let (_, release) = other.unlock(id, ALSO_REAL).await.unwrap();
    assert!(release.outer == anchored.outer && release.staged == first);
    assert_eq!(other.anchor(AnchorRequest::Commit(settle(&first))).await, ResponseBody::Done);
    assert_eq!(other.anchor(AnchorRequest::Commit(settle(&first))).await, ResponseBody::Done, "again");
    let mut client = relay.client().await;
    let (keys, release) = client.unlock(id, REAL).await.unwrap();
    assert!(release.outer == first && release.staged == first);
    assert_eq!(keys.open_mark(&release.mark), Some(2), "the mark came with the key");
    let (also, release) = relay.client().await.unlock(id, ALSO_REAL).await.unwrap();
    assert_eq!(also.open_mark(&release.mark), Some(1), "and with the entry that staged it only");

    assert_eq!(client.anchor(stage(&second, keys.seal_mark(3, &mut rand::rng()))).await, ResponseBody::Done);
    for _ in 0..2 {
        assert_eq!(client.anchor(AnchorRequest::Abort(settle(&second))).await, ResponseBody::Done);
    }
    assert_eq!(client.anchor(AnchorRequest::Commit(settle(&second))).await, CONFLICT);
    let (keys, release) = relay.client().await.unlock(id, REAL).await.unwrap();
    assert!(release.outer == first && release.staged == first);
    assert_eq!(keys.open_mark(&release.mark), Some(2));
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn anc_07_what_a_session_adds_does_what_its_own_entry_does() {
    let relay = Relay::in_memory(Limits::default(), local()).await;
    let plan = Plan::new();
    let anchored = Anchored::new();
    let mut owner = anchored.make(&relay, Some(plan.duress.clone())).await;
    owner.prove(Subject::Tripwire(plan.owner.public()), &plan.owner).await;
    let alerts = owner.mailbox(&relay.access, MailboxKind::Queue).await;
    let arm = |serial, number| {
        let actions = [Action::append(alerts.id(), envelope(number), &alerts.write)];
        RequestBody::Arm(plan.arm(&relay, serial, &actions))
    };
    owner.ask(arm(1, 1)).await;
    let id = anchored.id();
    let add = |keys: &EntryKeys, blinded, index, share| {
        let mut rng = rand::rng();
        AnchorRequest::Add(AddEntry {
            anchor: id,
            blinded,
            index,
            proof: keys.proof().clone(),
            share: keys.seal_share(&VaultShare::from_bytes([share; 32]), &mut rng),
            mark: keys.seal_mark(1, &mut rng),
        })
    };
    let mut session = relay.client().await;
    let (new, blinded) = session.evaluate(id, b"new in the cover").await.unwrap();
    assert_eq!(session.anchor(add(&new, blinded, 5, 9)).await, NOT_ALLOWED, "without a session");
    session.unlock(id, COVER).await.unwrap();
    assert_eq!(session.anchor(add(&new, blinded, 8, 9)).await, ResponseBody::Refused(Refusal::TooLarge));
    assert_eq!(session.anchor(add(&new, blinded, 5, 9)).await, ResponseBody::Done);
    // Armed anew, the new passphrase fires as the old one does, and spares the group.
    owner.ask(arm(2, 2)).await;
    let (keys, release) = relay.client().await.unlock(id, b"new in the cover").await.unwrap();
    assert_eq!(keys.open_share(&release.share), Some(VaultShare::from_bytes([9; 32])));
    assert_eq!(owner.window(alerts.id(), 1).await.items.len(), 1);
    relay.client().await.unlock(id, COVER).await.unwrap();
    relay.client().await.unlock(id, b"new in the cover").await.unwrap();
    relay.stop().await;
}

/// Who knows one passphrase has no more guesses at another, whatever it adds: neither by letting an entry that it adds pay for a
/// guess, nor by making the guess right with it.
#[tokio::test(flavor = "multi_thread")]
async fn anc_09_who_adds_entries_has_no_more_guesses_than_others() {
    for adds_first in [false, true] {
        let relay = Relay::in_memory(Limits::default(), local()).await;
        let anchored = Anchored::new();
        anchored.make(&relay, None).await;
        let id = anchored.id();
        let mut thief = relay.client().await;
        let (own, _) = thief.unlock(id, REAL).await.unwrap();
        let add = |keys: &EntryKeys, blinded| {
            let mut rng = rand::rng();
            AnchorRequest::Add(AddEntry {
                anchor: id,
                blinded,
                index: 1,
                proof: keys.proof().clone(),
                share: keys.seal_share(&VaultShare::from_bytes([9; 32]), &mut rng),
                mark: keys.seal_mark(1, &mut rng),
            })
        };
        let mut guesses = 0;
        for n in 0..3 * MAX_FAILURES {
            let Ok((guess, blinded)) = thief.evaluate(id, &[n]).await else { break };
            if adds_first {
                thief.anchor(add(&guess, blinded)).await;
            }
            // A share of somebody else's would tell that the guess was right.
            let answer = thief.prove_entry(id, &guess, blinded).await;
            if !adds_first {
                thief.anchor(add(&own, blinded)).await;
            }
            guesses += u8::from(answer.is_ok() == adds_first);
        }
        assert!(guesses <= MAX_FAILURES, "{guesses} guesses, and none of them counts");
        relay.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn anc_14_only_the_owner_makes_changes_and_removes_and_bounds_hold() {
    let relay = Relay::in_memory(Limits::default(), local()).await;
    let anchored = Anchored::new();
    let mut client = relay.client().await;
    let create = anchored.create(Some(&relay.access), None);
    let ask = |create: &CreateAnchor| AnchorRequest::Create(create.clone());
    assert_eq!(client.anchor(ask(&create)).await, NOT_ALLOWED);
    client.prove(Subject::Anchor(anchored.owner.public()), &anchored.owner).await;
    assert_eq!(client.anchor(ask(&create)).await, ResponseBody::Refused(Refusal::NoAccess));
    client.prove_access(&relay.access).await;
    let too_large = ResponseBody::Refused(Refusal::TooLarge);
    let bad = [
        CreateAnchor { entries: create.entries[1..].to_vec(), ..create.clone() },
        CreateAnchor { thaw: ThawRule { threshold: 4, ..create.thaw.clone() }, ..create.clone() },
        CreateAnchor { thaw: ThawRule { threshold: 0, voices: vec![], kit: None }, ..create.clone() },
    ];
    for bad in &bad {
        assert_eq!(client.anchor(ask(bad)).await, too_large);
    }
    for _ in 0..2 {
        assert_eq!(client.anchor(ask(&create)).await, ResponseBody::Done, "and again");
    }
    let other = CreateAnchor { outer: OuterKey::generate(&mut rand::rng()), ..create.clone() };
    assert_eq!(client.anchor(ask(&other)).await, CONFLICT);
    assert_eq!(client.anchor(ask(&CreateAnchor { serial: 2, ..other })).await, ResponseBody::Done);
    assert_eq!(client.anchor(ask(&create)).await, CONFLICT, "an old serial");

    let everyday = Deed { fires: None, destroys: false, group: anchored.main.clone() };
    let set = |index| {
        let entry = anchored.entry(b"set", 7, &everyday);
        AnchorRequest::Set(SetEntry { owner: anchored.owner.public(), index, entry })
    };
    let mut stranger = relay.client().await;
    assert_eq!(stranger.anchor(set(4)).await, NOT_ALLOWED);
    assert_eq!(client.anchor(set(8)).await, too_large);
    assert_eq!(client.anchor(set(4)).await, ResponseBody::Done);
    let (keys, release) = stranger.unlock(anchored.id(), b"set").await.unwrap();
    assert_eq!(keys.open_share(&release.share), Some(VaultShare::from_bytes([7; 32])));
    let remove = || AnchorRequest::Remove(RemoveAnchor { owner: anchored.owner.public() });
    assert_eq!(stranger.anchor(remove()).await, NOT_ALLOWED);
    for _ in 0..2 {
        assert_eq!(client.anchor(remove()).await, ResponseBody::Done);
    }
    assert_eq!(stranger.evaluate(anchored.id(), REAL).await.unwrap_err(), Refusal::NotAllowed);
    assert_eq!(client.anchor(set(4)).await, NOT_ALLOWED);
    let nonsense = Evaluate { anchor: anchored.id(), blinded: Blinded::from_bytes([0xff; 32]) };
    assert_eq!(stranger.anchor(AnchorRequest::Evaluate(nonsense)).await, NOT_ALLOWED);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trp_07_a_tripwire_refreshes_entries_with_their_owners_permission_only() {
    let relay = Relay::in_memory(Limits::default(), local()).await;
    let anchored = Anchored::new();
    anchored.make(&relay, None).await;
    let id = anchored.id();
    let thief = SecretKey::<AnchorOwner>::generate(&mut rand::rng());
    let Action::Refresh { permission, .. } = Action::refresh(&thief, None) else { panic!("a refreshing") };
    let forged = Action::Refresh { anchor: id, spare: None, permission };
    let spared = Action::refresh(&anchored.owner, Some(anchored.other.clone()));
    // A permission for one group is none for all.
    let Action::Refresh { permission, .. } = &spared else { panic!("a refreshing") };
    let stretched = Action::Refresh { anchor: id, spare: None, permission: *permission };
    let steps = [
        (vec![forged, stretched, Action::refresh(&thief, None)], [true, true]),
        (vec![spared], [false, true]),
        (vec![Action::refresh(&anchored.owner, None)], [false, false]),
    ];
    for (actions, opens) in steps {
        let plan = Plan::new();
        let mut owner = relay.client().await;
        owner.prove_access(&relay.access).await;
        owner.prove(Subject::Tripwire(plan.owner.public()), &plan.owner).await;
        owner.ask(RequestBody::Arm(plan.arm(&relay, 1, &actions))).await;
        present(&mut owner, &plan.duress).await;
        // The cover comes last: it destroys what is not of its group.
        for (passphrase, opens) in [REAL, b"in between", COVER].into_iter().zip([opens[0], false, opens[1]]) {
            if passphrase == COVER && actions.len() == 3 {
                continue;
            }
            assert_eq!(relay.client().await.unlock(id, passphrase).await.is_ok(), opens, "{actions:?}");
        }
    }
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trp_08_no_answer_of_an_anchor_leaves_before_its_step() {
    let relay = Relay::in_memory(Limits::default(), local()).await;
    let anchored = Anchored::new();
    let mut client = anchored.make(&relay, None).await;
    for passphrase in [REAL, b"wrong", COVER] {
        let begun = tokio::time::Instant::now();
        client.unlock(anchored.id(), passphrase).await.ok();
        assert!(begun.elapsed() >= 2 * lapwing_relay::service::TOKEN_ANSWER_STEP);
    }
    relay.stop().await;
}
