//! Looking for a text in all messages of a compartment.
//!
//! There is no index: it would keep words of messages that are erased. Every text is opened with the key of its chat and
//! day and looked at, several chats and stretches of time at once. What bounds the work: a message older than all of the
//! hits that are wanted is not opened. What bounds the memory: one opened text for each worker, and the hits.

mod fold;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, btree_map::Entry},
    ops::ControlFlow,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use memchr::memmem::Finder;
use zeroize::Zeroizing;

use self::fold::fold;
use super::{
    Fault, bodies, files, group,
    view::{self, MessageView},
};
use crate::store::{
    Base, BodyKeyName, ChatId, ChatKind, ChatRow, Counter, MessageRow, Order, Row, SealedText, StoreError,
    Unit,
};

/// Parts of the time that one chat is cut into at most: the newest stretch is one of them.
const PARTS: u64 = 512;

/// Parts in the longest stretch, so that a single long chat keeps all workers busy to the end.
const LONGEST: u64 = 32;

/// Pieces of work in all, about: beginning one costs a descent into the database.
const PIECES: u64 = 1_024;

/// Bytes of an opened text that fit without moving it.
const USUAL_TEXT: usize = 4 << 10;

/// What is looked for. Letters match whatever their case and however they are composed (Unicode's full case folding and
/// normalisation form C); nothing else is taken for equal.
pub struct Query {
    finder: Finder<'static>,
    is_ascii: bool,
}

impl Query {
    /// A text to look for, without the white space around it. `None` where nothing is left.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        let mut folded = Zeroizing::new(String::new());
        fold(text, &mut folded);
        let finder = Finder::new(folded.as_bytes()).into_owned();
        (!text.is_empty()).then(|| Self { finder, is_ascii: folded.is_ascii() })
    }

    /// Whether `text` contains it; `scratch` is left with the folded text.
    fn is_in(&self, text: &str, scratch: &mut Zeroizing<String>) -> bool {
        // What is folded from ASCII is ASCII.
        if !self.is_ascii && text.is_ascii() {
            return false;
        }
        fold(text, scratch);
        self.finder.find(scratch.as_bytes()).is_some()
    }
}

impl std::fmt::Debug for Query {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Query(..)")
    }
}

/// A message that was found.
#[derive(Debug)]
pub struct Hit {
    /// Its chat.
    pub chat: ChatId,
    /// Name of the chat.
    pub name: String,
    /// The message.
    pub message: MessageView,
}

/// The newest `last` messages that contain `query`, newest first, of one chat or of all. `workers` threads look.
///
/// # Errors
/// [`Fault::Store`], [`Fault::UnknownChat`].
pub fn search(
    base: &(dyn Base + Sync),
    query: &Query,
    chat: Option<&ChatId>,
    last: usize,
    workers: usize,
) -> Result<Vec<Hit>, Fault> {
    let mut unit = Unit::new(base);
    let mut chats = match chat {
        Some(chat) => vec![(*chat, unit.get::<ChatRow>(chat)?.ok_or(Fault::UnknownChat)?)],
        None => unit.scan::<ChatRow>(&[])?,
    };
    // Where something was written last, the newest hits are found first, and older ones need not be opened.
    chats.sort_by_key(|(_, row)| Reverse(row.last));
    // Nothing of this unit is committed: the counter stays as it is.
    let newest = unit.next(Counter::Order)?;
    let hits = Hits::new(last);
    let work = Work::new(chats.iter().map(|(chat, _)| *chat).collect(), newest);
    let failed = AtomicBool::new(last == 0);
    let look = || {
        let mut worker = Worker::new(base, query, &hits);
        while let Some(piece) = work.next().filter(|_| !failed.load(Relaxed)) {
            if let Err(error) = worker.look(&piece) {
                failed.store(true, Relaxed);
                return Err(error);
            }
        }
        Ok(())
    };
    let looked: Vec<Result<(), StoreError>> = thread::scope(|scope| {
        let others: Vec<_> = (1..workers.min(work.len())).map(|_| scope.spawn(look)).collect();
        let own = look();
        let ended = |other: thread::ScopedJoinHandle<'_, _>| {
            other.join().unwrap_or_else(|_| Err(StoreError::Vault("a search ended early".to_owned())))
        };
        std::iter::once(own).chain(others.into_iter().map(ended)).collect()
    });
    looked.into_iter().collect::<Result<(), _>>()?;
    shown(&unit, &chats.into_iter().collect(), hits.into_newest_first())
}

/// What is shown of the hits.
fn shown(
    unit: &Unit<'_>,
    chats: &BTreeMap<ChatId, ChatRow>,
    hits: impl Iterator<Item = (Order, Found)>,
) -> Result<Vec<Hit>, Fault> {
    let mut members: BTreeMap<ChatId, group::Names> = BTreeMap::new();
    let mut out = Vec::new();
    for (order, found) in hits {
        let Some(chat) = chats.get(&found.chat) else { continue };
        let names = match members.entry(found.chat) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) if chat.kind == ChatKind::Group => {
                new.insert(group::Names::of(unit, &found.chat)?)
            }
            Entry::Vacant(new) => new.insert(group::Names::default()),
        };
        let mut message = view::message(names, order, &found.row, Some(found.text.to_string()));
        message.until = view::until(unit, &found.chat, order, &found.row)?;
        message.file = files::look(unit, (found.chat, order), &found.row)?;
        out.push(Hit { chat: found.chat, name: chat.name.clone(), message });
    }
    Ok(out)
}

/// Messages of one chat, from an order on and before another.
struct Piece {
    chat: ChatId,
    from: Order,
    before: Order,
}

/// All there is to look at, cut into pieces, the newest first. The newest stretch is short, because most searches want
/// few hits, and each before it twice as long, because beginning one is not free.
struct Work {
    chats: Vec<ChatId>,
    /// Where stretches begin and end, the newest first: the end of all, and the beginning of each.
    bounds: Vec<Order>,
    taken: AtomicUsize,
}

impl Work {
    /// `end` is above every order.
    fn new(chats: Vec<ChatId>, end: Order) -> Self {
        let most = (PIECES / u64::try_from(chats.len()).unwrap_or(u64::MAX).max(1)).max(1);
        let part = end / PARTS + 1;
        let mut bounds = vec![end.saturating_add(1)];
        let (mut before, mut width) = (end.saturating_add(1), part);
        while before > 0 {
            let last = u64::try_from(bounds.len()).unwrap_or(u64::MAX) >= most;
            before = if last { 0 } else { before.saturating_sub(width) };
            bounds.push(before);
            width = width.saturating_mul(2).min(part.saturating_mul(LONGEST));
        }
        Self { chats, bounds, taken: AtomicUsize::new(0) }
    }

    fn len(&self) -> usize {
        self.chats.len().saturating_mul(self.bounds.len().saturating_sub(1))
    }

    fn next(&self) -> Option<Piece> {
        let taken = self.taken.fetch_add(1, Relaxed);
        let chat = *self.chats.get(taken.checked_rem(self.chats.len())?)?;
        let stretch = taken / self.chats.len();
        let (before, from) = (*self.bounds.get(stretch)?, *self.bounds.get(stretch + 1)?);
        Some(Piece { chat, from, before })
    }
}

struct Found {
    chat: ChatId,
    row: MessageRow,
    text: Zeroizing<String>,
}

/// The newest hits so far, of all workers.
struct Hits {
    wanted: usize,
    found: Mutex<BTreeMap<Order, Found>>,
    /// Once there are enough: the oldest of them. What is older is of no use.
    oldest: AtomicU64,
}

impl Hits {
    fn new(wanted: usize) -> Self {
        Self { wanted, found: Mutex::new(BTreeMap::new()), oldest: AtomicU64::new(0) }
    }

    fn found(&self) -> MutexGuard<'_, BTreeMap<Order, Found>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn are_newer_than(&self, order: Order) -> bool {
        order < self.oldest.load(Relaxed)
    }

    fn add(&self, order: Order, hit: Found) {
        let mut found = self.found();
        found.insert(order, hit);
        if found.len() > self.wanted {
            found.pop_first();
        }
        if let Some((oldest, _)) = found.first_key_value().filter(|_| found.len() == self.wanted) {
            self.oldest.store(*oldest, Relaxed);
        }
    }

    fn into_newest_first(self) -> impl Iterator<Item = (Order, Found)> {
        self.found.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().rev()
    }
}

/// One of the threads that look.
struct Worker<'a> {
    base: &'a (dyn Base + Sync),
    query: &'a Query,
    hits: &'a Hits,
    /// The key that the message before was sealed with: as a rule the next one's too.
    key: Option<(BodyKeyName, Option<Zeroizing<[u8; 32]>>)>,
    text: Zeroizing<Vec<u8>>,
    folded: Zeroizing<String>,
}

impl<'a> Worker<'a> {
    fn new(base: &'a (dyn Base + Sync), query: &'a Query, hits: &'a Hits) -> Self {
        let text = Zeroizing::new(Vec::with_capacity(USUAL_TEXT));
        let folded = Zeroizing::new(String::with_capacity(USUAL_TEXT));
        Self { base, query, hits, key: None, text, folded }
    }

    fn look(&mut self, piece: &Piece) -> Result<(), StoreError> {
        let key_of =
            |order| [&[MessageRow::TABLE], MessageRow::key_bytes(&(piece.chat, order)).as_slice()].concat();
        if self.hits.are_newer_than(piece.before - 1) {
            return Ok(());
        }
        let (base, mut failed) = (self.base, None);
        base.visit(&key_of(piece.from), &key_of(piece.before), true, &mut |key, value| {
            let Some((_, order)) = key.get(1..).and_then(MessageRow::key_from) else {
                failed = Some(StoreError::Record);
                return ControlFlow::Break(());
            };
            if self.hits.are_newer_than(order) {
                return ControlFlow::Break(());
            }
            match self.look_at(&piece.chat, order, value) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        failed.map_or(Ok(()), Err)
    }

    fn look_at(&mut self, chat: &ChatId, order: Order, record: &[u8]) -> Result<(), StoreError> {
        let SealedText { key: name, body } = MessageRow::sealed(record).ok_or(StoreError::Record)?;
        if self.key.as_ref().is_none_or(|(known, _)| *known != name) {
            self.key = Some((name, self.base.body_key(&name)?));
        }
        let Some((_, Some(key))) = &self.key else { return Ok(()) };
        if !bodies::open_into(key, chat, order, body, &mut self.text) {
            return Ok(());
        }
        let Ok(text) = std::str::from_utf8(&self.text) else { return Ok(()) };
        if self.query.is_in(text, &mut self.folded) {
            let row = Unit::read(record)?;
            self.hits.add(order, Found { chat: *chat, row, text: Zeroizing::new(text.to_owned()) });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
