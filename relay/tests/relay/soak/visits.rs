//! What people do to a relay, the hostile included: each leaves nothing, or what the relay takes away by itself.

use std::{net::Ipv4Addr, path::PathBuf, sync::Arc};

use lapwing_wire::{
    address::AccessTicket,
    capability::{Right, Subject},
    frame::*,
    ids::BlobHash,
    tripwire::{Action, Token},
};
use rand::{Rng, rngs::StdRng};
use serde_bytes::ByteBuf;

use crate::{
    causes::{quorum, raise},
    memory::{ask_all, deaf},
    quota::prove,
    support::{
        Client, Keys,
        client::{append, stored},
        envelope,
        process::Process,
    },
    tripwire::{Plan, present},
};

/// Mailboxes that a greedy ticket gives.
pub const GREEDY_MAILBOXES: usize = 50;
/// Bytes that it gives: 32 anchors, or some 50 tripwires.
pub const GREEDY_SIZE: &str = "256 KiB";
/// Whole attachments that there are at most: the same ones come again and again.
const ATTACHMENTS: u8 = 16;
pub(super) const PART: usize = 64 << 10;
/// Mailboxes of whoever has many rights on one connection: three rights each.
const MANY: usize = 150;

/// What somebody comes for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Writes,
    TakesHereAndThere,
    Attaches,
    GuessesTokens,
    GuessesRights,
    UploadsALie,
    LeavesUploads,
    LeavesHalfAFrame,
    NeverEndsFrames,
    NeverEndsHandshakes,
    TakesAllSeats,
    AsksAndTakesNothing,
    WatchesAndTakesNothing,
    HasManyRights,
    TakesAllMailboxes,
    TakesAllAnchors,
    TakesAllTripwires,
    GuessesPassphrases,
    SetsOffTripwires,
    CrowdsTheNumbers,
    CrowdsTheOperator,
    DoesNothing,
}

impl Kind {
    /// All but the first, which comes between any two.
    pub const OTHERS: [Self; 21] = [
        Self::TakesHereAndThere,
        Self::Attaches,
        Self::GuessesTokens,
        Self::GuessesRights,
        Self::UploadsALie,
        Self::LeavesUploads,
        Self::LeavesHalfAFrame,
        Self::NeverEndsFrames,
        Self::NeverEndsHandshakes,
        Self::TakesAllSeats,
        Self::AsksAndTakesNothing,
        Self::WatchesAndTakesNothing,
        Self::HasManyRights,
        Self::TakesAllMailboxes,
        Self::TakesAllAnchors,
        Self::TakesAllTripwires,
        Self::GuessesPassphrases,
        Self::SetsOffTripwires,
        Self::CrowdsTheNumbers,
        Self::CrowdsTheOperator,
        Self::DoesNothing,
    ];
}

/// Somebody who comes again and again.
pub struct Visitor {
    pub relay: Arc<Process>,
    pub dir: PathBuf,
    /// Where the relay tells its numbers.
    pub port: u16,
    /// With room for everybody.
    pub ticket: Arc<AccessTicket>,
    /// Which attachments are charged to; they stay for their time.
    pub attachments: Arc<AccessTicket>,
    /// Which uploads are charged to that nobody ends.
    pub left: Arc<AccessTicket>,
    /// His own, which he uses up and empties again.
    pub greedy: AccessTicket,
    /// A network of his own, of which he takes all seats.
    pub crowd: Ipv4Addr,
    pub rng: StdRng,
}

pub(super) fn done(answers: &[ResponseBody]) {
    assert!(answers.iter().all(|answer| *answer == ResponseBody::Done), "{answers:?}");
}

pub(super) fn rights(
    client: &Client,
    all: &[Keys],
    of: impl Fn(&Keys, &Client) -> Prove,
) -> Vec<RequestBody> {
    all.iter().map(|keys| RequestBody::Prove(of(keys, client))).collect()
}

pub(super) fn prove_admin(keys: &Keys, client: &Client) -> Prove {
    let subject = Subject::Mailbox(keys.id(), Right::Admin);
    Prove { subject, signature: subject.prove(&keys.admin, &client.binding) }
}

fn prove_read(keys: &Keys, client: &Client) -> Prove {
    let subject = Subject::Mailbox(keys.id(), Right::Read);
    Prove { subject, signature: subject.prove(&keys.read, &client.binding) }
}

fn prove_write(keys: &Keys, client: &Client) -> Prove {
    let subject = Subject::Mailbox(keys.id(), Right::Write);
    Prove { subject, signature: subject.prove(&keys.write, &client.binding) }
}

pub(super) fn creates(client: &Client, all: &[Keys], ticket: &AccessTicket) -> Vec<RequestBody> {
    let access = Some(ticket.secret().public());
    let create = |keys: &Keys| keys.create(MailboxKind::Queue, access, &client.binding);
    all.iter().map(create).map(RequestBody::Create).collect()
}

pub(super) fn close(keys: &Keys) -> RequestBody {
    RequestBody::Close(Close { mailbox: keys.id() })
}

pub(super) fn read_one(keys: &Keys) -> Read {
    Read { mailbox: keys.id(), after: Seq::START, count: 1 }
}

impl Visitor {
    pub(super) async fn client(&self) -> Client {
        Client::connect(self.relay.socket(), self.relay.address.key()).await.unwrap()
    }

    pub(super) async fn deaf(&self) -> Client {
        deaf(self.relay.socket(), self.relay.address.key()).await
    }

    /// One visit. Every other one ends without a word.
    pub async fn visit(&mut self, kind: Kind) {
        let mut client = self.client().await;
        match kind {
            Kind::Writes => self.writes(&mut client).await,
            Kind::TakesHereAndThere => self.takes_here_and_there(&mut client).await,
            Kind::Attaches => self.attaches(&mut client).await,
            Kind::GuessesTokens => {
                for _ in 0..20 {
                    present(&mut client, &Token::generate(&mut self.rng)).await;
                }
            }
            Kind::GuessesRights => self.guesses_rights(&mut client).await,
            Kind::UploadsALie => self.uploads_a_lie(&mut client).await,
            Kind::LeavesUploads => self.leaves_uploads(&mut client).await,
            Kind::LeavesHalfAFrame => client.requests.write_all(&[0, 3, 0, 0, 1, 2, 3]).await.unwrap(),
            Kind::NeverEndsFrames => self.never_ends_frames().await,
            Kind::NeverEndsHandshakes => self.never_ends_handshakes().await,
            Kind::TakesAllSeats => self.takes_all_seats().await,
            Kind::AsksAndTakesNothing => self.asks_and_takes_nothing(&mut client).await,
            Kind::WatchesAndTakesNothing => self.watches_and_takes_nothing(&mut client).await,
            Kind::HasManyRights => self.has_many_rights(&mut client).await,
            Kind::TakesAllMailboxes => self.takes_all_mailboxes(&mut client).await,
            Kind::TakesAllAnchors => self.takes_all_anchors(&mut client).await,
            Kind::TakesAllTripwires => self.takes_all_tripwires(&mut client).await,
            Kind::GuessesPassphrases => self.guesses_passphrases(&mut client).await,
            Kind::SetsOffTripwires => self.sets_off_tripwires(&mut client).await,
            Kind::CrowdsTheNumbers => self.crowds_the_numbers().await,
            Kind::CrowdsTheOperator => self.crowds_the_operator().await,
            Kind::DoesNothing => {}
        }
        if self.rng.random() {
            client.connection.close(0u32.into(), b"");
        }
    }

    async fn writes(&mut self, client: &mut Client) {
        let keys = client.mailbox(self.ticket.secret(), MailboxKind::Queue).await;
        let count = self.rng.random_range(1..60);
        for number in 1..=count {
            let mut bytes = envelope(number);
            bytes.resize([1 << 10, 4 << 10, 16 << 10, 64 << 10][self.rng.random_range(0..4)], 3);
            stored(&client.append(keys.id(), bytes).await);
        }
        client.ask(RequestBody::Subscribe(Read { count: 9, ..read_one(&keys) })).await;
        let ack = Ack { mailbox: keys.id(), upto: Seq::new(count), also: Vec::new() };
        assert_eq!(client.ask(RequestBody::Ack(ack)).await, ResponseBody::Done);
        assert_eq!(client.window(keys.id(), 0).await.items.len(), 0);
        assert_eq!(client.ask(close(&keys)).await, ResponseBody::Done);
    }

    async fn takes_here_and_there(&mut self, client: &mut Client) {
        const COUNT: u64 = 24;
        let keys = client.mailbox(self.ticket.secret(), MailboxKind::Queue).await;
        for number in 1..=COUNT {
            stored(&client.append(keys.id(), envelope(number)).await);
        }
        let upto = self.rng.random_range(0..COUNT);
        let also: Vec<u64> = (upto + 1..=COUNT).filter(|_| self.rng.random()).collect();
        let also_taken = also.iter().copied().map(Seq::new).collect();
        let ack = Ack { mailbox: keys.id(), upto: Seq::new(upto), also: also_taken };
        for _ in 0..2 {
            assert_eq!(client.ask(RequestBody::Ack(ack.clone())).await, ResponseBody::Done);
        }
        let there: Vec<u64> =
            client.window(keys.id(), 0).await.items.iter().map(|item| item.place.seq.value()).collect();
        let rest: Vec<u64> = (upto + 1..=COUNT).filter(|number| !also.contains(number)).collect();
        assert_eq!(there, rest);
        // What is left goes with its mailbox.
        assert_eq!(client.ask(close(&keys)).await, ResponseBody::Done);
    }

    async fn attaches(&mut self, client: &mut Client) {
        let mut blob = vec![self.rng.random_range(0..ATTACHMENTS); 2 * PART];
        blob[PART] ^= 0x80;
        let hash = BlobHash::of(&blob);
        client.prove_access(self.attachments.secret()).await;
        for (part, bytes) in blob.chunks(PART).enumerate() {
            let put = BlobPut {
                hash,
                total: blob.len().try_into().unwrap(),
                offset: (part * PART).try_into().unwrap(),
                bytes: ByteBuf::from(bytes),
                access: Some(self.attachments.secret().public()),
            };
            // It was there, or it is at least as far.
            let ResponseBody::BlobProgress(there) = client.ask(RequestBody::BlobPut(put)).await else {
                panic!("progress")
            };
            assert!(there >= u64::try_from((part + 1) * PART).unwrap());
        }
        let get = BlobGet { hash, offset: PART.try_into().unwrap() };
        let ResponseBody::BlobPart(got) = client.ask(RequestBody::BlobGet(get)).await else {
            panic!("a part")
        };
        assert!(got.bytes.as_slice() == &blob[PART..]);
    }

    async fn has_many_rights(&self, client: &mut Client) {
        let all: Vec<Keys> = (0..MANY).map(|_| Keys::new()).collect();
        client.prove_access(self.ticket.secret()).await;
        let bodies = creates(client, &all, &self.ticket);
        done(&ask_all(client, bodies).await);
        for right in [prove_admin, prove_read, prove_write] {
            let bodies = rights(client, &all, right);
            done(&ask_all(client, bodies).await);
        }
        let watch = all.iter().map(|keys| RequestBody::Subscribe(read_one(keys))).collect();
        let windows = ask_all(client, watch).await;
        assert!(windows.iter().all(|answer| matches!(answer, ResponseBody::Window(_))));
        let appends = all.iter().map(|keys| append(keys.id(), envelope(1))).collect();
        assert!(ask_all(client, appends).await.iter().all(|answer| stored(answer).seq == Seq::new(1)));
        done(&ask_all(client, all.iter().map(close).collect()).await);
    }

    /// Two tripwires: a token sets one off, two voices the other; what they make sinks of is closed.
    async fn sets_off_tripwires(&self, client: &mut Client) {
        let access = Some(self.ticket.secret().public());
        let (by_token, by_voices) = (Plan::new(), Plan::new());
        let alerts = client.mailbox(self.ticket.secret(), MailboxKind::Queue).await;
        let doomed = client.mailbox(self.ticket.secret(), MailboxKind::Queue).await;
        stored(&client.append(doomed.id(), envelope(1)).await);
        let alert = |number| Action::append(alerts.id(), envelope(number), &alerts.write);
        prove(client, Subject::Tripwire(by_token.owner.public()), &by_token.owner).await;
        prove(client, Subject::Tripwire(by_voices.owner.public()), &by_voices.owner).await;
        let arm = by_token.arm_with(access, 1, &[alert(911)]);
        assert_eq!(client.ask(RequestBody::Arm(arm)).await, ResponseBody::Done);
        let (sealed, voices) = quorum(&by_voices, 2, &[alert(912), Action::sink(doomed.id(), &doomed.admin)]);
        let mut arm = by_voices.arm_with(access, 1, &[]);
        arm.causes.quorum = Some(sealed);
        assert_eq!(client.ask(RequestBody::Arm(arm)).await, ResponseBody::Done);
        let mut contact = self.client().await;
        for token in [&by_token.idle, &by_token.own, &by_token.duress, &by_token.duress] {
            present(&mut contact, token).await;
        }
        for (key, share) in &voices {
            assert_eq!(raise(&mut contact, by_voices.id(), key, share).await, ResponseBody::Done);
        }
        let found: Vec<_> = client.window(alerts.id(), 0).await.items;
        assert!(found.iter().map(|item| item.envelope.to_vec()).eq([envelope(911), envelope(912)]));
        stored(&client.append(doomed.id(), envelope(2)).await);
        assert!(client.window(doomed.id(), 0).await.items.is_empty(), "a sink");
        for plan in [&by_token, &by_voices] {
            let disarm = RequestBody::Disarm(Disarm { owner: plan.owner.public() });
            assert_eq!(client.ask(disarm).await, ResponseBody::Done);
        }
        for keys in [&alerts, &doomed] {
            assert_eq!(client.ask(close(keys)).await, ResponseBody::Done);
        }
    }
}
