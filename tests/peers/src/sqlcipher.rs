//! SQLCipher's side: the same messages, session records and cursors in tables as one would make them.

use std::{fs::File, io::Write as _, os::unix::fs::FileExt as _, path::Path};

use rusqlite::{Connection, params};

use crate::{
    corpus::{self, CHATS, Message},
    flush,
    ours::{Listed, chat_name},
};

/// How SQLite makes commits durable; `synchronous` is `FULL` in all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Journal {
    /// The write-ahead log: one flush a commit.
    Wal,
    /// The rollback journal, SQLite's default: four flushes a commit, three without the folder's.
    Rollback,
}

/// An open database.
pub struct SqlCipher {
    connection: Connection,
    /// Where flushes are made up for, so that a commit has as many as ours.
    side: File,
}

/// A raw key: nothing is derived from it, as nothing is measured of the other side's derivation.
const KEY: &str = "PRAGMA key = \"x'2dd29ca851e7b56e4697b0e1f08507293d761a05ce4d1b628663f411a8086d99'\"";

impl SqlCipher {
    /// A database with the chats.
    pub fn create(path: &Path, journal: Journal) -> Self {
        let peer = Self::connect(path, journal);
        let schema = "
            CREATE TABLE chats(id INTEGER PRIMARY KEY, name TEXT NOT NULL, unread INTEGER NOT NULL, last INTEGER);
            CREATE TABLE contacts(chat INTEGER PRIMARY KEY, state INTEGER NOT NULL, verified INTEGER NOT NULL,
                local BLOB NOT NULL, route BLOB, session BLOB);
            CREATE TABLE mailboxes(id BLOB PRIMARY KEY, chat INTEGER NOT NULL, keys BLOB NOT NULL,
                cursor INTEGER NOT NULL, hash BLOB) WITHOUT ROWID;
            CREATE TABLE messages(id INTEGER PRIMARY KEY, chat INTEGER NOT NULL, mid BLOB NOT NULL,
                own INTEGER NOT NULL, sent INTEGER NOT NULL, stored INTEGER NOT NULL, state INTEGER NOT NULL,
                text TEXT NOT NULL);
            CREATE INDEX messages_of_chat ON messages(chat, id);";
        peer.connection.execute_batch(schema).unwrap();
        peer.connection.execute_batch("BEGIN").unwrap();
        for chat in 0..CHATS {
            let name = chat_name(chat);
            peer.connection.execute("INSERT INTO chats VALUES(?, ?, 0, 0)", params![chat, name]).unwrap();
            let (local, route) = (vec![1u8; 700], vec![1u8; 250]);
            let contact = "INSERT INTO contacts VALUES(?, 3, 1, ?, ?, ?)";
            peer.connection.execute(contact, params![chat, local, route, corpus::session(0)]).unwrap();
            let mailbox = "INSERT INTO mailboxes VALUES(?, ?, ?, 0, NULL)";
            peer.connection.execute(mailbox, params![mailbox_id(chat), chat, vec![3u8; 300]]).unwrap();
        }
        peer.connection.execute_batch("COMMIT").unwrap();
        peer
    }

    /// Opens a database and reads the first row from it.
    pub fn open(path: &Path, journal: Journal) -> Self {
        let peer = Self::connect(path, journal);
        let first: String =
            peer.connection.query_row("SELECT name FROM chats WHERE id = 0", [], |row| row.get(0)).unwrap();
        assert_eq!(first, chat_name(0));
        peer
    }

    fn connect(path: &Path, journal: Journal) -> Self {
        let connection = Connection::open(path).unwrap();
        connection.execute_batch(KEY).unwrap();
        let mode = match journal {
            Journal::Wal => "WAL",
            Journal::Rollback => "DELETE",
        };
        let set: String =
            connection.query_row(&format!("PRAGMA journal_mode = {mode}"), [], |row| row.get(0)).unwrap();
        assert!(set.eq_ignore_ascii_case(mode));
        connection.execute_batch("PRAGMA synchronous = FULL").unwrap();
        let side = File::create(path.with_extension("side")).unwrap();
        Self { connection, side }
    }

    /// What it is: the version of the library, and of its cipher.
    pub fn version(&self) -> String {
        let version: String =
            self.connection.query_row("PRAGMA cipher_version", [], |row| row.get(0)).unwrap();
        let provider: String =
            self.connection.query_row("PRAGMA cipher_provider_version", [], |row| row.get(0)).unwrap();
        format!("SQLCipher {version}, SQLite {}, {provider}", rusqlite::version())
    }

    fn insert(&self, message: &Message) {
        let Message { order, chat, time, own, text } = message;
        let mid = [*order as u8; 16];
        let mut insert =
            self.connection.prepare_cached("INSERT INTO messages VALUES(?, ?, ?, ?, ?, ?, 1, ?)").unwrap();
        insert.execute(params![order, chat, mid, own, time, time, text]).unwrap();
        let mut update = self
            .connection
            .prepare_cached("UPDATE chats SET unread = unread + ?, last = ? WHERE id = ?")
            .unwrap();
        assert_eq!(update.execute(params![u64::from(!own), time, chat]).unwrap(), 1);
    }

    /// One message as it is taken; `flushes` are made up for, if the commit has fewer.
    pub fn commit_one(&mut self, message: &Message, session: &[u8], flushes: u64) {
        let before = flush::count();
        self.connection.prepare_cached("BEGIN IMMEDIATE").unwrap().execute([]).unwrap();
        self.insert(message);
        let mut record =
            self.connection.prepare_cached("UPDATE contacts SET session = ? WHERE chat = ?").unwrap();
        assert_eq!(record.execute(params![session, message.chat]).unwrap(), 1);
        let mut cursor = self
            .connection
            .prepare_cached("UPDATE mailboxes SET cursor = cursor + 1, hash = ? WHERE id = ?")
            .unwrap();
        let hash = [message.order as u8; 32];
        assert_eq!(cursor.execute(params![hash, mailbox_id(message.chat)]).unwrap(), 1);
        self.connection.prepare_cached("COMMIT").unwrap().execute([]).unwrap();
        self.make_up(before + flushes);
    }

    /// Flushes until there were as many in all as `until` says: a block of a file of its own each.
    pub fn make_up(&self, until: u64) {
        while flush::count() < until {
            self.side.write_all_at(&[0xa5; 4152], 0).unwrap();
            self.side.sync_data().unwrap();
        }
    }

    /// Many messages in one commit.
    pub fn commit_many(&mut self, messages: &[Message]) {
        self.connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        for message in messages {
            self.insert(message);
        }
        self.connection.execute_batch("COMMIT").unwrap();
    }

    /// The last messages of a chat, oldest first.
    pub fn last(&self, chat: u64, count: usize) -> Vec<(u64, String)> {
        let query = "SELECT id, mid, own, sent, stored, state, text FROM messages WHERE chat = ? ORDER BY id DESC LIMIT ?";
        let mut query = self.connection.prepare_cached(query).unwrap();
        let rows = query
            .query_map(params![chat, count as u64], |row| {
                let (_, _, _, _): ([u8; 16], bool, u64, u64) =
                    (row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?);
                Ok((row.get(0)?, row.get(6)?))
            })
            .unwrap();
        let mut found: Vec<(u64, String)> = rows.map(Result::unwrap).collect();
        found.reverse();
        found
    }

    /// The chats in the order of their names.
    pub fn chats(&self) -> Vec<Listed> {
        let query = "SELECT name, unread, last, state, verified FROM chats JOIN contacts ON contacts.chat = chats.id ORDER BY name";
        let mut query = self.connection.prepare_cached(query).unwrap();
        let rows = query
            .query_map([], |row| {
                let (_, _): (u64, bool) = (row.get(3)?, row.get(4)?);
                Ok(Listed { name: row.get(0)?, unread: row.get(1)?, last: row.get(2)? })
            })
            .unwrap();
        rows.map(Result::unwrap).collect()
    }

    /// The newest messages that hold `text`, newest first: a scan with `LIKE`, which takes no account of case in ASCII.
    pub fn search(&self, text: &str, last: usize) -> Vec<(u64, String)> {
        let query = "SELECT id, chat, own, sent, text FROM messages WHERE text LIKE '%' || ? || '%' ORDER BY id DESC LIMIT ?";
        let mut query = self.connection.prepare_cached(query).unwrap();
        let rows = query
            .query_map(params![text, last as u64], |row| {
                let (_, _, _): (u64, bool, u64) = (row.get(1)?, row.get(2)?, row.get(3)?);
                Ok((row.get(0)?, row.get(4)?))
            })
            .unwrap();
        rows.map(Result::unwrap).collect()
    }

    /// Folds the write-ahead log into the database.
    pub fn checkpoint(&self) {
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    }
}

fn mailbox_id(chat: u64) -> Vec<u8> {
    let mut id = vec![0x6b; 32];
    id[..8].copy_from_slice(&chat.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    id
}

/// A plain file that is written and flushed: the floor.
pub fn write_random(path: &Path, bytes: u64, block: &[u8]) {
    let mut file = File::create(path).unwrap();
    let mut left = bytes;
    while left > 0 {
        let now = left.min(block.len() as u64);
        file.write_all(&block[..now as usize]).unwrap();
        left -= now;
    }
    file.sync_all().unwrap();
}
