//! Clients that lie, stall and pry.

use std::time::Duration;

use crate::support::{
    Client, Keys, NOW, Relay,
    client::{append, read_frame, stored, within},
    envelope, local,
};
use lapwing_relay::{
    limits::Limits,
    server::ServerOptions,
    store::{Pressure, Ticket, memory::MemoryStore},
};
use lapwing_wire::{
    capability::{ChannelBinding, Right, SecretKey, Subject},
    codec,
    frame::*,
    ids::{BlobHash, MailboxId},
    limits::{MAX_FRAME, MAX_IN_FLIGHT, MAX_SELECTIVE},
};
use quinn::ConnectionError;

const NOT_ALLOWED: ResponseBody = ResponseBody::Refused(Refusal::NotAllowed);

/// The code with which the relay ended the connection.
pub async fn ended(client: &Client) -> u64 {
    match within(client.connection.closed()).await {
        ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
        other => panic!("closed by the relay, not {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frm_01_an_oversized_claim_ends_the_connection() {
    let relay = Relay::in_memory(Limits::default(), local()).await;
    let mut client = relay.client().await;
    let claim = u32::try_from(MAX_FRAME + 1).unwrap().to_be_bytes();
    client.requests.write_all(&claim).await.unwrap();
    assert_eq!(ended(&client).await, 1);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_ends_its_connection_and_no_other() {
    let relay = Relay::in_memory(Limits::default(), local()).await;
    let mut good = relay.client().await;
    let keys = good.mailbox(&relay.access, MailboxKind::Queue).await;
    for garbage in [&[0, 0, 0, 3, 0xff, 0xff, 0xff][..], &[0, 0, 0, 0], &[0, 0, 0, 2, 0x81, 0x81]] {
        let mut bad = relay.client().await;
        bad.requests.write_all(garbage).await.unwrap();
        assert_eq!(ended(&bad).await, 1);
    }
    stored(&good.append(keys.id(), envelope(1)).await);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frm_03_an_unknown_request_is_unsupported_and_the_connection_lives() {
    let relay = Relay::in_memory(Limits::default(), local()).await;
    let mut client = relay.client().await;
    #[derive(serde::Serialize)]
    struct Strange {
        id: u64,
        body: &'static str,
    }
    let body = codec::encode(&Strange { id: 77, body: "evaluate" });
    let mut frame = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    frame.extend_from_slice(&body);
    client.requests.write_all(&frame).await.unwrap();
    let answer = client.receive().await.unwrap();
    assert_eq!(answer, Response { id: 77, body: ResponseBody::Refused(Refusal::Unsupported) });
    client.prove_access(&relay.access).await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_frame_ends_the_connection_after_the_stall_timeout() {
    let options = ServerOptions { stall_timeout: Duration::from_secs(1), ..local() };
    let relay = Relay::in_memory(Limits::default(), options).await;
    let mut client = relay.client().await;
    let frame = encode_frame(&Request { id: 1, body: append(MailboxId::from_bytes([0; 32]), envelope(1)) });
    client.requests.write_all(&frame.unwrap()[..500]).await.unwrap();
    assert_eq!(ended(&client).await, 2);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_trickles_in_ends_the_connection_too() {
    let options = ServerOptions { stall_timeout: Duration::from_secs(1), ..local() };
    let relay = Relay::in_memory(Limits::default(), options).await;
    let mut client = relay.client().await;
    let frame = encode_frame(&Request { id: 1, body: append(MailboxId::from_bytes([0; 32]), envelope(1)) });
    let trickle = async {
        // A thousand steps of 50 ms: far longer than the relay may wait.
        for byte in frame.unwrap() {
            if client.requests.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    within(trickle).await;
    assert_eq!(ended(&client).await, 2);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_frame_at_the_end_of_a_stream_is_nothing() {
    let relay = Relay::in_memory(Limits::default(), local()).await;
    let mut client = relay.client().await;
    client.requests.write_all(&[0, 0, 1, 0, 1, 2, 3]).await.unwrap();
    client.requests.finish().unwrap();
    let end: Result<Response, _> = read_frame(&mut client.answers).await;
    assert!(end.is_err(), "the relay finishes its side");
    let (mut requests, mut answers) = client.connection.open_bi().await.unwrap();
    let subject = Subject::Access(relay.access.public());
    let signature = subject.prove(&relay.access, &client.binding);
    let prove = Request { id: 5, body: RequestBody::Prove(Prove { subject, signature }) };
    requests.write_all(&encode_frame(&prove).unwrap()).await.unwrap();
    let answer: Response = read_frame(&mut answers).await.unwrap();
    assert_eq!(answer, Response { id: 5, body: ResponseBody::Done });
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_ended_and_holds_others_up_in_nothing() {
    let options = ServerOptions { stall_timeout: Duration::from_secs(2), ..local() };
    let relay = Relay::in_memory(Limits::default(), options).await;
    let mut slow = relay.client().await;
    let keys = slow.mailbox(&relay.access, MailboxKind::Log).await;
    let mut large = envelope(1);
    large.resize(64 << 10, 0);
    stored(&slow.append(keys.id(), large).await);
    let mut good = relay.client().await;
    good.prove_all(&keys).await;
    // Each answer has 64 KiB and nobody takes them; the relay stops reading at its bound, then gives up.
    let read = RequestBody::Read(Read { mailbox: keys.id(), after: Seq::START, count: 1 });
    let flood = async {
        let frame = encode_frame(&Request { id: 9, body: read }).unwrap();
        while slow.requests.write_all(&frame).await.is_ok() {}
    };
    within(flood).await;
    assert_eq!(ended(&slow).await, 2);
    assert_eq!(good.window(keys.id(), 0).await.items.len(), 1);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_in_flight_wait_and_are_all_answered() {
    let relay = Relay::start().await;
    let mut client = relay.client().await;
    let keys = client.mailbox(&relay.access, MailboxKind::Queue).await;
    let count = 4 * MAX_IN_FLIGHT;
    let mut all = Vec::new();
    for number in 0..count {
        let id = u64::try_from(number).unwrap() + 1000;
        let body = append(keys.id(), envelope(id));
        all.extend_from_slice(&encode_frame(&Request { id, body }).unwrap());
    }
    let (mut requests, mut answers) = client.connection.open_bi().await.unwrap();
    let writer = tokio::spawn(async move { within(requests.write_all(&all)).await.map(|()| requests) });
    let mut ids = std::collections::BTreeSet::new();
    for _ in 0..count {
        let response: Response = read_frame(&mut answers).await.unwrap();
        stored(&response.body);
        assert!(ids.insert(response.id), "one answer each");
    }
    writer.await.unwrap().unwrap();
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cap_03_a_proof_from_another_connection_or_exporter_is_worth_nothing() {
    let relay = Relay::in_memory(Limits::default(), local()).await;
    let mut owner = relay.client().await;
    let keys = owner.mailbox(&relay.access, MailboxKind::Queue).await;
    let mut thief = relay.client().await;
    let subject = Subject::Mailbox(keys.id(), Right::Write);
    for binding in [owner.binding, ChannelBinding::from_bytes([0; 32])] {
        let signature = subject.prove(&keys.write, &binding);
        assert_eq!(thief.ask(RequestBody::Prove(Prove { subject, signature })).await, NOT_ALLOWED);
    }
    let create = Keys::new().create(MailboxKind::Queue, None, &owner.binding);
    assert_eq!(thief.ask(RequestBody::Create(create)).await, NOT_ALLOWED);
    assert_eq!(thief.append(keys.id(), envelope(1)).await, NOT_ALLOWED);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cap_05_closing_ends_every_right_also_if_the_mailbox_is_created_again() {
    let relay = Relay::in_memory(Limits::default(), local()).await;
    let mut owner = relay.client().await;
    let keys = owner.mailbox(&relay.access, MailboxKind::Queue).await;
    let mut other = relay.client().await;
    other.prove_all(&keys).await;
    assert_eq!(owner.ask(RequestBody::Close(Close { mailbox: keys.id() })).await, ResponseBody::Done);
    assert_eq!(
        owner.ask(RequestBody::Close(Close { mailbox: keys.id() })).await,
        ResponseBody::Done,
        "again"
    );
    let create = keys.create(MailboxKind::Queue, Some(relay.access.public()), &owner.binding);
    assert_eq!(owner.ask(RequestBody::Create(create)).await, ResponseBody::Done);
    assert_eq!(other.append(keys.id(), envelope(1)).await, NOT_ALLOWED);
    assert_eq!(other.read(keys.id(), 0, 1).await, NOT_ALLOWED);
    other.prove_all(&keys).await;
    assert_eq!(stored(&other.append(keys.id(), envelope(1)).await).seq, Seq::new(1));
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cap_02_each_right_opens_its_own_door_only() {
    let relay = Relay::in_memory(Limits::default(), local()).await;
    let mut owner = relay.client().await;
    let keys = owner.mailbox(&relay.access, MailboxKind::Queue).await;
    let id = keys.id();
    let mut reader = relay.client().await;
    assert_eq!(reader.prove(Subject::Mailbox(id, Right::Read), &keys.write).await, NOT_ALLOWED);
    reader.prove(Subject::Mailbox(id, Right::Read), &keys.read).await;
    assert_eq!(reader.append(id, envelope(1)).await, NOT_ALLOWED);
    assert_eq!(reader.ask(RequestBody::Close(Close { mailbox: id })).await, NOT_ALLOWED);
    let mut writer = relay.client().await;
    writer.prove(Subject::Mailbox(id, Right::Write), &keys.write).await;
    let ack = Ack { mailbox: id, upto: Seq::new(9), also: Vec::new() };
    assert_eq!(writer.ask(RequestBody::Ack(ack)).await, NOT_ALLOWED);
    assert_eq!(writer.read(id, 0, 1).await, NOT_ALLOWED);
    let subscribe = Read { mailbox: id, after: Seq::START, count: 1 };
    assert_eq!(writer.ask(RequestBody::Subscribe(subscribe)).await, NOT_ALLOWED);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frm_04_unknown_and_forbidden_are_one_answer() {
    let relay = Relay::in_memory(Limits::default(), local()).await;
    let mut owner = relay.client().await;
    let there = owner.mailbox(&relay.access, MailboxKind::Queue).await.id();
    let nowhere = Keys::new().id();
    let mut stranger = relay.client().await;
    let key = SecretKey::generate(&mut rand::rng());
    for right in [Right::Read, Right::Write, Right::Admin] {
        for id in [there, nowhere] {
            let answer =
                stranger.prove::<lapwing_wire::capability::Write>(Subject::Mailbox(id, right), &key).await;
            assert_eq!(answer, NOT_ALLOWED);
        }
    }
    for id in [there, nowhere] {
        let window = Read { mailbox: id, after: Seq::START, count: 1 };
        let ack = Ack { mailbox: id, upto: Seq::START, also: vec![Seq::START; MAX_SELECTIVE + 1] };
        for body in [
            append(id, envelope(1)),
            append(id, vec![1; 5]),
            RequestBody::Read(window.clone()),
            RequestBody::Subscribe(window),
            RequestBody::Ack(ack),
            RequestBody::Close(Close { mailbox: id }),
        ] {
            assert_eq!(stranger.ask(body).await, NOT_ALLOWED);
        }
    }
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn envelopes_have_one_of_four_sizes() {
    let relay = Relay::in_memory(Limits::default(), local()).await;
    let mut client = relay.client().await;
    let keys = client.mailbox(&relay.access, MailboxKind::Queue).await;
    for wrong in [0, 1, 1023, 1025, 65_535, 65_537, 200_000] {
        let answer = client.append(keys.id(), vec![1; wrong]).await;
        assert_eq!(answer, ResponseBody::Refused(Refusal::TooLarge), "{wrong}");
    }
    for right in [1 << 10, 4 << 10, 16 << 10, 64 << 10] {
        stored(&client.append(keys.id(), vec![1; right]).await);
    }
    let also = vec![Seq::new(1); MAX_SELECTIVE + 1];
    let ack = Ack { mailbox: keys.id(), upto: Seq::START, also };
    assert_eq!(client.ask(RequestBody::Ack(ack)).await, ResponseBody::Refused(Refusal::TooLarge));
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_mailbox_says_so_keeps_room_for_its_admin_and_empties() {
    let limits = Limits { mailbox_bytes: 64 << 10, admin_reserve_bytes: 2 << 10, ..Limits::default() };
    let relay = Relay::in_memory(limits, local()).await;
    let mut admin = relay.client().await;
    let keys = admin.mailbox(&relay.access, MailboxKind::Queue).await;
    let mut member = relay.client().await;
    member.prove(Subject::Mailbox(keys.id(), Right::Write), &keys.write).await;
    for number in 1..=64 {
        stored(&member.append(keys.id(), envelope(number)).await);
    }
    let full = ResponseBody::Refused(Refusal::Full);
    assert_eq!(member.append(keys.id(), envelope(65)).await, full);
    assert_eq!(stored(&member.append(keys.id(), envelope(7)).await).seq, Seq::new(7), "a retry is not new");
    for number in 66..=67 {
        stored(&admin.append(keys.id(), envelope(number)).await);
    }
    assert_eq!(admin.append(keys.id(), envelope(68)).await, full);
    let ack = Ack { mailbox: keys.id(), upto: Seq::new(10), also: Vec::new() };
    assert_eq!(admin.ask(RequestBody::Ack(ack)).await, ResponseBody::Done);
    stored(&member.append(keys.id(), envelope(65)).await);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn access_is_proved_bounded_and_revocable() {
    let relay = Relay::in_memory(Limits::default(), local()).await;
    let no_access = ResponseBody::Refused(Refusal::NoAccess);
    let mut client = relay.client().await;
    let binding = client.binding;
    let small = SecretKey::generate(&mut rand::rng());
    relay.service.issue_access(Ticket::new(small.public(), 2048, 2, None), NOW).await.unwrap();
    let create = |keys: &Keys, access| RequestBody::Create(keys.create(MailboxKind::Queue, access, &binding));

    assert_eq!(client.ask(create(&Keys::new(), None)).await, no_access, "not an open relay");
    assert_eq!(client.ask(create(&Keys::new(), Some(small.public()))).await, no_access, "not proved");
    let unknown = SecretKey::generate(&mut rand::rng());
    assert_eq!(client.prove(Subject::Access(unknown.public()), &unknown).await, no_access);
    let ended = SecretKey::generate(&mut rand::rng());
    relay.service.issue_access(Ticket::new(ended.public(), 1, 1, Some(NOW)), NOW).await.unwrap();
    assert_eq!(client.prove(Subject::Access(ended.public()), &ended).await, no_access);

    client.prove_access(&small).await;
    let (first, second) = (Keys::new(), Keys::new());
    assert_eq!(client.ask(create(&first, Some(small.public()))).await, ResponseBody::Done);
    assert_eq!(client.ask(create(&second, Some(small.public()))).await, ResponseBody::Done);
    assert_eq!(client.ask(create(&second, Some(small.public()))).await, ResponseBody::Done, "again");
    assert_eq!(client.ask(create(&Keys::new(), Some(small.public()))).await, no_access, "used up");
    client.prove_all(&first).await;
    let mut writer = relay.client().await;
    writer.prove(Subject::Mailbox(first.id(), Right::Write), &first.write).await;
    stored(&writer.append(first.id(), envelope(1)).await);
    stored(&writer.append(first.id(), envelope(2)).await);
    let full = ResponseBody::Refused(Refusal::Full);
    assert_eq!(writer.append(first.id(), envelope(3)).await, full, "the ticket's bytes are used up");
    client.ask(RequestBody::Close(Close { mailbox: first.id() })).await;
    assert_eq!(
        client.ask(create(&Keys::new(), Some(small.public()))).await,
        ResponseBody::Done,
        "given back"
    );

    client.prove_all(&second).await;
    assert!(relay.service.revoke_access(small.public(), NOW).await.unwrap());
    client.ask(RequestBody::Close(Close { mailbox: second.id() })).await;
    assert_eq!(client.ask(create(&Keys::new(), Some(small.public()))).await, no_access, "revoked");
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_id_with_other_keys_is_a_conflict() {
    let relay = Relay::in_memory(Limits::default(), local()).await;
    let mut client = relay.client().await;
    let keys = client.mailbox(&relay.access, MailboxKind::Queue).await;
    let access = Some(relay.access.public());
    let conflict = ResponseBody::Refused(Refusal::Conflict);
    let log = keys.create(MailboxKind::Log, access, &client.binding);
    assert_eq!(client.ask(RequestBody::Create(log)).await, conflict);
    let other = Keys { write: SecretKey::generate(&mut rand::rng()), ..keys };
    let create = other.create(MailboxKind::Queue, access, &client.binding);
    assert_eq!(client.ask(RequestBody::Create(create)).await, conflict);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn proofs_and_subscriptions_of_a_connection_are_bounded() {
    let limits = Limits { proofs_per_connection: 8, subscriptions_per_connection: 1, ..Limits::default() };
    let relay = Relay::in_memory(limits, local()).await;
    let mut client = relay.client().await;
    let busy = ResponseBody::Refused(Refusal::Busy);
    let first = client.mailbox(&relay.access, MailboxKind::Queue).await;
    let second = client.mailbox(&relay.access, MailboxKind::Queue).await;
    let owner = SecretKey::generate(&mut rand::rng());
    assert_eq!(client.prove(Subject::Tripwire(owner.public()), &owner).await, ResponseBody::Done);
    let ninth = SecretKey::generate(&mut rand::rng());
    assert_eq!(client.prove(Subject::Tripwire(ninth.public()), &ninth).await, busy);
    let subscribe = |id| RequestBody::Subscribe(Read { mailbox: id, after: Seq::START, count: 1 });
    assert!(matches!(client.ask(subscribe(first.id())).await, ResponseBody::Window(_)));
    assert_eq!(client.ask(subscribe(second.id())).await, busy);
    client.ask(RequestBody::Unsubscribe(Close { mailbox: first.id() })).await;
    assert!(matches!(client.ask(subscribe(second.id())).await, ResponseBody::Window(_)));
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_beginners_first_then_all_that_is_new_keeps_the_old_and_recovers() {
    let store = std::sync::Arc::new(MemoryStore::new());
    let relay = Relay::over(store.clone(), Limits::default(), local(), None).await;
    let mut client = relay.client().await;
    let keys = client.mailbox(&relay.access, MailboxKind::Queue).await;
    stored(&client.append(keys.id(), envelope(1)).await);
    let busy = ResponseBody::Refused(Refusal::Busy);
    let create = Keys::new().create(MailboxKind::Queue, Some(relay.access.public()), &client.binding);
    let put = BlobPut {
        hash: BlobHash::of(b"blob"),
        total: 4,
        offset: 0,
        bytes: b"blob".to_vec().into(),
        access: Some(relay.access.public()),
    };
    // One that is half there; whoever goes on with it asks by its first part how much that is.
    let (half, part) = (vec![7; 3 * (16 << 10)], 16 << 10);
    let go_on = |from: usize| {
        RequestBody::BlobPut(BlobPut {
            hash: BlobHash::of(&half),
            total: half.len().try_into().unwrap(),
            offset: from.try_into().unwrap(),
            bytes: half[from..from + part].to_vec().into(),
            access: Some(relay.access.public()),
        })
    };
    let progress = |parts: usize| ResponseBody::BlobProgress((parts * part).try_into().unwrap());
    assert_eq!(client.ask(go_on(0)).await, progress(1));
    store.set_pressure(Pressure::NothingBegins);
    assert_eq!(client.ask(RequestBody::Create(create.clone())).await, busy);
    assert_eq!(client.ask(RequestBody::BlobPut(put)).await, busy);
    assert_eq!(client.ask(go_on(0)).await, progress(1), "what was begun is there");
    assert_eq!(client.ask(go_on(part)).await, progress(2), "and goes on");
    stored(&client.append(keys.id(), envelope(9)).await);
    store.set_pressure(Pressure::NothingNew);
    assert_eq!(client.append(keys.id(), envelope(2)).await, busy);
    assert_eq!(client.ask(RequestBody::Create(create)).await, busy);
    assert_eq!(client.ask(go_on(2 * part)).await, busy);
    assert_eq!(client.window(keys.id(), 0).await.items.len(), 2);
    let ack = Ack { mailbox: keys.id(), upto: Seq::new(1), also: Vec::new() };
    assert_eq!(client.ask(RequestBody::Ack(ack)).await, ResponseBody::Done);
    store.set_pressure(Pressure::None);
    assert_eq!(stored(&client.append(keys.id(), envelope(2)).await).seq, Seq::new(3));
    assert_eq!(client.ask(go_on(2 * part)).await, progress(3));
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cap_06_nobody_uses_up_the_reserve_with_which_an_admin_removes_a_member() {
    let limits = Limits { admin_reserve_bytes: 2 << 10, ..Limits::default() };
    let relay = Relay::start_with(limits).await;
    let access = SecretKey::generate(&mut rand::rng());
    let ticket = Ticket::new(access.public(), 8 << 10, 10, None);
    relay.service.issue_access(ticket, NOW).await.unwrap();
    let mut admin = relay.client().await;
    let log = admin.mailbox(&access, MailboxKind::Log).await;
    let other = admin.mailbox(&access, MailboxKind::Queue).await;
    let mut member = relay.client().await;
    member.prove(Subject::Mailbox(log.id(), Right::Write), &log.write).await;
    for number in 1..=8 {
        stored(&member.append(log.id(), envelope(number)).await);
    }
    let full = ResponseBody::Refused(Refusal::Full);
    assert_eq!(member.append(log.id(), envelope(9)).await, full, "the ticket's quota");
    // Another mailbox of the same ticket uses up its own reserve and nothing else.
    for number in 1..=2 {
        stored(&admin.append(other.id(), envelope(number)).await);
    }
    assert_eq!(admin.append(other.id(), envelope(3)).await, full, "a fixed reserve");
    for number in 10..=11 {
        stored(&admin.append(log.id(), envelope(number)).await);
    }
    assert_eq!(admin.append(log.id(), envelope(12)).await, full, "a fixed reserve");
    assert_eq!(member.append(log.id(), envelope(9)).await, full);
    // What is taken frees the reserve; the ticket is still beyond its quota.
    admin.ask(RequestBody::Ack(Ack { mailbox: other.id(), upto: Seq::new(1), also: Vec::new() })).await;
    stored(&admin.append(other.id(), envelope(3)).await);
    assert_eq!(admin.append(other.id(), envelope(4)).await, full);
    assert_eq!(admin.window(log.id(), 0).await.items.len(), 10);
    relay.stop().await;
}

/// Whoever fills everything that one ticket gives takes nothing from the holder of another, and gets it back by closing only.
#[tokio::test(flavor = "multi_thread")]
async fn who_uses_up_a_ticket_takes_nothing_from_the_holder_of_another() {
    let relay = Relay::start().await;
    let [greedy, honest] = [(); 2].map(|()| SecretKey::generate(&mut rand::rng()));
    for access in [&greedy, &honest] {
        let ticket = Ticket::new(access.public(), 16 << 10, 4, None);
        relay.service.issue_access(ticket, NOW).await.unwrap();
    }
    let mut client = relay.client().await;
    let theirs = client.mailbox(&honest, MailboxKind::Queue).await;
    let mut glutton = relay.client().await;
    let mut filled = Vec::new();
    for _ in 0..4 {
        filled.push(glutton.mailbox(&greedy, MailboxKind::Queue).await);
    }
    let binding = glutton.binding;
    let mut refused = 0;
    // Whoever administrates has a reserve beyond the quota: this one does not.
    let mut writer = relay.client().await;
    for number in 0..40 {
        let keys = &filled[number % filled.len()];
        writer.prove(Subject::Mailbox(keys.id(), Right::Write), &keys.write).await;
        refused += u64::from(
            writer.append(keys.id(), envelope(u64::try_from(number).unwrap())).await
                == ResponseBody::Refused(Refusal::Full),
        );
        let more = Keys::new().create(MailboxKind::Queue, Some(greedy.public()), &binding);
        assert_eq!(glutton.ask(RequestBody::Create(more)).await, ResponseBody::Refused(Refusal::NoAccess));
    }
    assert_eq!(refused, 24, "its bytes are used up");
    for number in 0..16 {
        stored(&client.append(theirs.id(), envelope(number)).await);
    }
    let mine = client.mailbox(&honest, MailboxKind::Log).await;
    assert_eq!(client.window(mine.id(), 0).await.items.len(), 0);
    let tickets = relay.service.access_tickets().await.unwrap();
    let used = |access: &SecretKey<lapwing_wire::capability::Access>| {
        let ticket = tickets.iter().find(|ticket| ticket.key == access.public()).unwrap();
        (ticket.used_bytes, ticket.used_mailboxes)
    };
    assert_eq!(used(&honest), (16 << 10, 2));
    assert_eq!(used(&greedy), (16 << 10, 4));
    relay.stop().await;
}
