//! Blobs: gone on with after a kill, charged, bounded, and gone when their time is over.

use std::time::Duration;

use lapwing_relay::{limits::Limits, store::Ticket};
use lapwing_wire::{
    address::AccessTicket,
    capability::{Access, SecretKey},
    frame::{BlobGet, BlobPut, MailboxKind, Refusal, RequestBody, ResponseBody},
    ids::BlobHash,
    time::Timestamp,
};
use serde_bytes::ByteBuf;

use crate::support::{
    Client, NOW, Relay,
    client::stored,
    envelope, local,
    process::{Process, run_json},
};

const PART: usize = 64 << 10;
const DAY: Duration = Duration::from_secs(24 * 3600);

fn bytes(parts: usize, salt: u8) -> Vec<u8> {
    (0..parts * PART).map(|at| at.to_le_bytes()[0] ^ at.to_le_bytes()[1] ^ salt).collect()
}

/// A blob and who pays for it.
struct Putting<'a> {
    blob: &'a [u8],
    access: &'a SecretKey<Access>,
}

impl Putting<'_> {
    fn put(&self, part: usize) -> RequestBody {
        let offset = part * PART;
        RequestBody::BlobPut(BlobPut {
            hash: BlobHash::of(self.blob),
            total: self.blob.len().try_into().unwrap(),
            offset: offset.try_into().unwrap(),
            bytes: ByteBuf::from(&self.blob[offset..offset + PART]),
            access: Some(self.access.public()),
        })
    }

    fn get(&self, part: usize) -> RequestBody {
        let offset = u64::try_from(part * PART).unwrap();
        RequestBody::BlobGet(BlobGet { hash: BlobHash::of(self.blob), offset })
    }

    fn parts(&self) -> usize {
        self.blob.len() / PART
    }

    async fn put_from(&self, client: &mut Client, first: usize) {
        for part in first..self.parts() {
            let answer = client.ask(self.put(part)).await;
            assert_eq!(answer, ResponseBody::BlobProgress(((part + 1) * PART).try_into().unwrap()));
        }
    }

    async fn is_whole(&self, client: &mut Client) -> bool {
        for part in 0..self.parts() {
            match client.ask(self.get(part)).await {
                ResponseBody::BlobPart(got) => {
                    assert_eq!(got.bytes.as_slice(), &self.blob[part * PART..(part + 1) * PART]);
                }
                ResponseBody::Refused(Refusal::NotAllowed) => return false,
                other => panic!("{other:?}"),
            }
        }
        true
    }
}

/// What was acknowledged of a blob is there after each kill, also where nothing was missing but the look at its hash.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_goes_on_where_its_relay_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let _ = run_json(dir.path(), &["init", "--host", "127.0.0.1", "--port", "0"]);
    let mut relay = Process::start(dir.path());
    let issued = run_json(dir.path(), &["access", "issue"]);
    let ticket = AccessTicket::from_text(issued["access_ticket"].as_str().unwrap()).unwrap();
    let blob = bytes(12, 1);
    let putting = Putting { blob: &blob, access: ticket.secret() };
    let mut acknowledged = 0;
    for round in 0..4 {
        let mut client = Client::connect(relay.socket(), relay.address.key()).await.unwrap();
        client.prove_access(ticket.secret()).await;
        // Asked by the first part: it is there, and the answer says how much is.
        let ResponseBody::BlobProgress(there) = client.ask(putting.put(0)).await else { panic!("progress") };
        let there = usize::try_from(there).unwrap() / PART;
        assert!(
            there >= acknowledged,
            "round {round}: {there} parts of {acknowledged} that were acknowledged"
        );
        for part in there..(there + 3).min(putting.parts() - 1) {
            client.ask(putting.put(part)).await;
            acknowledged = part + 1;
        }
        // One more is under way.
        let _ = client.send(putting.put(acknowledged)).await;
        relay.kill();
        relay = Process::start(dir.path());
    }
    let mut client = Client::connect(relay.socket(), relay.address.key()).await.unwrap();
    client.prove_access(ticket.secret()).await;
    let ResponseBody::BlobProgress(there) = client.ask(putting.put(0)).await else { panic!("progress") };
    putting.put_from(&mut client, usize::try_from(there).unwrap() / PART).await;
    assert!(putting.is_whole(&mut client).await);
    relay.kill();
}

/// A blob is charged whole with its first part, to the ticket that was proved, and given back when it goes.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_is_charged_to_its_ticket_and_given_back_when_it_goes() {
    let relay = Relay::in_memory(Limits::default(), local()).await;
    let access: SecretKey<Access> = SecretKey::from_seed([9; 32]);
    let room = u64::try_from(5 * PART).unwrap();
    relay.service.issue_access(Ticket::new(access.public(), room, 10, None), NOW).await.unwrap();
    let mut client = relay.client().await;
    client.prove_access(&access).await;
    let (first, second) = (bytes(3, 1), bytes(3, 2));
    let first = Putting { blob: &first, access: &access };
    let second = Putting { blob: &second, access: &access };
    assert_eq!(client.ask(first.put(0)).await, ResponseBody::BlobProgress(PART.try_into().unwrap()));
    let refused = ResponseBody::Refused(Refusal::NoAccess);
    assert_eq!(client.ask(second.put(0)).await, refused, "the rest of the first one has its room");
    first.put_from(&mut client, 1).await;
    assert_eq!(client.ask(second.put(0)).await, refused);
    // Who shows no ticket, or another's, stores nothing.
    let mut stranger = relay.client().await;
    assert_eq!(stranger.ask(second.put(0)).await, refused);
    pass(&relay, 0..=32).await;
    assert!(!first.is_whole(&mut client).await);
    assert_eq!(client.ask(second.put(0)).await, ResponseBody::BlobProgress(PART.try_into().unwrap()));
    relay.stop().await;
}

/// A tiny one is charged what it costs the relay, and all of that is given back: when it was a lie, and when its time is over.
#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_blob_is_charged_a_least_amount_and_all_of_it_is_given_back() {
    let relay = Relay::in_memory(Limits::default(), local()).await;
    let access: SecretKey<Access> = SecretKey::from_seed([9; 32]);
    relay.service.issue_access(Ticket::new(access.public(), 8192, 10, None), NOW).await.unwrap();
    let mut client = relay.client().await;
    client.prove_access(&access).await;
    let used = async || {
        let tickets = relay.service.access_tickets().await.unwrap();
        tickets.iter().find(|ticket| ticket.key == access.public()).unwrap().used_bytes
    };
    let put = |hash, byte: u8| {
        let bytes = ByteBuf::from(vec![byte]);
        RequestBody::BlobPut(BlobPut { hash, total: 1, offset: 0, bytes, access: Some(access.public()) })
    };
    let lie = client.ask(put(BlobHash::of(b"another"), 1)).await;
    assert_eq!((lie, used().await), (ResponseBody::Refused(Refusal::Conflict), 0));
    for byte in 1..=2 {
        assert_eq!(client.ask(put(BlobHash::of(&[byte]), byte)).await, ResponseBody::BlobProgress(1));
        assert_eq!(used().await, 4096 * u64::from(byte));
    }
    assert_eq!(client.ask(put(BlobHash::of(&[3]), 3)).await, ResponseBody::Refused(Refusal::NoAccess));
    pass(&relay, 0..=32).await;
    assert_eq!(used().await, 0);
    relay.stop().await;
}

/// These days since the beginning, each with its sweep: a relay believes no clock that jumps over many.
async fn pass(relay: &Relay, days: std::ops::RangeInclusive<u32>) {
    for day in days {
        let after = u64::try_from((day * DAY).as_millis()).unwrap();
        relay.service.sweep(Timestamp::from_millis(NOW.as_millis() + after)).await.unwrap();
    }
}

/// Who fills a ticket with attachments, large or tiny, keeps nobody who shares it from writing; the operator says how much they may have.
#[tokio::test(flavor = "multi_thread")]
async fn attachments_have_a_part_of_their_tickets_quota_and_leave_the_rest() {
    let share = u64::try_from(5 * PART).unwrap();
    let limits = Limits { ticket_blob_bytes: share, admin_reserve_bytes: 0, ..Limits::default() };
    let relay = Relay::in_memory(limits.clone(), local()).await;
    let [greedy, other] = [9, 10].map(|byte| SecretKey::<Access>::from_seed([byte; 32]));
    for access in [&greedy, &other] {
        let ticket = Ticket::new(access.public(), 2 * share, 1000, None);
        relay.service.issue_access(ticket, NOW).await.unwrap();
    }
    let mut client = relay.client().await;
    client.prove_access(&greedy).await;
    client.prove_access(&other).await;
    let blobs = [1, 2, 3].map(|salt| bytes(3, salt));
    let of = |salt: usize, access| Putting { blob: &blobs[salt - 1], access };
    let begun = ResponseBody::BlobProgress(PART.try_into().unwrap());
    let refused = ResponseBody::Refused(Refusal::NoAccess);
    assert_eq!(client.ask(of(1, &greedy).put(0)).await, begun);
    let mut tiny = 0;
    for number in 0..200u8 {
        let (hash, bytes) = (BlobHash::of(&[number]), ByteBuf::from(vec![number]));
        let put = BlobPut { hash, total: 1, offset: 0, bytes, access: Some(greedy.public()) };
        match client.ask(RequestBody::BlobPut(put)).await {
            ResponseBody::BlobProgress(1) => tiny += 1,
            other => assert_eq!(other, refused),
        }
    }
    // By what each costs; and an eighth of the share, which large ones do not get.
    assert_eq!(tiny, (2 * PART + 5 * PART / 8) / 4096, "what the first one left");
    assert_eq!(client.ask(of(2, &greedy).put(0)).await, refused);
    assert_eq!(client.ask(of(2, &other).put(0)).await, begun, "another's are another's");
    of(1, &greedy).put_from(&mut client, 1).await;
    // The rest of the quota is there.
    let keys = client.mailbox(&greedy, MailboxKind::Queue).await;
    for number in 0..(share - share / 8) >> 10 {
        stored(&client.append(keys.id(), envelope(number)).await);
    }
    let full = ResponseBody::Refused(Refusal::Full);
    assert_eq!(client.append(keys.id(), envelope(1 << 20)).await, full, "both are within the quota");

    // The operator gives more, and less: what is there stays.
    relay.service.set_limits(Limits { ticket_blob_bytes: 2 * share, ..limits.clone() });
    assert_eq!(client.ask(of(3, &greedy).put(0)).await, refused, "the quota holds too");
    assert_eq!(client.ask(of(3, &other).put(0)).await, begun);
    relay.service.set_limits(Limits { ticket_blob_bytes: 0, ..limits });
    let whole = ResponseBody::BlobProgress((3 * PART).try_into().unwrap());
    assert_eq!(client.ask(of(1, &other).put(0)).await, whole, "it is there already, whoever asks");
    of(3, &other).put_from(&mut client, 1).await;
    assert!(of(1, &greedy).is_whole(&mut client).await && of(3, &other).is_whole(&mut client).await);
    let lie = [0xff; 4];
    let put = BlobPut {
        hash: BlobHash::of(&lie),
        total: 4,
        offset: 0,
        bytes: lie.to_vec().into(),
        access: Some(other.public()),
    };
    assert_eq!(client.ask(RequestBody::BlobPut(put)).await, refused);
    pass(&relay, 0..=32).await;
    for ticket in relay.service.access_tickets().await.unwrap() {
        assert_eq!((ticket.used_bytes, ticket.used_blob_bytes), (0, 0), "all of it is given back");
    }
    relay.stop().await;
}

/// Attachments have a time of their own: shorter than that of envelopes, or longer.
#[tokio::test(flavor = "multi_thread")]
async fn attachments_and_envelopes_each_go_when_their_own_time_is_over() {
    for (blob_days, days) in [(5, 20), (20, 5)] {
        let limits = Limits { retention: days * DAY, blob_retention: blob_days * DAY, ..Limits::default() };
        let relay = Relay::in_memory(limits, local()).await;
        let mut client = relay.client().await;
        let keys = client.mailbox(&relay.access, MailboxKind::Queue).await;
        stored(&client.append(keys.id(), envelope(1)).await);
        let blob = bytes(2, 1);
        let putting = Putting { blob: &blob, access: &relay.access };
        putting.put_from(&mut client, 0).await;
        pass(&relay, 0..=4).await;
        for (day, is_over) in [(5..=8, (true, false)), (9..=19, (true, false)), (20..=23, (true, true))] {
            pass(&relay, day).await;
            let (first, second) = is_over;
            let (blob_over, over) = if blob_days < days { (first, second) } else { (second, first) };
            assert_eq!(putting.is_whole(&mut client).await, !blob_over);
            assert_eq!(client.window(keys.id(), 0).await.items.is_empty(), over);
        }
        relay.stop().await;
    }
}

/// An unfinished blob goes after a day or two, a whole one after the retention, each by itself.
#[tokio::test(flavor = "multi_thread")]
async fn blobs_go_when_their_time_is_over_and_unfinished_ones_sooner() {
    let relay = Relay::in_memory(Limits::default(), local()).await;
    let mut client = relay.client().await;
    client.prove_access(&relay.access).await;
    let (whole, half) = (bytes(2, 1), bytes(2, 2));
    let whole = Putting { blob: &whole, access: &relay.access };
    let half = Putting { blob: &half, access: &relay.access };
    whole.put_from(&mut client, 0).await;
    client.ask(half.put(0)).await;
    pass(&relay, 0..=0).await;
    let progress = |parts: usize| ResponseBody::BlobProgress((parts * PART).try_into().unwrap());
    assert_eq!(client.ask(half.put(0)).await, progress(1), "it is there still");
    pass(&relay, 1..=3).await;
    // A part behind the first is a gap in a blob that is not there.
    assert_eq!(client.ask(half.put(1)).await, ResponseBody::Refused(Refusal::Conflict));
    assert!(whole.is_whole(&mut client).await);
    pass(&relay, 4..=29).await;
    assert!(whole.is_whole(&mut client).await);
    pass(&relay, 30..=32).await;
    assert!(!whole.is_whole(&mut client).await);
    relay.stop().await;
}
