//! Every engine over such blocks.

use lapwing_wire::{
    frame::RaiseTrigger,
    sharing,
    tripwire::{Causes, Deadline, Quorum},
};

use super::{
    super::{
        anchors::{Anchored, anchor, unlock},
        causes::{SHORTEST, Watched, pass},
        forgetting::until,
    },
    *,
};
use crate::store::{
    AnchorChange, StoreOptions,
    fjall::Fjall,
    keys::{KeyFile, Slot},
    record::{Cause, RUNNING, Running, decode_due, key, list_key, secrets_key},
    sled::Sled,
};

/// A block of one key.
pub(super) fn at(space: Space, key: Vec<u8>) -> Block {
    (space, key.clone(), key, Ill::Damaged)
}

pub(super) fn options(folder: &Path) -> StoreOptions {
    StoreOptions { forget_after: Duration::from_millis(20), ..StoreOptions::at(folder.join("store")) }
}

pub(super) async fn open<E: Engine>(options: &StoreOptions) -> GroupCommit<Spoilt<E>> {
    GroupCommit::open(options).unwrap()
}

/// Opens a store again, so that nothing is remembered and nothing is on its way, on a disk with these blocks.
pub(super) async fn on_ill<E: Engine>(
    store: GroupCommit<Spoilt<E>>,
    options: &StoreOptions,
    blocks: Vec<Block>,
) -> GroupCommit<Spoilt<E>> {
    store.close().await;
    drop(store);
    spoil(&options.path, blocks);
    open::<E>(options).await
}

fn sorted(numbers: std::ops::Range<u8>) -> Vec<Owner> {
    let mut owners: Vec<Owner> = numbers.map(Owner::new).collect();
    owners.sort_by_key(Owner::id);
    owners
}

/// Records of mailboxes, places, sinks and blobs, envelopes and parts.
async fn sweeps<E: Engine>(options: &StoreOptions) {
    let store = open::<E>(options).await;
    let owners = sorted(10..40);
    for (n, owner) in owners.iter().enumerate() {
        done(&store, owner.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
        // The sixteenth writes what moves.
        for number in 1..=if matches!(n, 3 | 5 | 20) { 16 } else { 5 } {
            place(&store, owner.append(envelope(number, 1024))).await.unwrap();
        }
    }
    let young = &owners[20];
    apply(&store, young.append(envelope(17, 1024)), 9).await.unwrap();
    let mut blobs = Vec::new();
    for byte in 0..6u8 {
        let hash = BlobHash::from_bytes([byte * 40; 32]);
        for part in 0..4u64 {
            let (bytes, charge) = (vec![byte; 1000], Charge::Open);
            let put =
                Mutation::BlobPut { hash, total: 4000, offset: part * 1000, bytes, charge, limit: u64::MAX };
            apply(&store, put, 1).await.unwrap();
        }
        blobs.push(hash);
    }
    let placed = written(&options.path, Space::State, key::PLACES);
    let envelope_of = |owner: &Owner, number| key::envelope(owner.born(), Seq::new(number));
    // Mailboxes 10 to 12 and the last, ten places, envelopes 2 and 3 of one mailbox and the last of another, one of those from
    // which a mailbox is found, one blob, a part.
    let blocks = vec![
        (Space::State, key::mailbox(&owners[10].id()), key::mailbox(&owners[12].id()), Ill::Damaged),
        at(Space::State, key::mailbox(&owners[29].id())),
        (Space::State, placed[50].0.clone(), placed[59].0.clone(), Ill::Damaged),
        (Space::Bulk, envelope_of(&owners[3], 2), envelope_of(&owners[3], 3), Ill::Damaged),
        at(Space::Bulk, envelope_of(&owners[5], 16)),
        at(Space::Bulk, envelope_of(&owners[7], 2)),
        at(Space::Bulk, envelope_of(young, 2)),
        at(Space::State, key::sink(owners[15].born())),
        at(Space::State, key::blob(&blobs[2])),
        at(Space::Bulk, key::part(&blobs[4], 2000)),
    ];
    let store = on_ill(store, options, blocks).await;
    sweep(&store, 9).await.expect("it goes on");
    let store = on_ill(store, options, Vec::new()).await;
    for (n, owner) in owners.iter().enumerate() {
        let left = numbers(&store, owner, 0).await.unwrap();
        match n {
            7 | 10..=12 | 29 => assert_eq!(left, [1, 2, 3, 4, 5], "of these nothing is known"),
            5 => assert_eq!(left, [16], "the last may be young"),
            20 => assert_eq!(left, [17], "what is young stays"),
            _ => assert!(left.is_empty(), "mailbox {n} is not swept: {left:?}"),
        }
    }
    let bytes = store.mailbox(owners[3].id()).await.unwrap().unwrap().bytes;
    assert_eq!(bytes, 0, "what could not be read is not charged for ever");
    let left = written(&options.path, Space::State, key::PLACES);
    assert_eq!(left.len(), 11, "ten that could not be read, and a young one");
    let left: Vec<_> = written(&options.path, Space::State, key::BLOBS);
    assert_eq!(left.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(), [key::blob(&blobs[2])]);
    // The disk is well again: so is the rest of it.
    sweep(&store, 9).await.unwrap();
    for owner in &owners {
        let left = numbers(&store, owner, 0).await.unwrap();
        assert!(left.is_empty() || left == [17]);
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_blocks_stop_no_sweep() {
    over_engines!(sweeps);
}

pub(super) fn alerting(after_s: u64, actions: Vec<Action>) -> Causes {
    Causes { alerting: Some(Deadline { after_s, actions }), ..Causes::default() }
}

/// With deadlines after so many seconds, and a minute.
async fn armed<E: Engine>(
    store: &GroupCommit<Spoilt<E>>,
    numbers: std::ops::Range<u8>,
    after_s: u64,
) -> Vec<Watched> {
    let mut all = Vec::new();
    for byte in numbers {
        let watched = Watched::new(byte);
        done(store, watched.alerts.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
        let causes = alerting(after_s, vec![watched.alert(1)]);
        done(store, watched.arm(1, causes).unwrap(), "armed").await.unwrap();
        all.push(watched);
    }
    all.sort_by_key(|watched| *watched.id().as_bytes());
    all
}

async fn came<E: Engine>(store: &GroupCommit<Spoilt<E>>, all: &[Watched]) -> usize {
    let mut came = 0;
    for watched in all {
        came += numbers(store, &watched.alerts, 0).await.unwrap().len();
    }
    came
}

fn waiting(options: &StoreOptions) -> u64 {
    let found = written(&options.path, Space::State, RUNNING[0]);
    let running = found.iter().find(|(name, _)| name == RUNNING).unwrap();
    Running::decode(&running.1).unwrap().waiting
}

/// The keys that stand in the order of time.
async fn dues<E: Engine>(options: &StoreOptions) {
    let store = open::<E>(options).await;
    let all = armed(&store, 10..90, 600).await;
    let names: Vec<_> =
        written(&options.path, Space::State, b'q').into_iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), 80);
    let store = on_ill(
        store,
        options,
        vec![
            (Space::State, names[3].clone(), names[20].clone(), Ill::Damaged),
            (Space::State, names[75].clone(), names[79].clone(), Ill::Damaged),
        ],
    )
    .await;
    assert_eq!(pass(&store, SHORTEST - 1).await.unwrap(), 0, "none comes early");
    all[7].renew(&store).await.unwrap();
    assert_eq!(pass(&store, 1).await.unwrap(), 79, "all that have come come");
    assert_eq!(numbers(&store, &all[7].alerts, 0).await.unwrap(), Vec::<u64>::new(), "it was put off");
    assert_eq!(waiting(options), 1);
    assert_eq!(pass(&store, 2 * SHORTEST).await.unwrap(), 1, "and comes later");
    let store = on_ill(store, options, Vec::new()).await;
    assert_eq!(pass(&store, 2 * SHORTEST).await.unwrap(), 0, "each once");
    assert_eq!((came(&store, &all).await, waiting(options)), (80, 0));
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trp_10_damaged_blocks_of_deadlines_keep_none_from_coming() {
    over_engines!(dues);
}

/// The tripwires themselves.
async fn tripwires<E: Engine>(options: &StoreOptions) {
    let store = open::<E>(options).await;
    let all = armed(&store, 10..20, 600).await;
    let spoilt = |n: usize| at(Space::State, key::tripwire(&all[n].id()));
    let store = on_ill(store, options, vec![spoilt(2), spoilt(5)]).await;
    assert_eq!(pass(&store, SHORTEST).await.unwrap(), 8, "the others come");
    assert_eq!(waiting(options), 2, "two are waited for");
    // Whatever made them so is over. One is renewed before it is tried again.
    let store = on_ill(store, options, Vec::new()).await;
    all[5].renew(&store).await.unwrap();
    for minute in 0..62 {
        // Renewed within its time.
        if minute % 5 == 0 {
            all[5].renew(&store).await.unwrap();
        }
        pass(&store, 1).await.unwrap();
    }
    assert_eq!(numbers(&store, &all[2].alerts, 0).await.unwrap(), [1], "it is tried again");
    assert_eq!(numbers(&store, &all[5].alerts, 0).await.unwrap(), Vec::<u64>::new(), "its owner is there");
    assert_eq!(waiting(options), 1);
    assert_eq!(pass(&store, 2 * SHORTEST).await.unwrap(), 1);
    assert_eq!((came(&store, &all).await, waiting(options)), (10, 0));
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trp_12_a_damaged_tripwire_keeps_no_other_deadline_from_coming_and_comes_once() {
    over_engines!(tripwires);
}

/// The running time.
async fn running<E: Engine>(options: &StoreOptions) {
    let store = open::<E>(options).await;
    pass(&store, 3).await.unwrap();
    let all = armed(&store, 10..13, 3600).await;
    assert_eq!(pass(&store, 5).await.unwrap(), 0);
    all[0].renew(&store).await.unwrap();
    assert_eq!(pass(&store, 4).await.unwrap(), 0);
    let store = on_ill(store, options, vec![at(Space::State, RUNNING.to_vec())]).await;
    // As if it were when somebody renewed last, after five minutes of sixty-one.
    let mut when = Vec::new();
    for minute in 1..=70 {
        let came = pass(&store, 1).await.unwrap();
        when.extend((came > 0).then_some((minute, came)));
    }
    assert_eq!(when, [(56, 2), (61, 1)]);
    assert_eq!((came(&store, &all).await, waiting(options)), (3, 0));
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trp_10_deadlines_come_and_none_early_although_the_running_time_is_damaged() {
    over_engines!(running);
}

/// Which cause a list has.
#[derive(Clone, Copy, PartialEq)]
enum By {
    Deadline,
    Token,
    Quorum,
}

/// What a list names.
async fn targets<E: Engine>(options: &StoreOptions, by: By) {
    let store = open::<E>(options).await;
    let mut rng = StdRng::seed_from_u64(7);
    let [deaf, alerted, doomed, moved, tailed] = [50, 51, 52, 53, 54].map(Owner::new);
    for owner in [&deaf, &alerted, &doomed, &moved, &tailed] {
        done(&store, owner.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
        for number in 1..=2 {
            place(&store, owner.append(envelope(number, 1024))).await.unwrap();
        }
    }
    let slot = async |owner: &Owner| store.mailbox(owner.id()).await.unwrap().unwrap().slot;
    let slots = [slot(&doomed).await, slot(&moved).await, slot(&tailed).await];
    let [whole, lost] = [1, 2].map(Anchored::new);
    for anchored in [&whole, &lost] {
        let make = Box::new(anchored.create().unwrap());
        anchor(&store, AnchorChange::Create { make, charge: Charge::Open }).await.unwrap();
    }
    let actions = vec![
        Action::append(deaf.id(), envelope(9, 1024), &deaf.write),
        Action::sink(moved.id(), &moved.admin),
        Action::sink(tailed.id(), &tailed.admin),
        Action::refresh(&lost.owner, None),
        Action::append(alerted.id(), envelope(9, 1024), &alerted.write),
        Action::sink(doomed.id(), &doomed.admin),
        Action::refresh(&whole.owner, None),
    ];
    let watched = Watched::new(60);
    let fire = Token::from_bytes([77; 32]);
    let mut raises = Vec::new();
    let arm = match by {
        By::Deadline => watched.arm(1, alerting(600, actions)).unwrap(),
        By::Token => firing(&watched, &fire, &actions),
        By::Quorum => {
            let (quorum, all) = quorum_of(&watched, &actions, &mut rng);
            raises = all;
            watched.arm(1, Causes { quorum: Some(quorum), ..Causes::default() }).unwrap()
        }
    };
    done(&store, arm, "armed").await.unwrap();
    let store = on_ill(
        store,
        options,
        vec![
            at(Space::State, key::mailbox(&deaf.id())),
            at(Space::State, key::moving(moved.born())),
            at(Space::Bulk, key::envelope(tailed.born(), Seq::new(1))),
            at(Space::Bulk, secrets_key(&lost.id(), 1)),
        ],
    )
    .await;
    let appended = match by {
        By::Deadline => pass(&store, SHORTEST).await.unwrap(),
        By::Token => {
            let token = Mutation::Token { token: fire.clone(), filler: [1; 32] };
            shown(&store, token, false).await
        }
        By::Quorum => {
            let [first, second] = raises.clone().try_into().unwrap();
            assert_eq!(raised(&store, first, true).await, 0);
            raised(&store, second, false).await
        }
    };
    assert_eq!(appended, 1, "who can be alerted is");
    assert_eq!(numbers(&store, &alerted, 0).await.unwrap(), [1, 2, 3]);
    for owner in [&doomed, &moved, &tailed] {
        let there = store.mailbox(owner.id()).await.unwrap().unwrap();
        assert!(there.sink, "what can be destroyed is");
        assert_eq!(numbers(&store, owner, 0).await.unwrap(), Vec::<u64>::new());
    }
    let store = on_ill(store, options, Vec::new()).await;
    for anchored in [&whole, &lost] {
        assert!(unlock(&store, anchored, 0, 1).await.ok().flatten().is_none(), "its entries are gone");
    }
    let keys = KeyFile::open(&options.path).unwrap();
    let is_gone = |slot: &Slot| keys.load(*slot).unwrap().is_none_or(|chain| chain.at() > 2);
    until("their keys are overwritten", || slots.iter().all(is_gone)).await;
    // The rest comes when it is tried again, and each once.
    let appended = match by {
        By::Deadline => pass(&store, 62).await.unwrap(),
        By::Token => {
            let token = Mutation::Token { token: fire.clone(), filler: [1; 32] };
            shown(&store, token, true).await
        }
        By::Quorum => raised(&store, raises[1].clone(), true).await,
    };
    assert_eq!(appended, 1);
    if by == By::Token {
        let token = Mutation::Token { token: fire, filler: [1; 32] };
        assert_eq!(shown(&store, token, true).await, 0);
    }
    assert_eq!(pass(&store, 2 * SHORTEST).await.unwrap(), 0);
    assert_eq!(numbers(&store, &alerted, 0).await.unwrap(), [1, 2, 3]);
    assert_eq!(numbers(&store, &deaf, 0).await.unwrap(), [1, 2, 3]);
    // A sink answers as before.
    for owner in [&moved, &tailed] {
        let (stored, _) = place(&store, owner.append(envelope(20, 1024))).await.unwrap();
        assert!(stored.seq > Seq::new(2));
    }
    store.close().await;
}

/// Shows a token; how many mailboxes have something new, and whether all was done.
pub(super) async fn shown<E: Engine>(
    store: &GroupCommit<Spoilt<E>>,
    token: Mutation,
    expected: bool,
) -> usize {
    let Outcome::Token { appended, is_whole, .. } = apply(store, token, 1).await.unwrap() else { panic!() };
    assert_eq!(is_whole, expected, "whoever shows it is told");
    appended.len()
}

/// As `shown`, a voice.
pub(super) async fn raised<E: Engine>(
    store: &GroupCommit<Spoilt<E>>,
    raise: RaiseTrigger,
    expected: bool,
) -> usize {
    let raise = Mutation::Trigger { raise, filler: [5; 32] };
    let Outcome::Triggered { appended, is_whole, .. } = apply(store, raise, 1).await.unwrap() else {
        panic!()
    };
    assert_eq!(is_whole, expected, "whoever raises it is told");
    appended.len()
}

/// A tripwire with one firing token.
pub(super) fn firing(watched: &Watched, fire: &Token, actions: &[Action]) -> Mutation {
    let mut rng = StdRng::seed_from_u64(8);
    let list_key = ListKey::generate(&mut rng);
    let record = OpenRecord {
        tripwire: watched.id(),
        meaning: Meaning::Fire,
        list_key: list_key.clone(),
        status_key: StatusKey::generate(&mut rng),
    };
    Mutation::Arm {
        owner: watched.owner.public(),
        serial: 1,
        records: vec![TokenRecord::seal(fire, &record, &mut rng)],
        list: SealedList::seal(actions, &watched.id(), &list_key, &mut rng).unwrap(),
        causes: Box::default(),
        charge: Charge::Open,
    }
}

pub(super) fn quorum_of(
    watched: &Watched,
    actions: &[Action],
    rng: &mut StdRng,
) -> (Quorum, Vec<RaiseTrigger>) {
    let list_key = ListKey::generate(rng);
    let shares = sharing::split(&list_key, 2, 3, rng).unwrap();
    let voices: Vec<_> =
        (0..3).map(|byte| PublicKey::from_bytes([byte; 32])).zip(shares.iter().cloned()).collect();
    let quorum = Quorum::seal(&watched.id(), &list_key, 2, &voices, actions, rng).unwrap();
    let raise = |(key, share): (PublicKey<_>, _)| RaiseTrigger { tripwire: watched.id(), key, share };
    (quorum, voices.into_iter().take(2).map(raise).collect())
}

async fn targets_of_deadlines<E: Engine>(options: &StoreOptions) {
    targets::<E>(options, By::Deadline).await;
}

async fn targets_of_tokens<E: Engine>(options: &StoreOptions) {
    targets::<E>(options, By::Token).await;
}

async fn targets_of_quorums<E: Engine>(options: &StoreOptions) {
    targets::<E>(options, By::Quorum).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trp_06_what_one_action_names_is_damaged_the_others_are_done_and_the_rest_later_each_once_by_a_deadline()
 {
    over_engines!(targets_of_deadlines);
}

#[tokio::test(flavor = "multi_thread")]
async fn trp_06_what_one_action_names_is_damaged_the_others_are_done_and_the_rest_later_each_once_by_a_token()
{
    over_engines!(targets_of_tokens);
}

#[tokio::test(flavor = "multi_thread")]
async fn trp_06_what_one_action_names_is_damaged_the_others_are_done_and_the_rest_later_each_once_by_voices()
{
    over_engines!(targets_of_quorums);
}

/// Several tripwires of one token.
async fn plans<E: Engine>(options: &StoreOptions) {
    let store = open::<E>(options).await;
    let fire = Token::from_bytes([77; 32]);
    let all = [60, 61, 62, 63].map(Watched::new);
    for watched in &all {
        done(&store, watched.alerts.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
        done(&store, firing(watched, &fire, &[watched.alert(1)]), "armed").await.unwrap();
    }
    let show = Mutation::Token { token: fire.clone(), filler: [1; 32] };
    let store = on_ill(
        store,
        options,
        vec![
            at(Space::State, key::tripwire(&all[0].id())),
            at(Space::Bulk, list_key(&all[1].id(), Cause::Token)),
            at(Space::Bulk, key::record(&fire.lookup(), &all[2].id(), 0)),
        ],
    )
    .await;
    let Outcome::Token { appended, is_whole, .. } = apply(&store, show.clone(), 1).await.unwrap() else {
        panic!()
    };
    assert_eq!(appended, [all[3].alerts.id()], "the others do what it says");
    assert!(!is_whole, "and whoever shows it is told that there is more");
    let store =
        on_ill(store, options, all.iter().map(|it| at(Space::State, key::tripwire(&it.id()))).collect())
            .await;
    assert_eq!(shown(&store, show.clone(), false).await, 0, "whoever shows it is told that it did nothing");
    let store = on_ill(store, options, Vec::new()).await;
    assert_eq!(shown(&store, show, true).await, 3, "each once");
    assert_eq!(came(&store, &all).await, 4);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trp_06_a_damaged_tripwire_of_a_token_keeps_no_other_from_firing() {
    over_engines!(plans);
}

/// What says which keys are to be overwritten.
async fn forgettings<E: Engine>(options: &StoreOptions) {
    let never = StoreOptions { forget_after: Duration::from_secs(600), ..options.clone() };
    let store = open::<E>(&never).await;
    let owners = [1, 2, 3, 4, 5].map(Owner::new);
    let mut slots = Vec::new();
    for owner in &owners {
        done(&store, owner.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
        place(&store, owner.append(envelope(1, 1024))).await.unwrap();
        slots.push(store.mailbox(owner.id()).await.unwrap().unwrap().slot);
    }
    let engine_path = options.path.clone();
    let keys = KeyFile::open(&options.path).unwrap();
    // Closing overwrites what is due, so a process that was killed is played by what it left.
    store.close().await;
    drop(store);
    let engine = E::open(&engine_path, options.memory).unwrap();
    let due = |n: usize, value: Vec<u8>| (key::due(slots[n]), Some(value));
    let before = 2u64.to_be_bytes().to_vec();
    let all = u64::MAX.to_be_bytes().to_vec();
    // The last is closed.
    let left = [due(0, vec![1]), due(1, before.clone()), due(2, before.clone()), due(3, before), due(4, all)];
    let closed = [key::mailbox(&owners[4].id()), key::moving(owners[4].born())].map(|name| (name, None));
    engine.write(&Writes::new(), &left.into_iter().chain(closed).collect()).unwrap();
    drop(engine);
    spoil(&options.path, [2, 4].map(|n: usize| at(Space::State, key::due(slots[n]))).to_vec());
    let store = open::<E>(options).await;
    let is_gone = |n: usize| keys.load(slots[n]).unwrap().is_none_or(|chain| chain.at() >= 2);
    until("the others are overwritten", || is_gone(1) && is_gone(3)).await;
    assert!(!is_gone(0) && !is_gone(2), "of these it is not known what goes");
    spoil(&options.path, Vec::new());
    assert_eq!(numbers(&store, &owners[0], 0).await.unwrap(), [1], "and nothing that is needed has gone");
    assert!(is_gone(4), "nobody has its slot");
    // With the next that goes.
    for n in [0, 2] {
        done(&store, owners[n].ack(1, &[]), "taken").await.unwrap();
    }
    until("it is made up for", || is_gone(0) && is_gone(2)).await;
    store.close().await;
    assert!(decode_due(&[1]).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_opens_although_what_is_to_be_forgotten_is_damaged_in_places() {
    over_engines!(forgettings);
}
