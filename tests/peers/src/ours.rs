//! Lapwing's side: a compartment in a vault on a file, its own records, bodies sealed as the engine seals them.
//! What is written here by hand is read by the engine itself, so it cannot drift from it unseen.

use std::{ops::ControlFlow, path::Path, time::Duration};

use lapwing::{
    engine::{
        search::{self, Query},
        view::{self, Span},
    },
    store::{
        Base, BodyKeyRow, ChatId, ChatKind, ChatRow, ContactRow, ContactState, Counter, MailboxRow,
        MailboxState, MessageRow, MessageState, NameRow, Purpose, SettingsRow, Unit, VolumeBase, Writer,
    },
};
use lapwing_protocol::content::MessageId;
use lapwing_vault::{
    Container, ContainerSize, Cost, FileBackend, NONCE_LEN, Passphrase, Session, TAG_LEN, XChaCha,
};
use lapwing_wire::{
    address::{RelayAddress, RelayKey},
    frame::{MailboxKind, Seq},
    ids::{MailboxId, RunningHash, labelled_hash},
    time::Timestamp,
};
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use serde_bytes::ByteBuf;

use crate::corpus::{self, CHATS, Message};

/// What is derived is not measured.
pub const TINY: Cost = Cost { memory_kib: 8, passes: 1, lanes: 1 };
/// Opens every vault that is made here.
pub const PASSPHRASE: &str = "copper lantern seven rivers";

const BODY_LABEL: &[u8] = b"lapwing/1 message body";
const DAY_MS: u64 = 24 * 3600 * 1000;

/// The bench's compartment.
pub struct Ours {
    session: Option<Session>,
    base: VolumeBase,
    rng: ChaCha20Rng,
}

/// Opens as many pages and as many bodies as a search does, always the same ones: what the ciphers alone take, on one
/// processor, at least.
pub fn open_only(pages: u64, bodies: u64) {
    let (key, nonce) = ([7; 32], [9; NONCE_LEN]);
    let mut out = vec![0; 4096];
    for (count, len) in [(pages, 4096), (bodies, corpus::TEXT)] {
        let mut sealed = vec![5; len];
        let tag = XChaCha::new(&key).seal(&nonce, b"place", &mut sealed).unwrap();
        for _ in 0..count {
            assert!(XChaCha::new(&key).open(&nonce, b"place", &sealed, &tag, &mut out[..len]));
        }
    }
}

/// Copies a container into a larger one.
pub fn grow(session: &Session, path: &Path, size: u64) {
    let mut rng = ChaCha20Rng::from_os_rng();
    let (backend, size) = (FileBackend::create(path).unwrap(), ContainerSize::new(size).unwrap());
    session.copy_into(backend, size, &mut rng, &mut |_, _| {}).unwrap();
}

/// A chat as both sides show it in a list.
#[derive(Debug, PartialEq, Eq)]
pub struct Listed {
    pub name: String,
    pub unread: u64,
    pub last: u64,
}

/// The id of a chat.
pub fn chat_id(chat: u64) -> ChatId {
    let mut id = [0x5a; 16];
    id[..8].copy_from_slice(&chat.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    ChatId::from_bytes(id)
}

/// The name of a chat.
pub fn chat_name(chat: u64) -> String {
    format!("chat {chat:02}")
}

fn mailbox_id(chat: u64) -> MailboxId {
    MailboxId::from_bytes(labelled_hash(b"a mailbox of the bench", &[&chat.to_be_bytes()]))
}

impl Ours {
    /// A vault with an empty compartment that has the chats.
    pub fn create(path: &Path, size: u64, cost: Cost) -> Self {
        let mut rng = ChaCha20Rng::from_os_rng();
        let backend = FileBackend::create(path).unwrap();
        let size = ContainerSize::new(size).unwrap();
        let passphrase = Passphrase::new(PASSPHRASE);
        let session = Container::create(backend, size, &passphrase, cost, &mut rng, &mut |_, _| {}).unwrap();
        let volume = session.open_volume(session.volumes()[0], &mut rng).unwrap();
        let mut ours = Self { session: Some(session), base: VolumeBase::new(volume), rng };
        ours.found();
        ours
    }

    fn found(&mut self) {
        let relay = RelayAddress::new(RelayKey::of_spki(b"a relay"), "relay.example", 443).unwrap();
        let mut unit = Unit::new(&self.base);
        unit.put(&(), &SettingsRow { name: "main".to_owned(), leaving: false });
        for chat in 0..CHATS {
            let id = chat_id(chat);
            let created = Timestamp::from_millis(corpus::BEGIN_MS);
            let name = chat_name(chat);
            unit.put(&name, &NameRow { chat: id });
            let kind = ChatKind::Direct;
            unit.put(
                &id,
                &ChatRow {
                    name,
                    kind,
                    created,
                    blocked: false,
                    read_to: 0,
                    unread: 0,
                    waiting: 0,
                    last: None,
                },
            );
            unit.put(
                &id,
                &ContactRow {
                    state: ContactState::Established,
                    local: ByteBuf::from(vec![chat as u8; 700]),
                    session: Some(ByteBuf::from(corpus::session(0))),
                    route: Some(ByteBuf::from(vec![chat as u8; 250])),
                    inbox: Some(mailbox_id(chat)),
                    ticket_mailbox: None,
                    ticket: None,
                    verified: true,
                },
            );
            unit.put(
                &mailbox_id(chat),
                &MailboxRow {
                    relay: relay.clone(),
                    purpose: Purpose::Direct(id),
                    state: MailboxState::Open,
                    kind: MailboxKind::Queue,
                    admin: Some(ByteBuf::from(vec![1; 32])),
                    read: Some(ByteBuf::from(vec![2; 32])),
                    write: Some(ByteBuf::from(vec![3; 32])),
                    key: ByteBuf::from(vec![4; 32]),
                    cursor: Seq::START,
                    hash: None,
                    inconsistent: false,
                    closes: None,
                },
            );
        }
        self.base.commit(unit.into_changes()).unwrap();
    }

    /// Opens what [`Ours::create`] made: header, allocation units, volume, and the first record read from it.
    pub fn unlock(path: &Path) -> Self {
        let mut rng = ChaCha20Rng::from_os_rng();
        let locked = Container::open(FileBackend::open(path).unwrap()).unwrap();
        let passphrase = Passphrase::new(PASSPHRASE);
        let session = locked.unlock(&passphrase, TINY, &mut rng, Duration::from_secs(5)).unwrap();
        Self::open_in(session, rng)
    }

    fn open_in(session: Session, mut rng: ChaCha20Rng) -> Self {
        let volume = session.open_volume(session.volumes()[0], &mut rng).unwrap();
        let base = VolumeBase::new(volume);
        let named = view::name(&Unit::new(&base)).unwrap();
        assert_eq!(named.as_deref(), Some("main"));
        Self { session: Some(session), base, rng }
    }

    /// Closes the volume and keeps the session.
    pub fn close(self) -> Session {
        let Self { session, base, rng: _ } = self;
        drop(base);
        session.unwrap()
    }

    /// Opens the volume in its session.
    pub fn open(session: Session) -> Self {
        Self::open_in(session, ChaCha20Rng::from_os_rng())
    }

    fn stage(unit: &mut Unit<'_>, message: &Message, rng: &mut ChaCha20Rng) {
        let chat = chat_id(message.chat);
        let order = unit.next(Counter::Order).unwrap();
        assert_eq!(order, message.order);
        let place = (chat, message.time / DAY_MS);
        let mut keyed = unit.get::<BodyKeyRow>(&place).unwrap().unwrap_or_else(|| {
            let hash = labelled_hash(BODY_LABEL, &[&order.to_be_bytes()]);
            BodyKeyRow { name: hash[..16].try_into().unwrap(), bodies: 0, lost: Vec::new() }
        });
        keyed.bodies += 1;
        unit.put(&place, &keyed);
        let name = keyed.name;
        let key = unit.make_body_key(&name).unwrap();
        let mut nonce = [0; NONCE_LEN];
        rng.fill_bytes(&mut nonce);
        let aad = [BODY_LABEL, chat.as_bytes(), &order.to_be_bytes()].concat();
        let mut body = Vec::with_capacity(NONCE_LEN + message.text.len() + TAG_LEN);
        body.extend_from_slice(&nonce);
        body.extend_from_slice(message.text.as_bytes());
        let tag = XChaCha::new(&key).seal(&nonce, &aad, &mut body[NONCE_LEN..]).unwrap();
        body.extend_from_slice(&tag);
        let mut id = [0; 16];
        rng.fill_bytes(&mut id);
        let time = Timestamp::from_millis(message.time);
        unit.put(
            &(chat, order),
            &MessageRow {
                id: MessageId::from_bytes(id),
                writer: if message.own { Writer::Me } else { Writer::Peer },
                sent: time,
                stored: time,
                state: if message.own { MessageState::Sent } else { MessageState::Received },
                key: name,
                body: ByteBuf::from(body),
                lives: None,
            },
        );
        let mut row = unit.get::<ChatRow>(&chat).unwrap().unwrap();
        row.last = Some(time);
        row.unread += u64::from(!message.own);
        unit.put(&chat, &row);
    }

    /// One message as it is taken: its row, the chat's counters, the session, the cursor; one commit.
    pub fn commit_one(&mut self, message: &Message, session: &[u8]) {
        let mut unit = Unit::new(&self.base);
        Self::stage(&mut unit, message, &mut self.rng);
        let chat = chat_id(message.chat);
        let mut contact = unit.get::<ContactRow>(&chat).unwrap().unwrap();
        contact.session = Some(ByteBuf::from(session));
        unit.put(&chat, &contact);
        let mailbox = mailbox_id(message.chat);
        let mut cursor = unit.get::<MailboxRow>(&mailbox).unwrap().unwrap();
        cursor.cursor = cursor.cursor.next();
        cursor.hash = Some(RunningHash::from_bytes([message.order as u8; 32]));
        unit.put(&mailbox, &cursor);
        self.base.commit(unit.into_changes()).unwrap();
    }

    /// Many messages in one commit.
    pub fn commit_many(&mut self, messages: &[Message]) {
        let mut unit = Unit::new(&self.base);
        for message in messages {
            Self::stage(&mut unit, message, &mut self.rng);
        }
        self.base.commit(unit.into_changes()).unwrap();
    }

    /// The last messages of a chat, oldest first.
    pub fn last(&self, chat: u64, count: usize) -> Vec<(u64, String)> {
        let found = view::messages(&Unit::new(&self.base), &chat_id(chat), Span::Last(count)).unwrap();
        found.into_iter().map(|message| (message.order, message.text.unwrap().into_exposed())).collect()
    }

    /// The chats in the order of their names.
    pub fn chats(&self) -> Vec<Listed> {
        let chats = view::chats(&Unit::new(&self.base)).unwrap();
        let listed = |chat: view::ChatView| Listed {
            name: chat.name,
            unread: chat.unread as u64,
            last: chat.last.map_or(0, Timestamp::as_millis),
        };
        chats.into_iter().map(listed).collect()
    }

    /// The newest messages that hold `text`, newest first.
    pub fn search(&self, text: &str, last: usize) -> Vec<(u64, String)> {
        let query = Query::new(text).unwrap();
        let found = search::search(
            &self.base,
            &query,
            None,
            last,
            std::thread::available_parallelism().unwrap().get(),
        )
        .unwrap();
        found.into_iter().map(|hit| (hit.message.order, hit.message.text.unwrap().into_exposed())).collect()
    }

    /// Reads every record, and says how many bytes they have.
    pub fn read_all(&self) -> u64 {
        let mut bytes = 0;
        let mut add = |key: &[u8], value: &[u8]| {
            bytes += (key.len() + value.len()) as u64;
            ControlFlow::Continue(())
        };
        self.base.visit(&[], &[0xff; 64], false, &mut add).unwrap();
        bytes
    }

    /// Bytes in use of the volume, and the most that ordinary writing may use.
    pub fn space(&self) -> (u64, u64) {
        let usage = self.base.volume().usage().unwrap();
        (usage.used, usage.limit)
    }
}
