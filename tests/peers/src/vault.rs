//! The vault against SQLCipher: the same messages, arms in turns.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use lapwing_vault::Cost;
use rand_core::{OsRng, TryRngCore};

use crate::{
    corpus::{self, ABSENT, CHATS, Corpus, FREQUENT, RARE, RARE_IN},
    flush::{self, Flush},
    ours::{Ours, PASSPHRASE},
    rounds::{Rounds, Verdict, load, shown, timed},
    sqlcipher::{Journal, SqlCipher, write_random},
};

/// What the design requires of each operation against SQLCipher.
const MUST: f64 = 0.7;
/// Messages in one commit of a bulk insert.
const BATCH: usize = 1_000;
/// Hits that a search asks for.
const HITS: usize = 50;
/// A file in memory, and flushes that cost nothing.
const NO_FLUSH: &str = "no flush";
/// Longest that a search may take.
const SEARCH_MAX: Duration = Duration::from_millis(200);
/// Messages of a chat that are listed.
const LISTED: usize = 50;
/// Longest that formatting the default container may take.
const FORMAT_MAX: Duration = Duration::from_secs(2);
/// The default container, which is formatted.
const DEFAULT_SIZE: u64 = 256 << 20;

#[derive(Args)]
pub struct Options {
    /// Messages that both sides hold
    #[arg(long, default_value_t = 100_000)]
    messages: u64,
    /// Rounds, in each of which every arm has its turn
    #[arg(long, default_value_t = 7)]
    rounds: u64,
    /// Only operations whose name contains this
    #[arg(long, default_value = "")]
    only: String,
    /// Size of the container in MiB; the smallest whose regions hold 100,000 messages by default
    #[arg(long, default_value_t = 512)]
    mebibytes: u64,
    /// Folder on the disk
    #[arg(long, default_value = ".")]
    disk: PathBuf,
    /// Folder on a file system in memory
    #[arg(long, default_value = "/dev/shm")]
    memory: PathBuf,
}

struct Bench<'a> {
    options: &'a Options,
    corpus: Corpus,
    verdicts: Vec<Verdict>,
}

/// Runs all that is wanted. Fails if something that must hold does not.
pub fn run(options: &Options) -> ExitCode {
    let disk = tempfile::tempdir_in(&options.disk).unwrap();
    let memory = tempfile::tempdir_in(&options.memory).unwrap();
    println!("load {} at the beginning; {} rounds, {} messages", load(), options.rounds, options.messages);
    let mut bench = Bench { options, corpus: Corpus::new(options.messages), verdicts: Vec::new() };
    if bench.wants("format") {
        bench.formatting(disk.path());
    }
    bench.databases(memory.path(), disk.path());
    println!("\nload {} at the end", load());
    let missed: Vec<String> = bench.verdicts.into_iter().flat_map(|verdict| verdict.missed).collect();
    for missed in &missed {
        println!("MISSED {missed}");
    }
    if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A vault that the program itself opens.
pub fn populate(path: &Path, messages: u64, size: u64) {
    let corpus = Corpus::new(messages);
    let mut ours = Ours::create(path, size, Cost::FORMAT_1);
    for first in (1..=messages).step_by(BATCH) {
        ours.commit_many(&corpus.messages(first..(first + BATCH as u64).min(messages + 1)));
    }
    let (used, limit) = ours.space();
    println!("{messages} messages, {used} of {limit} bytes used; passphrase: {PASSPHRASE}");
    println!("in {RARE_IN} messages: {RARE}; in a third of them: {FREQUENT}; in none: {ABSENT}");
}

impl Bench<'_> {
    fn wants(&self, what: &str) -> bool {
        what.contains(&self.options.only)
    }

    fn finish(&mut self, rounds: &Rounds) {
        self.verdicts.push(rounds.print());
    }

    /// Formatting, on the real disk, beside writing as many random bytes.
    fn formatting(&mut self, disk: &Path) {
        let mut block = vec![0; 1 << 20];
        OsRng.try_fill_bytes(&mut block).unwrap();
        let mut rounds = Rounds::new("format 256 MiB, on the disk", None);
        let mut times = Vec::new();
        for _ in 0..self.options.rounds {
            let (vault, plain) = (disk.join("formatted"), disk.join("plain"));
            let (time, ours) = timed(|| Ours::create(&vault, DEFAULT_SIZE, Cost::FORMAT_1));
            drop(ours);
            assert_eq!(fs::metadata(&vault).unwrap().len(), DEFAULT_SIZE);
            rounds.add("lapwing, with one derivation", time);
            times.push(time.wall);
            fs::remove_file(&vault).unwrap();
            let (time, ()) = timed(|| write_random(&plain, DEFAULT_SIZE, &block));
            rounds.add("(a plain file of as many bytes, and a sync)", time);
            fs::remove_file(&plain).unwrap();
        }
        self.finish(&rounds);
        let mut rounds = Rounds::new("grow from 256 to 512 MiB, on the disk, read back and compared", None);
        for _ in 0..self.options.rounds.min(3) {
            let (vault, larger) = (disk.join("formatted"), disk.join("larger"));
            let session = Ours::create(&vault, DEFAULT_SIZE, crate::ours::TINY).close();
            rounds.add("lapwing", timed(|| crate::ours::grow(&session, &larger, 2 * DEFAULT_SIZE)).0);
            assert_eq!(fs::metadata(&larger).unwrap().len(), 2 * DEFAULT_SIZE);
            drop(session);
            [vault, larger].iter().for_each(|path| fs::remove_file(path).unwrap());
        }
        self.finish(&rounds);
        let time = crate::rounds::median(&times);
        if time > FORMAT_MAX {
            let missed = vec![format!("formatting: {}, must be under {FORMAT_MAX:?}", shown(time))];
            self.verdicts.push(Verdict { missed });
        }
    }

    fn databases(&mut self, memory: &Path, disk: &Path) {
        let none = Flush::Modelled(Duration::ZERO);
        none.set();
        let (vault, database) = (memory.join("vault"), memory.join("database"));
        let (ours, peer) = self.bulk(memory, &vault, &database);
        println!("\n{}", peer.version());
        let (used, limit) = ours.space();
        println!(
            "lapwing: {} bytes of records, {used} of {limit} bytes of the volume used; SQLCipher: {} bytes",
            ours.read_all(),
            fs::metadata(&database).unwrap().len()
        );
        drop((ours, peer));
        if self.wants("open") {
            self.opening(&vault, &database);
        }
        // As a command finds them.
        let (mut ours, mut peer) = (Ours::unlock(&vault), SqlCipher::open(&database, Journal::Wal));
        self.reading(&ours, &peer);
        let folders = [
            (NO_FLUSH, memory, none),
            ("flush of 0.1 ms", memory, Flush::Modelled(Duration::from_micros(100))),
            ("flush of 1 ms", memory, Flush::Modelled(Duration::from_millis(1))),
        ];
        let mut next = self.options.messages + 1;
        for (model, folder, flush) in folders {
            if self.wants("commit") {
                flush.set();
                next = self.committing(model, folder, &mut ours, &mut peer, next);
            }
        }
        drop((ours, peer));
        none.set();
        if self.wants("lock") {
            next = self.locking(&vault, next);
        }
        if self.wants("commit") {
            let (vault_there, database_there) = (disk.join("vault"), disk.join("database"));
            fs::copy(&vault, &vault_there).unwrap();
            fs::copy(&database, &database_there).unwrap();
            Flush::Real.set();
            let mut ours = Ours::unlock(&vault_there);
            let mut peer = SqlCipher::open(&database_there, Journal::Wal);
            self.committing("this disk", disk, &mut ours, &mut peer, next);
        }
    }

    /// Bulk inserts, each round into new files; the last ones stay for what follows.
    fn bulk(&mut self, memory: &Path, vault: &Path, database: &Path) -> (Ours, SqlCipher) {
        let mut rounds = Rounds::new(format!("bulk insert of all, {BATCH} in a commit"), Some(MUST));
        let count = if self.wants("bulk") { self.options.rounds } else { 1 };
        let mut last = None;
        let messages = self.corpus.messages(1..self.options.messages + 1);
        for _ in 0..count {
            drop(last.take());
            for entry in fs::read_dir(memory).unwrap() {
                fs::remove_file(entry.unwrap().path()).unwrap();
            }
            let mut ours = Ours::create(vault, self.options.mebibytes << 20, crate::ours::TINY);
            let before = flush::count();
            let (time, ()) = timed(|| messages.chunks(BATCH).for_each(|batch| ours.commit_many(batch)));
            let flushes = flush::count() - before;
            rounds.add(&format!("lapwing, {flushes} flushes"), time);
            let mut peer = SqlCipher::create(database, Journal::Wal);
            let before = flush::count();
            let mut own = 0;
            let (time, ()) = timed(|| {
                messages.chunks(BATCH).for_each(|batch| peer.commit_many(batch));
                peer.checkpoint();
                own = flush::count() - before;
                peer.make_up(before + flushes);
            });
            rounds.add(&format!("SQLCipher, WAL, {own} made up to as many"), time);
            last = Some((ours, peer));
        }
        if count > 1 {
            self.finish(&rounds);
        }
        last.unwrap()
    }

    /// Opening, beyond what is derived from the passphrase on both sides.
    fn opening(&mut self, vault: &Path, database: &Path) {
        let mut session = Ours::unlock(vault).close();
        let mut rounds = Rounds::new("open, and read the first record", Some(MUST));
        for _ in 0..self.options.rounds * 3 {
            let (time, opened) = timed(|| Ours::open(session));
            session = opened.close();
            rounds.add("lapwing, the volume", time);
            let (time, opened) = timed(|| SqlCipher::open(database, Journal::Wal));
            drop(opened);
            rounds.add("SQLCipher", time);
        }
        self.finish(&rounds);
        drop(session);
        // The header is written anew at every unlock, which nothing in the peer corresponds to but the flushes.
        let mut rounds = Rounds::new("unlock beyond the derivation, open, and read the first record", None);
        for _ in 0..self.options.rounds * 3 {
            let (time, opened) = timed(|| Ours::unlock(vault));
            rounds.add("lapwing", time);
            drop(opened);
        }
        self.finish(&rounds);
    }

    /// Closing a volume in which one message was taken since it was opened: what was replaced is overwritten.
    fn locking(&mut self, vault: &Path, mut next: u64) -> u64 {
        let mut rounds = Rounds::new("lock after one message: overwrite what was replaced", None);
        for _ in 0..self.options.rounds {
            let mut ours = Ours::unlock(vault);
            let message = self.corpus.message(next);
            ours.commit_one(&message, &corpus::session(next));
            next += 1;
            let before = flush::count();
            let (time, session) = timed(|| ours.close());
            rounds.add(&format!("lapwing, {} flushes, which cost nothing", flush::count() - before), time);
            drop(session);
        }
        self.finish(&rounds);
        next
    }

    fn reading(&mut self, ours: &Ours, peer: &SqlCipher) {
        if self.wants("list a chat") {
            let mut rounds =
                Rounds::new(format!("list a chat, the last {LISTED}: all {CHATS} chats"), Some(MUST));
            // Milliseconds each: a few of them say little.
            for _ in 0..self.options.rounds * 9 {
                let (time, own) =
                    timed(|| (0..CHATS).map(|chat| ours.last(chat, LISTED)).collect::<Vec<_>>());
                rounds.add("lapwing", time);
                let (time, other) =
                    timed(|| (0..CHATS).map(|chat| peer.last(chat, LISTED)).collect::<Vec<_>>());
                rounds.add("SQLCipher", time);
                assert_eq!(own, other);
                assert!(own.iter().all(|chat| chat.len() == LISTED));
            }
            self.finish(&rounds);
        }
        if self.wants("list the chats") {
            let mut rounds = Rounds::new(format!("list the chats with what is unread: {CHATS}"), Some(MUST));
            for _ in 0..self.options.rounds * 27 {
                let (time, own) = timed(|| ours.chats());
                rounds.add("lapwing", time);
                let (time, other) = timed(|| peer.chats());
                rounds.add("SQLCipher", time);
                assert_eq!(own, other);
            }
            self.finish(&rounds);
        }
        let count = self.options.messages;
        let every = usize::try_from(count).unwrap();
        let frequent = self.corpus.frequent_in();
        for (what, text, hits, holds, must) in [
            ("a rare word", RARE, HITS, RARE_IN, Some(MUST)),
            ("an absent word", ABSENT, HITS, 0, Some(MUST)),
            ("a frequent word, every hit", FREQUENT, every, frequent, Some(MUST)),
            // The peer has its rows in the order of time and stops at once; ours are in the order of chats.
            ("a frequent word, the newest 50 hits", FREQUENT, HITS, frequent, None),
        ] {
            if !self.wants("search") {
                continue;
            }
            let mut rounds = Rounds::new(format!("search {count} for {what}"), must);
            let mut times = Vec::new();
            for _ in 0..self.options.rounds {
                let (time, own) = timed(|| ours.search(&text.to_uppercase(), hits));
                rounds.add("lapwing", time);
                times.push(time.wall);
                let (time, other) = timed(|| peer.search(&text.to_uppercase(), hits));
                rounds.add("SQLCipher, LIKE", time);
                if holds == 0 {
                    let (used, _) = ours.space();
                    let (time, ()) = timed(|| crate::ours::open_only(used / 4096, count));
                    rounds.add("(lapwing's ciphers alone, one processor)", time);
                }
                assert_eq!(own, other);
                assert_eq!(own.len() as u64, holds.min(hits as u64));
            }
            self.finish(&rounds);
            let time = crate::rounds::median(&times);
            if hits == HITS && time > SEARCH_MAX {
                let missed =
                    vec![format!("search for {what}: {}, must be under {SEARCH_MAX:?}", shown(time))];
                self.verdicts.push(Verdict { missed });
            }
        }
    }

    /// Commits of one message each. Answers the next free place.
    fn committing(
        &mut self,
        model: &str,
        folder: &Path,
        ours: &mut Ours,
        peer: &mut SqlCipher,
        first: u64,
    ) -> u64 {
        const COMMITS: u64 = 100;
        let rollback = folder.join("rollback");
        let mut other = SqlCipher::create(&rollback, Journal::Rollback);
        self.fill_to(&mut other, first);
        let what = format!("commit one message, its session and its cursor: {COMMITS} times; {model}");
        // Nobody's disk flushes in no time: those figures are shown, and nothing is asked of them.
        let mut rounds = Rounds::new(what, (model != NO_FLUSH).then_some(MUST));
        let mut next = first;
        // The first round is not counted: it makes the keys of the day, and is what an opened volume writes first.
        for round in 0..=self.options.rounds * 3 {
            let messages = self.corpus.messages(next..next + COMMITS);
            let sessions: Vec<_> = messages.iter().map(|message| corpus::session(message.order)).collect();
            let taken = || messages.iter().zip(&sessions);
            next += COMMITS;

            let before = flush::count();
            let (own, ()) =
                timed(|| taken().for_each(|(message, session)| ours.commit_one(message, session)));
            let flushes = (flush::count() - before) / COMMITS;
            let (wal, ()) =
                timed(|| taken().for_each(|(message, session)| peer.commit_one(message, session, flushes)));
            let before = flush::count();
            let (rollback, ()) =
                timed(|| taken().for_each(|(message, session)| other.commit_one(message, session, 0)));
            let theirs = (flush::count() - before) / COMMITS;
            if round > 0 {
                rounds.add(&format!("lapwing, {flushes} flushes each"), own);
                rounds.add("SQLCipher, WAL, made up to as many flushes", wal);
                rounds.add(&format!("(SQLCipher, rollback journal, {theirs} flushes each)"), rollback);
            }

            let chat = messages.last().unwrap().chat;
            let text = &messages.last().unwrap().text;
            assert_eq!(&ours.last(chat, 1)[0].1, text);
            assert_eq!(&peer.last(chat, 1)[0].1, text);
            assert_eq!(&other.last(chat, 1)[0].1, text);
        }
        self.finish(&rounds);
        drop(other);
        fs::remove_file(rollback).unwrap();
        next
    }

    fn fill_to(&self, peer: &mut SqlCipher, end: u64) {
        self.corpus.messages(1..end).chunks(BATCH).for_each(|batch| peer.commit_many(batch));
    }
}
