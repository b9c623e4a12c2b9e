//! What the hostile do to a relay.

use std::{net::TcpStream, os::unix::net::UnixStream, path::Path, sync::Arc, time::Duration};

use lapwing_wire::{
    capability::{Right, Subject},
    frame::*,
    ids::{BlobHash, MailboxId},
    limits::MAX_FAILURES,
    tripwire::Action,
};
use quinn::TransportConfig;
use rand::Rng;
use rustls::crypto::aws_lc_rs;
use serde_bytes::ByteBuf;
use tokio::task::{JoinSet, spawn_blocking};

use super::visits::{GREEDY_MAILBOXES, PART, Visitor, close, creates, done, prove_admin, read_one, rights};
use crate::{
    anchor::{Anchored, COVER, REAL},
    flood::{SEATS, one_way},
    hostile::ended,
    local::pour,
    memory::ask_all,
    quota::{made, prove},
    support::{Client, Keys, PATIENCE, client::stored, envelope, process::run_json},
    tripwire::Plan,
};

/// Anchors that a greedy ticket gives.
const GREEDY_ANCHORS: usize = 32;
/// How long those who begin handshakes and do not end them stay.
const LINGER: Duration = Duration::from_secs(2);

/// Connects programs that say nothing, and some that never come to an end.
fn crowd<S: std::io::Read + std::io::Write>(connect: impl Fn() -> S) -> Vec<S> {
    const SILENT: usize = 60;
    const ENDLESS: usize = 8;
    let mut all: Vec<S> = (0..SILENT + ENDLESS).map(|_| connect()).collect();
    pour(&mut all[SILENT..]);
    all
}

/// The relay's numbers. Who asks beside several crowds may be sent away like one of them, and asks again.
pub fn numbers_beside_crowds(port: u16) -> String {
    use std::io::{Read as _, Write as _};
    let begun = tokio::time::Instant::now();
    loop {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let mut text = String::new();
        let asked = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        if asked.and_then(|()| stream.read_to_string(&mut text)).is_ok() && !text.is_empty() {
            return text;
        }
        assert!(begun.elapsed() < PATIENCE, "whoever asks for numbers is answered");
    }
}

impl Visitor {
    pub(super) async fn guesses_rights(&mut self, client: &mut Client) {
        let key = Keys::new();
        for _ in 0..50 {
            let subject = Subject::Mailbox(MailboxId::from_bytes(self.rng.random()), Right::Write);
            let answer = client.prove(subject, &key.write).await;
            assert_eq!(answer, ResponseBody::Refused(Refusal::NotAllowed));
        }
    }

    /// Its parts come, and are dropped.
    pub(super) async fn uploads_a_lie(&mut self, client: &mut Client) {
        client.prove_access(self.ticket.secret()).await;
        let hash = BlobHash::from_bytes(self.rng.random());
        for offset in [0, PART] {
            let put = BlobPut {
                hash,
                total: (2 * PART).try_into().unwrap(),
                offset: offset.try_into().unwrap(),
                bytes: ByteBuf::from(vec![7; PART]),
                access: Some(self.ticket.secret().public()),
            };
            let answer = client.ask(RequestBody::BlobPut(put)).await;
            assert_eq!(answer == ResponseBody::Refused(Refusal::Conflict), offset > 0, "{answer:?}");
        }
    }

    /// As many as the ticket pays for, which is used up soon; some with one part, some with several.
    pub(super) async fn leaves_uploads(&mut self, client: &mut Client) {
        client.prove_access(self.left.secret()).await;
        let mut puts = Vec::new();
        for (total, part, parts) in [(1 << 20, PART, 3), (17 << 10, 16 << 10, 1), (1 << 20, 16 << 10, 1)] {
            let hash = BlobHash::from_bytes(self.rng.random());
            puts.extend((0..parts).map(|at| BlobPut {
                hash,
                total,
                offset: (at * part).try_into().unwrap(),
                bytes: ByteBuf::from(vec![1; part]),
                access: Some(self.left.secret().public()),
            }));
        }
        for put in puts {
            let begins = put.offset == 0;
            match client.ask(RequestBody::BlobPut(put)).await {
                ResponseBody::BlobProgress(_) | ResponseBody::Refused(Refusal::NoAccess) => {}
                // Of what was not begun there is no second part.
                ResponseBody::Refused(Refusal::Conflict) if !begins => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Strangers with the beginning of a large frame on each stream that they may have.
    pub(super) async fn never_ends_frames(&self) {
        let mut crowd = Vec::new();
        for _ in 0..3 {
            let stranger = self.deaf().await;
            let mut streams = Vec::new();
            for _ in 0..15 {
                let Ok((mut requests, answers)) = stranger.connection.open_bi().await else { break };
                let mut begun = vec![0; 250 << 10];
                begun[..4].copy_from_slice(&(256u32 << 10).to_be_bytes());
                // As much as the relay lets it send.
                tokio::time::timeout(Duration::from_millis(20), requests.write_all(&begun)).await.ok();
                streams.push((requests, answers));
            }
            crowd.push((stranger, streams));
        }
        for (stranger, _) in &crowd {
            assert_eq!(ended(stranger).await, 2);
        }
    }

    pub(super) async fn never_ends_handshakes(&self) {
        let (hole, passing) = one_way(self.relay.socket()).await;
        let key = Arc::new(*self.relay.address.key());
        let mut flood = JoinSet::new();
        for _ in 0..40 {
            let key = Arc::clone(&key);
            flood.spawn(async move { Client::connect(hole, &key).await.is_ok() });
        }
        tokio::time::sleep(LINGER).await;
        flood.shutdown().await;
        drop(passing);
    }

    pub(super) async fn takes_all_seats(&self) {
        let (mut crowd, mut refused) = (Vec::new(), 0);
        for _ in 0..SEATS + 16 {
            let (provider, transport) = (aws_lc_rs::default_provider(), TransportConfig::default());
            let (relay, key) = (self.relay.socket(), self.relay.address.key());
            match Client::connect_from(self.crowd.into(), relay, key, ALPN, provider, transport).await {
                Ok(client) => crowd.push(client),
                Err(_) => refused += 1,
            }
        }
        assert!(!crowd.is_empty() && refused >= 16, "{} got in", crowd.len());
        for client in &crowd {
            client.connection.close(0u32.into(), b"");
        }
    }

    pub(super) async fn asks_and_takes_nothing(&self, client: &mut Client) {
        let keys = client.mailbox(self.ticket.secret(), MailboxKind::Log).await;
        stored(&client.append(keys.id(), vec![1; 64 << 10]).await);
        for _ in 0..64 {
            client.send(RequestBody::Read(read_one(&keys))).await.unwrap();
        }
        let mut second = self.client().await;
        second.prove_all(&keys).await;
        assert_eq!(second.ask(close(&keys)).await, ResponseBody::Done);
    }

    pub(super) async fn watches_and_takes_nothing(&self, client: &mut Client) {
        let keys = client.mailbox(self.ticket.secret(), MailboxKind::Log).await;
        let mut crowd = Vec::new();
        for _ in 0..4 {
            let mut deaf = self.deaf().await;
            prove(&mut deaf, Subject::Mailbox(keys.id(), Right::Read), &keys.read).await;
            let answer = deaf.ask(RequestBody::Subscribe(read_one(&keys))).await;
            assert!(matches!(answer, ResponseBody::Window(_)));
            crowd.push(deaf);
        }
        for number in 0..32u8 {
            stored(&client.append(keys.id(), vec![number; 64 << 10]).await);
        }
        for deaf in &crowd {
            assert_eq!(ended(deaf).await, 2);
        }
        assert_eq!(client.ask(close(&keys)).await, ResponseBody::Done);
    }

    pub(super) async fn takes_all_mailboxes(&self, client: &mut Client) {
        let all: Vec<Keys> = (0..GREEDY_MAILBOXES + 10).map(|_| Keys::new()).collect();
        client.prove_access(self.greedy.secret()).await;
        let bodies = creates(client, &all, &self.greedy);
        let answers = ask_all(client, bodies).await;
        assert_eq!(made(&answers), GREEDY_MAILBOXES);
        let mine: Vec<Keys> = all
            .into_iter()
            .zip(answers)
            .filter(|(_, is)| *is == ResponseBody::Done)
            .map(|(keys, _)| keys)
            .collect();
        let bodies = rights(client, &mine, prove_admin);
        done(&ask_all(client, bodies).await);
        done(&ask_all(client, mine.iter().map(close).collect()).await);
    }

    pub(super) async fn takes_all_anchors(&self, client: &mut Client) {
        client.prove_access(self.greedy.secret()).await;
        let (mut creates, mut removes) = (Vec::new(), Vec::new());
        for _ in 0..GREEDY_ANCHORS + 4 {
            let anchored = Anchored::new();
            prove(client, Subject::Anchor(anchored.owner.public()), &anchored.owner).await;
            let create = anchored.create(Some(self.greedy.secret()), None);
            creates.push(RequestBody::Anchor(AnchorRequest::Create(create)));
            let remove = RemoveAnchor { owner: anchored.owner.public() };
            removes.push(RequestBody::Anchor(AnchorRequest::Remove(remove)));
        }
        assert_eq!(made(&ask_all(client, creates).await), GREEDY_ANCHORS);
        done(&ask_all(client, removes).await);
    }

    pub(super) async fn takes_all_tripwires(&self, client: &mut Client) {
        client.prove_access(self.greedy.secret()).await;
        let access = Some(self.greedy.secret().public());
        let target = Keys::new();
        let (mut arms, mut disarms) = (Vec::new(), Vec::new());
        for _ in 0..60 {
            let plan = Plan::new();
            prove(client, Subject::Tripwire(plan.owner.public()), &plan.owner).await;
            let alert = Action::append(target.id(), envelope(1), &target.write);
            arms.push(RequestBody::Arm(plan.arm_with(access, 1, &[alert])));
            disarms.push(RequestBody::Disarm(Disarm { owner: plan.owner.public() }));
        }
        let armed = made(&ask_all(client, arms).await);
        assert!((20..60).contains(&armed), "{armed} of 60");
        done(&ask_all(client, disarms).await);
    }

    /// An anchor with a tripwire that its cover sets off: guessed at until it freezes, thawed, unlocked, removed.
    pub(super) async fn guesses_passphrases(&self, client: &mut Client) {
        let (plan, anchored) = (Plan::new(), Anchored::new());
        let alerts = client.mailbox(self.ticket.secret(), MailboxKind::Queue).await;
        prove(client, Subject::Tripwire(plan.owner.public()), &plan.owner).await;
        let alert = Action::append(alerts.id(), envelope(911), &alerts.write);
        let arm = plan.arm_with(Some(self.ticket.secret().public()), 1, &[alert]);
        assert_eq!(client.ask(RequestBody::Arm(arm)).await, ResponseBody::Done);
        prove(client, Subject::Anchor(anchored.owner.public()), &anchored.owner).await;
        let create = anchored.create(Some(self.ticket.secret()), Some(plan.duress.clone()));
        assert_eq!(client.anchor(AnchorRequest::Create(create)).await, ResponseBody::Done);
        let mut thief = self.client().await;
        thief.unlock(anchored.id(), REAL).await.unwrap();
        for guess in 0..MAX_FAILURES {
            let wrong = thief.unlock(anchored.id(), &[guess]).await;
            assert_eq!(wrong.unwrap_err(), Refusal::NotAllowed);
        }
        assert_eq!(thief.unlock(anchored.id(), REAL).await.unwrap_err(), Refusal::Frozen);
        prove(client, Subject::Thaw(anchored.kit.public()), &anchored.kit).await;
        let thaw = RaiseThaw { anchor: anchored.id(), key: anchored.kit.public() };
        assert_eq!(client.anchor(AnchorRequest::Thaw(thaw)).await, ResponseBody::Done);
        thief.unlock(anchored.id(), COVER).await.unwrap();
        assert_eq!(client.window(alerts.id(), 0).await.items.len(), 1);
        let remove = RemoveAnchor { owner: anchored.owner.public() };
        assert_eq!(client.anchor(AnchorRequest::Remove(remove)).await, ResponseBody::Done);
        assert_eq!(thief.evaluate(anchored.id(), REAL).await.unwrap_err(), Refusal::NotAllowed);
        let disarm = RequestBody::Disarm(Disarm { owner: plan.owner.public() });
        assert_eq!(client.ask(disarm).await, ResponseBody::Done);
        assert_eq!(client.ask(close(&alerts)).await, ResponseBody::Done);
    }

    pub(super) async fn crowds_the_numbers(&self) {
        let port = self.port;
        let told = spawn_blocking(move || {
            let crowd = crowd(|| {
                let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
                stream.set_nonblocking(true).unwrap();
                stream
            });
            let told = numbers_beside_crowds(port);
            drop(crowd);
            told
        });
        assert!(told.await.unwrap().starts_with("HTTP/1.1 200 OK\r\n"));
    }

    pub(super) async fn crowds_the_operator(&self) {
        let dir = self.dir.clone();
        let asked = spawn_blocking(move || {
            let socket: &Path = &dir.join("control.sock");
            let crowd = crowd(|| {
                let stream = UnixStream::connect(socket).unwrap();
                stream.set_nonblocking(true).unwrap();
                stream
            });
            let said = run_json(&dir, &["status"]);
            drop(crowd);
            said
        });
        assert_eq!(asked.await.unwrap()["is_full"], false);
    }
}
