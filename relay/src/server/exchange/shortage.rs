//! What waits for room, and what becomes of it.

use lapwing_wire::{
    capability::{Right, SecretKey, Subject},
    frame::{Ack, Append, BlobGet, BlobPut, Create, MailboxKind, Read, Seq, Window, encode_frame},
    ids::{BlobHash, MailboxId},
    limits::FRAME_PREFIX,
};
use quinn::VarInt;
use serde_bytes::ByteBuf;

use super::*;
use crate::server::scene::{Scene, within};

/// An envelope of the smallest size.
fn append(mailbox: MailboxId, number: u8) -> RequestBody {
    RequestBody::Append(Append { mailbox, envelope: ByteBuf::from(vec![number; 1024]) })
}

fn numbers(window: &Window) -> Vec<u64> {
    window.items.iter().map(|item| item.place.seq.value()).collect()
}

/// Runs until something is so. The clock stands still if it is stopped: there is always something to do.
async fn until(is_so: impl Fn() -> bool) {
    within(async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn without_room_for_their_answers_requests_are_busy_in_the_end_and_what_follows_them_is_done_first() {
    let scene = Scene::new(0).await;
    let (peer, connection, seat) = scene.come().await;
    let context = Arc::clone(&scene.context);
    let entry = context.crowd.enter(connection.clone(), seat);
    let visit = Arc::clone(&entry.visit);
    let state = Arc::new(context.service.connect(peer.binding));
    let budget = Budget::new();
    let (its_context, its_visit, its_state, its_budget) =
        (Arc::clone(&context), Arc::clone(&visit), Arc::clone(&state), Arc::clone(&budget));
    tokio::spawn(async move {
        while let Ok((answers, requests)) = connection.accept_bi().await {
            let (context, visit, state, budget) = (
                Arc::clone(&its_context),
                Arc::clone(&its_visit),
                Arc::clone(&its_state),
                Arc::clone(&its_budget),
            );
            tokio::spawn(async move { serve(answers, requests, &context, (&state, &visit), &budget).await });
        }
    });

    // A mailbox with two envelopes, and a file.
    let mut rng = rand::rng();
    let (admin, reads, writes) =
        (SecretKey::generate(&mut rng), SecretKey::generate(&mut rng), SecretKey::generate(&mut rng));
    let (mailbox, access) = (MailboxId::of_admin(&admin.public()), Some(scene.access.public()));
    let create =
        Create::signed(&admin, reads.public(), writes.public(), MailboxKind::Queue, access, &peer.binding);
    let mut talk = peer.open().await;
    for body in [
        peer.proof(Subject::Access(scene.access.public()), &scene.access),
        RequestBody::Create(create),
        peer.proof(Subject::Mailbox(mailbox, Right::Read), &reads),
        peer.proof(Subject::Mailbox(mailbox, Right::Write), &writes),
    ] {
        assert_eq!(talk.ask(body).await, ResponseBody::Done);
    }
    for number in 1..=2 {
        assert!(matches!(talk.ask(append(mailbox, number)).await, ResponseBody::Stored(_)));
    }
    let file = BlobHash::of(b"file");
    let put = BlobPut { hash: file, total: 4, offset: 0, bytes: ByteBuf::from(b"file"), access };
    assert_eq!(talk.ask(RequestBody::BlobPut(put)).await, ResponseBody::BlobProgress(4));

    let read = || Read { mailbox, after: Seq::START, count: 16 };
    let get = || RequestBody::BlobGet(BlobGet { hash: file, offset: 0 });
    let busy = ResponseBody::Refused(Refusal::Busy);
    // All that its network may have.
    let taken: Vec<Share> =
        std::iter::from_fn(|| context.frames.try_take(visit.site(), LARGE_ANSWER)).collect();
    assert!(!taken.is_empty());
    // What somebody acknowledges whom the first envelope was shown earlier, and what he appends, does not wait for the rest.
    let ack = Ack { mailbox, upto: Seq::new(1), also: Vec::new() };
    talk = peer.open().await;
    talk.send([RequestBody::Read(read()), get(), RequestBody::Ack(ack), append(mailbox, 3)]).await;
    let mut first = [talk.receive().await, talk.receive().await];
    first.sort_by_key(|(id, _)| *id);
    assert!(matches!(first, [(3, ResponseBody::Done), (4, ResponseBody::Stored(_))]), "{first:?}");
    // FRM-05: nothing behind a subscription is begun before that is answered.
    let mut other = peer.open().await;
    other.send([RequestBody::Subscribe(read()), RequestBody::Lineage]).await;
    until(|| budget.answers.available_permits() == LARGE_ANSWERS - 3).await;

    tokio::time::pause();
    tokio::time::advance(ROOM + AGAIN).await;
    until(|| budget.answers.available_permits() == LARGE_ANSWERS).await;
    // Who comes after that is not let wait as long once more.
    let begun = Instant::now();
    assert!(room_for_answer(&context, &visit, &budget).await.is_none());
    assert!(begun.elapsed() < ROOM, "by the clock of this test");
    tokio::time::resume();
    let mut last = [talk.receive().await, talk.receive().await];
    last.sort_by_key(|(id, _)| *id);
    assert!(last == [(1, busy.clone()), (2, busy.clone())], "answered without room, or not for that");
    assert_eq!(other.receive().await, (1, busy));
    assert_eq!(other.receive().await, (2, ResponseBody::Lineage(Vec::new())));

    assert_eq!(context.counters.busy.load(Ordering::Relaxed), 3, "the operator sees it");

    // What was busy did nothing: nobody is subscribed, and all is there that was not acknowledged.
    assert!(!state.has_subscriptions());
    drop(taken);
    match talk.ask(RequestBody::Read(read())).await {
        ResponseBody::Window(window) => assert_eq!(numbers(&window), [2, 3]),
        answer => panic!("a window, not {answer:?}"),
    }
    assert!(matches!(talk.ask(get()).await, ResponseBody::BlobPart(part) if *part.bytes == *b"file"));
    match other.ask(RequestBody::Subscribe(read())).await {
        ResponseBody::Window(window) => assert_eq!(numbers(&window), [2, 3]),
        answer => panic!("a window, not {answer:?}"),
    }
    assert!(state.has_subscriptions());
}

/// With everything at the relay before it begins: which of both gets what is given back, and when, is nobody's luck.
#[tokio::test]
async fn of_two_frames_of_a_stranger_that_wait_for_the_same_requests_neither_takes_them_from_the_other() {
    let scene = Scene::new(0).await;
    let (peer, connection, seat) = scene.come().await;
    let context = Arc::clone(&scene.context);
    let entry = context.crowd.enter(connection.clone(), seat);
    let state = Arc::new(context.service.connect(peer.binding));
    let budget = Budget::new();
    let all = u32::try_from(STRANGERS_REQUESTS).unwrap();
    let held = Arc::clone(&budget.requests).acquire_many_owned(all).await.unwrap();
    // More than a stranger may send ahead, so that all of it is there before anybody takes it.
    connection.set_receive_window(VarInt::from_u32(1 << 20));
    let mailbox = MailboxId::from_bytes([7; 32]);
    let largest = (0..MAX_FRAME).rev().find_map(|length| {
        let envelope = ByteBuf::from(vec![1; length]);
        let request = Request { id: 1, body: RequestBody::Append(Append { mailbox, envelope }) };
        encode_frame(&request).ok()
    });
    let largest = largest.unwrap();
    // It needs all that he may have, and the other one of them.
    assert_eq!(largest.len(), MAX_FRAME + FRAME_PREFIX);
    assert_eq!(1 + MAX_FRAME / UNIT, STRANGERS_REQUESTS);
    let (mut large, mut small) = (peer.open().await, peer.open().await);
    within(large.requests.write_all(&largest)).await.unwrap();
    small.send([append(mailbox, 1)]).await;
    for talk in [&mut large, &mut small] {
        talk.requests.finish().unwrap();
        assert_eq!(within(talk.requests.stopped()).await, Ok(None), "it is there");
    }
    for _ in 0..2 {
        let (answers, requests) = within(connection.accept_bi()).await.unwrap();
        let (context, visit, state, budget) =
            (Arc::clone(&context), Arc::clone(&entry.visit), Arc::clone(&state), Arc::clone(&budget));
        tokio::spawn(async move { serve(answers, requests, &context, (&state, &visit), &budget).await });
    }
    // Both have read all that there is, and wait.
    for _ in 0..10_000 {
        tokio::task::yield_now().await;
    }
    drop(held);
    for talk in [&mut large, &mut small] {
        assert_eq!(talk.receive().await, (1, ResponseBody::Refused(Refusal::NotAllowed)));
    }
}
