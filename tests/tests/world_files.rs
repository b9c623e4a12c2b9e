//! Files in the World: they arrive whole, once, whatever is cut off, and nothing but what was sent.

#![expect(clippy::unwrap_used, clippy::panic, reason = "scenario tests")]

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use lapwing::{
    attach::{Prepared, SourceError},
    driver::{FetchError, Next, UploadReport},
    engine::{
        Command, Fault, Reply,
        files::{self, NewFile},
        group::GroupCommand,
        view::{self, Span},
    },
    store::{FileRow, MessageState, Order, UploadRow},
};
use lapwing_protocol::{
    attachment::{CHUNK, FileName, MAX_PLAIN},
    timer::Lifetime,
};
use lapwing_relay::limits::Limits;
use lapwing_tests::{
    scenario::Folder,
    world::{
        Fate, Faults, Person, RelayNumber, World, calm, introduce,
        records::{assert_in_order, holds, mark_read},
    },
};
use lapwing_wire::frame::{Refusal, RequestBody, ResponseBody};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

fn bytes(size: usize, salt: u8) -> Vec<u8> {
    (0..size).map(|at| u8::try_from(at % 249).unwrap() ^ salt).collect()
}

/// Seeds of keys given out by this process.
static KEYS: AtomicU64 = AtomicU64::new(1);

/// Sends files as they are, without waiting for them to leave.
fn attach(person: &mut Person, chat: &str, text: &str, paths: &[&Path]) -> Vec<Order> {
    let files = paths.iter().map(|path| {
        // A key for each sending, and the same in each run.
        let mut rng = ChaCha20Rng::seed_from_u64(KEYS.fetch_add(1, Ordering::Relaxed));
        let prepared = Prepared::of(path, true, &mut rng, &mut |_, _| {}).unwrap();
        let name = FileName::of(&path.file_name().unwrap().to_string_lossy());
        NewFile { prepared, name }
    });
    let files = files.collect();
    match person.must(Command::SendFiles { chat: chat.into(), text: text.into(), files }) {
        Reply::Messages { orders, .. } => orders,
        other => panic!("not messages: {other:?}"),
    }
}

/// Sends what waits of files; ended after so many parts.
async fn upload(person: &mut Person, parts: usize) -> UploadReport {
    let (driver, compartment) = person.driver();
    let mut seen = 0;
    driver
        .upload(&[compartment], &mut |_, _, _| {
            seen += 1;
            if seen >= parts { Next::End } else { Next::On }
        })
        .await
}

async fn fetch(person: &mut Person, chat: &str, order: Order) -> Result<Vec<u8>, FetchError<()>> {
    let id = person.chat(chat).id;
    let file = person.look(|unit| files::file(unit, id, order)).unwrap();
    let mut out = Vec::new();
    let (driver, _) = person.driver();
    let outcome = driver
        .fetch(&file, &mut |bytes, _, _| {
            out.extend_from_slice(bytes);
            Ok(())
        })
        .await;
    outcome.map(|()| out)
}

/// Messages of others in a chat that have a file: number, text, name, size.
fn files_of(person: &Person, chat: &str) -> Vec<(Order, String, String, u64)> {
    let id = person.chat(chat).id;
    let messages = person.look(|unit| view::messages(unit, &id, Span::Last(usize::MAX))).unwrap();
    let of = messages.into_iter().filter_map(|message| {
        let file = message.file?;
        let text = message.text.unwrap().into_exposed();
        Some((message.order, text, file.name.into_exposed(), file.size))
    });
    of.collect()
}

fn state(person: &Person, chat: &str, order: Order) -> MessageState {
    let id = person.chat(chat).id;
    person.look(|unit| view::messages(unit, &id, Span::One(order))).unwrap()[0].state
}

fn put(folder: &Folder, name: &str, bytes: &[u8]) -> PathBuf {
    folder.put(name, bytes)
}

#[tokio::test(start_paused = true)]
async fn files_arrive_whole_with_their_text_in_chats_and_groups() {
    let mut world = World::new(3301);
    let (mut alice, mut bob) = world.acquainted().await;
    let folder = Folder::new();
    let contents: Vec<Vec<u8>> =
        [0, 5, MAX_PLAIN, 3 * MAX_PLAIN + 7].into_iter().map(|size| bytes(size, 1)).collect();
    let paths: Vec<PathBuf> =
        contents.iter().enumerate().map(|(n, content)| put(&folder, &format!("{n}.bin"), content)).collect();
    let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
    attach(&mut alice, "bob", "four of them", &paths);
    assert_eq!(alice.chat("bob").waiting, 4);
    assert!(upload(&mut alice, usize::MAX).await.changed);
    calm(&mut [&mut alice, &mut bob]).await;
    assert_eq!(alice.unsent("bob"), Vec::<String>::new());
    let came = files_of(&bob, "alice");
    assert_eq!(came.len(), 4);
    for (number, (order, text, name, size)) in came.iter().enumerate() {
        assert_eq!(text, if number == 0 { "four of them" } else { "" });
        assert_eq!((name, *size), (&format!("{number}.bin"), u64::try_from(contents[number].len()).unwrap()));
        assert_eq!(fetch(&mut bob, "alice", *order).await.unwrap(), contents[number]);
        // The sender can fetch it too.
    }
    assert!(alice.rows::<UploadRow>().is_empty());

    // The relay of a group's log is the inviter's; a member sends from a relay of his own.
    alice.group(GroupCommand::Create { name: "march".into(), alias: "alice".into(), relay: None });
    calm(&mut [&mut alice]).await;
    alice.group(GroupCommand::Invite { group: "march".into(), chat: "bob".into() });
    calm(&mut [&mut alice, &mut bob]).await;
    bob.group(GroupCommand::Approve { what: "march".into(), alias: "bob".into(), name: None });
    calm(&mut [&mut alice, &mut bob]).await;
    let [order] = attach(&mut bob, "march", "to all", &[paths[3]])[..] else { panic!("one message") };
    upload(&mut bob, usize::MAX).await;
    calm(&mut [&mut bob, &mut alice]).await;
    assert_eq!(state(&bob, "march", order), MessageState::Sent);
    let came = files_of(&alice, "march");
    assert_eq!((came.len(), came[0].1.as_str()), (1, "to all"));
    assert_eq!(fetch(&mut alice, "march", came[0].0).await.unwrap(), contents[3]);
    for person in [&alice, &bob] {
        assert_in_order(person, "after files");
    }
}

/// ATT-07, ATT-04: whichever request is lost or answered in vain, and if the program dies there, too.
#[tokio::test(start_paused = true)]
async fn att_07_a_file_that_is_cut_off_at_any_request_arrives_once() {
    let mut world = World::new(3302);
    let (mut alice, mut bob) = world.acquainted().await;
    let folder = Folder::new();
    let content = bytes(5 * MAX_PLAIN, 2);
    let path = put(&folder, "a.bin", &content);
    let client = alice.client;
    let mut expected = 0;
    for fate in [Fate::Lost, Fate::ReplyLost, Fate::TimedOut, Fate::Twice] {
        for at in 0..5 {
            attach(&mut alice, "bob", "", &[&path]);
            alice.sync().await;
            let counter = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&counter);
            world.net.set_script(Some(Box::new(move |who, body| {
                let is_part = who == client && matches!(body, RequestBody::BlobPut(_));
                if is_part && counted.fetch_add(1, Ordering::Relaxed) == at { fate } else { Fate::Answered }
            })));
            // Ended by the person after some parts, then by the death of the program.
            upload(&mut alice, at).await;
            alice.restart();
            upload(&mut alice, usize::MAX).await;
            world.net.set_script(None);
            assert!(counter.load(Ordering::Relaxed) > at);
            calm(&mut [&mut alice, &mut bob]).await;
            expected += 1;
            let came = files_of(&bob, "alice");
            assert_eq!(came.len(), expected, "{fate:?} at {at}");
            assert_eq!(alice.unsent("bob"), Vec::<String>::new(), "{fate:?} at {at}");
        }
    }
    let last = files_of(&bob, "alice").last().unwrap().0;
    assert_eq!(fetch(&mut bob, "alice", last).await.unwrap(), content);
}

/// What the relay has is not sent again, whoever was restarted.
#[tokio::test(start_paused = true)]
async fn att_04_sending_goes_on_where_program_or_relay_was_killed() {
    let mut world = World::new(3303);
    let (a, b) = (world.relay().await, world.relay().await);
    let (mut alice, mut bob) = (world.person("alice", &[a]), world.person("bob", &[b]));
    introduce(&mut alice, &mut bob).await;
    let folder = Folder::new();
    let content = bytes(60 * MAX_PLAIN, 3);
    let path = put(&folder, "a.bin", &content);
    let [order] = attach(&mut alice, "bob", "", &[&path])[..] else { panic!("one message") };
    let report = upload(&mut alice, 40).await;
    assert!(report.ended && !report.changed);
    alice.restart();
    let id = alice.chat("bob").id;
    let shown = alice.look(|unit| view::messages(unit, &id, Span::One(order))).unwrap();
    let (percent, _) = shown[0].file.as_ref().unwrap().leaving.unwrap();
    assert!((50..100).contains(&percent), "{percent}");
    world.net.change_relay(a, async |relay, now| relay.restart(now).await).await;
    let before = world.net.requests(alice.client);
    assert!(upload(&mut alice, usize::MAX).await.changed);
    let more = world.net.requests(alice.client) - before;
    assert!(more < 64 - 35, "{more} requests for what was missing");
    calm(&mut [&mut alice, &mut bob]).await;
    // A relay that comes back as it was in the middle is asked again; one link after the other dies.
    let order = files_of(&bob, "alice")[0].0;
    world.net.set_faults(Faults { lost: 30, reply_lost: 30, ..Faults::default() });
    let fetched = fetch(&mut bob, "alice", order).await;
    world.net.set_faults(Faults::default());
    assert_eq!(fetched.unwrap(), content);
}

/// A relay that is busy is asked again on the same link, a bounded number of times, and then it is told.
#[tokio::test(start_paused = true)]
async fn a_file_that_a_busy_relay_does_not_give_is_asked_for_again_and_told() {
    let mut world = World::new(3310);
    let (mut alice, mut bob) = world.acquainted().await;
    let folder = Folder::new();
    let content = bytes(20 * MAX_PLAIN, 6);
    attach(&mut alice, "bob", "", &[&put(&folder, "a.bin", &content)]);
    upload(&mut alice, usize::MAX).await;
    calm(&mut [&mut alice, &mut bob]).await;
    let order = files_of(&bob, "alice")[0].0;
    let busy_until = |refusals: u64| {
        let mut left = refusals;
        world.net.set_tamper(Some(Box::new(move |_, request, answer| match request {
            RequestBody::BlobGet(get) if get.offset > 0 && left > 0 => {
                left -= 1;
                ResponseBody::Refused(Refusal::Busy)
            }
            _ => answer,
        })));
    };
    busy_until(1);
    assert_eq!(fetch(&mut bob, "alice", order).await.unwrap(), content);
    busy_until(u64::MAX);
    let before = world.net.requests(bob.client);
    assert!(matches!(fetch(&mut bob, "alice", order).await, Err(FetchError::Busy)));
    assert!(world.net.requests(bob.client) - before < 60, "it is not asked without end");
    busy_until(0);
    assert_eq!(fetch(&mut bob, "alice", order).await.unwrap(), content);
}

/// ATT-01, ATT-02: a relay gives other bytes, another order, another length, another file, or an end too early.
#[tokio::test(start_paused = true)]
async fn att_01_what_a_relay_changes_is_refused_and_nothing_false_is_handed_out() {
    let mut world = World::new(3304);
    let (mut alice, mut bob) = world.acquainted().await;
    let folder = Folder::new();
    let (one, two) = (bytes(3 * MAX_PLAIN, 4), bytes(3 * MAX_PLAIN, 5));
    let paths = [put(&folder, "one.bin", &one), put(&folder, "two.bin", &two)];
    attach(&mut alice, "bob", "", &[&paths[0], &paths[1]]);
    upload(&mut alice, usize::MAX).await;
    calm(&mut [&mut alice, &mut bob]).await;
    let came = files_of(&bob, "alice");
    let parts: Vec<Vec<u8>> = {
        let id = bob.chat("alice").id;
        let file = bob.look(|unit| files::file(unit, id, came[1].0)).unwrap();
        let chunks = file.chunks().unwrap();
        let seal = |n: usize| {
            let mut out = Vec::new();
            chunks
                .seal(u32::try_from(n).unwrap(), &two[n * MAX_PLAIN..(n + 1) * MAX_PLAIN], &mut out)
                .unwrap();
            out
        };
        (0..3).map(seal).collect()
    };
    type Change = fn(u64, &mut Vec<u8>, &mut u64, &[Vec<u8>]);
    let changes: [(&str, Change); 6] = [
        ("a bit", |_, bytes, _, _| bytes[77] ^= 1),
        ("another place", |offset, bytes, _, parts| {
            bytes.clone_from(&parts[usize::from(offset == 0)]);
        }),
        ("another file", |_, bytes, _, parts| bytes.clone_from(&parts[0])),
        ("cut", |_, bytes, _, _| bytes.truncate(CHUNK - 1)),
        ("nothing", |_, bytes, _, _| bytes.clear()),
        ("another length", |_, _, total, _| *total += CHUNK as u64),
    ];
    for (what, change) in changes {
        for from in [0, CHUNK as u64] {
            let own = if what == "another place" { parts.clone() } else { vec![parts[0].clone(); 3] };
            world.net.set_tamper(Some(Box::new(move |_, body, answer| match (body, answer) {
                (RequestBody::BlobGet(get), ResponseBody::BlobPart(mut part)) if get.offset >= from => {
                    let mut bytes = part.bytes.into_vec();
                    change(get.offset, &mut bytes, &mut part.total, &own);
                    part.bytes = bytes.into();
                    ResponseBody::BlobPart(part)
                }
                (_, answer) => answer,
            })));
            // Of the first file, except where its own chunks are mixed up.
            let (order, content) =
                if what == "another place" { (came[1].0, &two) } else { (came[0].0, &one) };
            let id = bob.chat("alice").id;
            let file = bob.look(|unit| files::file(unit, id, order)).unwrap();
            let mut out = Vec::new();
            let (driver, _) = bob.driver();
            let outcome: Result<(), FetchError<()>> = driver
                .fetch(&file, &mut |bytes, _, _| {
                    out.extend_from_slice(bytes);
                    Ok(())
                })
                .await;
            assert!(matches!(outcome, Err(FetchError::NotGenuine)), "{what} from {from}: {outcome:?}");
            assert!(content.starts_with(&out) && out.len() <= MAX_PLAIN, "{what} from {from}");
        }
    }
    world.net.set_tamper(Some(Box::new(|_, body, answer| match body {
        RequestBody::BlobGet(_) => ResponseBody::Refused(Refusal::NotAllowed),
        _ => answer,
    })));
    assert!(matches!(fetch(&mut bob, "alice", came[0].0).await, Err(FetchError::Gone)));
    world.net.set_tamper(None);
    assert_eq!(fetch(&mut bob, "alice", came[0].0).await.unwrap(), one);
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_takes_no_file_now_gets_it_later_and_one_that_never_does_is_told() {
    let mut world = World::new(3305);
    let a = world.relay().await;
    let (mut alice, mut bob) = (world.person("alice", &[a]), world.person("bob", &[a]));
    introduce(&mut alice, &mut bob).await;
    let folder = Folder::new();
    let path = put(&folder, "a.bin", &bytes(3 * MAX_PLAIN, 6));
    for refusal in [Refusal::NoAccess, Refusal::Full, Refusal::Busy] {
        let [order] = attach(&mut alice, "bob", "", &[&path])[..] else { panic!("one message") };
        world.net.set_tamper(Some(Box::new(move |_, body, answer| match body {
            RequestBody::BlobPut(_) => ResponseBody::Refused(refusal),
            _ => answer,
        })));
        upload(&mut alice, usize::MAX).await;
        world.net.set_tamper(None);
        let waiting = alice.look(|unit| files::uploads(unit, None)).unwrap();
        assert_eq!((waiting.len(), waiting[0].refused), (1, Some(refusal)));
        assert_eq!(state(&alice, "bob", order), MessageState::Waiting);
        upload(&mut alice, usize::MAX).await;
        calm(&mut [&mut alice, &mut bob]).await;
        assert_eq!(state(&alice, "bob", order), MessageState::Sent, "{refusal:?}");
    }
    assert_eq!(files_of(&bob, "alice").len(), 3);

    world.net.with_relay(a, |relay| relay.set_limits(Limits { blob_bytes: CHUNK as u64, ..relay.limits() }));
    let [order] = attach(&mut alice, "bob", "", &[&path])[..] else { panic!("one message") };
    upload(&mut alice, usize::MAX).await;
    calm(&mut [&mut alice, &mut bob]).await;
    assert_eq!(state(&alice, "bob", order), MessageState::Failed);
    assert_eq!(alice.notes("bob"), ["a file was not sent: its relay takes none of this size"]);
    assert_eq!((files_of(&bob, "alice").len(), alice.rows::<UploadRow>().len()), (3, 0));
    assert_in_order(&alice, "after refusals");
}

/// ATT-04: what was changed is not sent; what is away waits; what is erased does not leave.
#[tokio::test(start_paused = true)]
async fn a_file_that_changed_is_not_sent_and_one_that_is_away_waits() {
    let mut world = World::new(3306);
    let (mut alice, mut bob) = world.acquainted().await;
    let folder = Folder::new();
    let content = bytes(30 * MAX_PLAIN, 7);
    let path = put(&folder, "a.bin", &content);
    let [away] = attach(&mut alice, "bob", "away", &[&path])[..] else { panic!("one message") };
    std::fs::rename(&path, folder.join("elsewhere")).unwrap();
    let report = upload(&mut alice, usize::MAX).await;
    assert_eq!(report.unread, [(path.clone(), SourceError::Missing)]);
    assert!(!report.changed);
    assert_eq!(state(&alice, "bob", away), MessageState::Waiting);
    std::fs::rename(folder.join("elsewhere"), &path).unwrap();
    upload(&mut alice, usize::MAX).await;
    calm(&mut [&mut alice, &mut bob]).await;
    assert_eq!(files_of(&bob, "alice").len(), 1);

    // Another length; the same length, in the middle.
    for (cut, changed) in [(0, content[1..].to_vec()), (20, bytes(30 * MAX_PLAIN, 8))] {
        let path = put(&folder, &format!("b{cut}.bin"), &content);
        let [order] = attach(&mut alice, "bob", "changed", &[&path])[..] else { panic!("one message") };
        if cut > 0 {
            upload(&mut alice, cut).await;
        }
        std::fs::remove_file(&path).unwrap();
        put(&folder, &format!("b{cut}.bin"), &changed);
        assert!(upload(&mut alice, usize::MAX).await.changed);
        assert_eq!(state(&alice, "bob", order), MessageState::Failed);
        let note = alice.notes("bob").pop().unwrap();
        assert_eq!(note, "a file was not sent: the file was changed since it was sent off");
    }
    let [order] = attach(&mut alice, "bob", "given up", &[&path])[..] else { panic!("one message") };
    upload(&mut alice, 20).await;
    alice.must(Command::Erase { chat: "bob".into(), orders: vec![order] });
    assert!(alice.rows::<UploadRow>().is_empty());
    upload(&mut alice, usize::MAX).await;
    calm(&mut [&mut alice, &mut bob]).await;
    assert_eq!(files_of(&bob, "alice").len(), 1, "nothing of these was delivered");
    assert_in_order(&alice, "after what was not sent");
}

/// ATT-09: with a message goes what opens its file; with a chat and a timer too.
#[tokio::test(start_paused = true)]
async fn att_09_what_opens_a_file_ends_with_its_message() {
    let mut world = World::new(3307);
    let (mut alice, mut bob) = world.acquainted().await;
    let folder = Folder::new();
    let path = put(&folder, "a.bin", &bytes(9, 9));
    let hash_of = |person: &Person, chat: &str, order| {
        let id = person.chat(chat).id;
        person.look(|unit| files::file(unit, id, order)).map(|file| file.hash)
    };
    attach(&mut alice, "bob", "", &[&path, &path]);
    upload(&mut alice, usize::MAX).await;
    calm(&mut [&mut alice, &mut bob]).await;
    let came = files_of(&bob, "alice");
    assert_ne!(
        hash_of(&bob, "alice", came[0].0).unwrap(),
        hash_of(&bob, "alice", came[1].0).unwrap(),
        "each sending has a key of its own"
    );
    assert!(!holds(&bob, hash_of(&bob, "alice", came[0].0).unwrap().as_bytes()), "sealed at rest");
    bob.must(Command::Fetched { chat: bob.chat("alice").id, order: came[0].0 });
    bob.must(Command::Erase { chat: "alice".into(), orders: vec![came[0].0] });
    assert!(matches!(hash_of(&bob, "alice", came[0].0), Err(Fault::UnknownMessage)));
    assert_eq!(bob.rows::<FileRow>().len(), 1);
    assert_in_order(&bob, "after erasing one");

    bob.must(Command::SetTimer { chat: "alice".into(), lifetime: Some(Lifetime::MIN) });
    calm(&mut [&mut alice, &mut bob]).await;
    attach(&mut alice, "bob", "", &[&path]);
    upload(&mut alice, usize::MAX).await;
    calm(&mut [&mut alice, &mut bob]).await;
    mark_read(&mut bob, "alice");
    assert_eq!(bob.rows::<FileRow>().len(), 2);
    world.clock.advance(Lifetime::MIN.span() + Duration::from_secs(1));
    calm(&mut [&mut alice, &mut bob]).await;
    assert_eq!((bob.rows::<FileRow>().len(), alice.rows::<FileRow>().len()), (1, 2));
    for person in [&mut alice, &mut bob] {
        assert_in_order(person, "after the timer");
    }
    attach(&mut alice, "bob", "", &[&path]);
    alice.must(Command::Delete { chat: "bob".into(), leave: false });
    calm(&mut [&mut alice]).await;
    assert!(alice.rows::<FileRow>().is_empty() && alice.rows::<UploadRow>().is_empty());
}

/// ATT-10: a relay that only the sender uses is no relay of ours.
#[tokio::test(start_paused = true)]
async fn att_10_a_relay_that_one_does_not_use_is_told_apart() {
    let mut world = World::new(3308);
    let (mut alice, mut bob) = world.acquainted().await;
    let folder = Folder::new();
    let path = put(&folder, "a.bin", b"x");
    attach(&mut alice, "bob", "", &[&path]);
    upload(&mut alice, usize::MAX).await;
    calm(&mut [&mut alice, &mut bob]).await;
    let id = bob.chat("alice").id;
    let file = bob.look(|unit| files::file(unit, id, files_of(&bob, "alice")[0].0)).unwrap();
    // Alice's relay: bob's messages go there anyway.
    assert!(bob.look(|unit| files::is_known_relay(unit, id, &file.relay)).unwrap());
    let third = world.relay().await;
    let other = world.net.address(third);
    assert!(!bob.look(|unit| files::is_known_relay(unit, id, &other)).unwrap());
    bob.add_relay(&world, RelayNumber(third.0));
    assert!(bob.look(|unit| files::is_known_relay(unit, id, &other)).unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_chat_that_ends_while_a_file_is_on_its_way_takes_none() {
    let mut world = World::new(3309);
    let (mut alice, mut bob) = world.acquainted().await;
    let folder = Folder::new();
    let path = put(&folder, "a.bin", &bytes(30 * MAX_PLAIN, 1));
    let [order] = attach(&mut alice, "bob", "", &[&path])[..] else { panic!("one message") };
    upload(&mut alice, 20).await;
    alice.must(Command::Block { chat: "bob".into(), blocked: true });
    assert_eq!(state(&alice, "bob", order), MessageState::Failed);
    upload(&mut alice, usize::MAX).await;
    calm(&mut [&mut alice, &mut bob]).await;
    assert!(files_of(&bob, "alice").is_empty());
    let refused =
        alice.command(Command::SendFiles { chat: "bob".into(), text: String::new(), files: vec![] });
    assert!(matches!(refused, Err(Fault::Blocked)));
    assert_in_order(&alice, "after blocking");
}
