//! Texts at rest: sealed under a key of their chat and day, which dies with the last of them.
//!
//! ```text
//! body = nonce 24 | XChaCha20-Poly1305(key, text), associated data: label, chat, number
//! what names and opens a file is sealed likewise, under the key of its message and another label
//! ```
//!
//! Invariants: ERA-01 a key is doomed in the commit that removes the last body under it, and destroyed right after;
//! ERA-02 the name of a key is never used again, so a destruction that comes late hits nothing that is alive. The name is
//! the hash of the number of the first body, which no later commit gets again; a unit of work that was dropped leaves its
//! key to the next one.
//! Where a key does not open any more (VLT-64), the day goes on under another name; all names of a day are doomed together,
//! and what lies under the first opens again if its key does. So no name is ever drawn twice, and one that is in no part of
//! the table of keys that opens may lie in one that does not.
//! Known gap: where the table of keys has no room, bodies lie under a key of all chats, which dies with the last of all of
//! them; what erases them until then is the scrubbing of the volume alone.

use lapwing_vault::{NONCE_LEN, TAG_LEN, XChaCha};
use lapwing_wire::{ids::labelled_hash, time::Timestamp};
use serde_bytes::{ByteArray, ByteBuf};
use zeroize::Zeroizing;

use super::{Cx, Fault};
use crate::{
    labels::{MESSAGE_BODY as LABEL, MESSAGE_FILE as FILE_LABEL},
    store::{BodyKeyName, BodyKeyRow, ChatId, DoomedKeyRow, Order, SpareKeyRow, StoreError, Unit},
};

const DAY_MS: u64 = 24 * 3600 * 1000;

/// Tells the name of the key of all chats from that of a day.
const SPARE: &[u8] = b"spare";

/// A sealed text, and the name of its key.
pub(super) struct Sealed {
    pub(super) key: BodyKeyName,
    pub(super) body: ByteBuf,
}

const fn day_of(stored: Timestamp) -> u64 {
    stored.as_millis() / DAY_MS
}

fn name_of(parts: &[&[u8]]) -> BodyKeyName {
    let mut name = [0; 16];
    name.copy_from_slice(&labelled_hash(LABEL, parts)[..16]);
    name
}

/// What a body is bound to: label, chat, number.
fn associated(chat: &ChatId, number: Order) -> [u8; LABEL.len() + 16 + 8] {
    let mut data = [0; LABEL.len() + 16 + 8];
    let (label, place) = data.split_at_mut(LABEL.len());
    label.copy_from_slice(LABEL);
    let (of, at) = place.split_at_mut(16);
    of.copy_from_slice(chat.as_bytes());
    at.copy_from_slice(&number.to_be_bytes());
    data
}

/// The key for a body of today. The table of a volume holds some thousand keys; a message that cannot have one of its own
/// day is worth more than none.
fn key_of_today(
    cx: &mut Cx<'_, '_, '_>,
    chat: ChatId,
    number: Order,
) -> Result<(BodyKeyName, Zeroizing<[u8; 32]>), Fault> {
    let place = (chat, day_of(cx.now));
    let known = cx.unit.get::<BodyKeyRow>(&place)?;
    if known.is_none() {
        keep_spare(cx, number)?;
    }
    let fresh = name_of(&[&number.to_be_bytes()]);
    let mut row = known.unwrap_or_else(|| BodyKeyRow { name: fresh, bodies: 0, lost: Vec::new() });
    if row.bodies > 0 && cx.unit.body_key(&row.name)?.is_none() {
        row.lost.push(ByteArray::new(std::mem::replace(&mut row.name, fresh)));
    }
    match cx.unit.make_body_key(&row.name) {
        Ok(key) => {
            row.bodies = row.bodies.saturating_add(1);
            cx.unit.put(&place, &row);
            Ok((row.name, key))
        }
        Err(StoreError::Full) => spare_key(cx, number),
        Err(error) => Err(error.into()),
    }
}

/// Sees that there is a key for the day on which the table has no room. It is made before that of the day.
fn keep_spare(cx: &mut Cx<'_, '_, '_>, number: Order) -> Result<(), Fault> {
    if cx.unit.get::<SpareKeyRow>(&())?.is_some() {
        return Ok(());
    }
    let name = name_of(&[&number.to_be_bytes(), SPARE]);
    match cx.unit.make_body_key(&name) {
        Ok(_) => cx.unit.put(&(), &SpareKeyRow { name, bodies: 0, lost: Vec::new() }),
        // The last one died, and something else has taken its room: today's key is there, or nothing can be stored.
        Err(StoreError::Full) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

fn spare_key(cx: &mut Cx<'_, '_, '_>, number: Order) -> Result<(BodyKeyName, Zeroizing<[u8; 32]>), Fault> {
    let mut row = cx.unit.get::<SpareKeyRow>(&())?.ok_or(StoreError::Full)?;
    if cx.unit.body_key(&row.name)?.is_none() {
        let fresh = name_of(&[&number.to_be_bytes(), SPARE]);
        row.lost.push(ByteArray::new(std::mem::replace(&mut row.name, fresh)));
    }
    let key = cx.unit.make_body_key(&row.name)?;
    row.bodies = row.bodies.saturating_add(1);
    cx.unit.put(&(), &row);
    Ok((row.name, key))
}

/// Seals a text that is stored now. `number` binds it to its record, and is used once.
pub(super) fn seal(
    cx: &mut Cx<'_, '_, '_>,
    chat: ChatId,
    number: Order,
    text: &str,
) -> Result<Sealed, Fault> {
    let (key, secret) = key_of_today(cx, chat, number)?;
    let nonce: [u8; NONCE_LEN] = cx.random();
    let mut body = Vec::with_capacity(NONCE_LEN + text.len() + TAG_LEN);
    body.extend_from_slice(&nonce);
    body.extend_from_slice(text.as_bytes());
    let tag = body
        .get_mut(NONCE_LEN..)
        .and_then(|sealed| XChaCha::new(&secret).seal(&nonce, &associated(&chat, number), sealed))
        .ok_or(Fault::Inconsistent("a text cannot be sealed"))?;
    body.extend_from_slice(&tag);
    Ok(Sealed { key, body: ByteBuf::from(body) })
}

/// Seals what names and opens the file of a message, under the message's key.
pub(super) fn seal_file(
    cx: &mut Cx<'_, '_, '_>,
    chat: ChatId,
    number: Order,
    key: &BodyKeyName,
    reference: &[u8],
) -> Result<ByteBuf, Fault> {
    let secret = cx.unit.body_key(key)?.ok_or(Fault::Inconsistent("a message has no key"))?;
    let nonce: [u8; NONCE_LEN] = cx.random();
    let mut body = Vec::with_capacity(NONCE_LEN + reference.len() + TAG_LEN);
    body.extend_from_slice(&nonce);
    body.extend_from_slice(reference);
    let tag = body
        .get_mut(NONCE_LEN..)
        .and_then(|sealed| XChaCha::new(&secret).seal(&nonce, &of_file(&chat, number), sealed))
        .ok_or(Fault::Inconsistent("what names a file cannot be sealed"))?;
    body.extend_from_slice(&tag);
    Ok(ByteBuf::from(body))
}

/// Opens what [`seal_file`] sealed. `None` if its key is gone.
pub(super) fn open_file(
    unit: &Unit<'_>,
    chat: &ChatId,
    number: Order,
    key: &BodyKeyName,
    body: &[u8],
) -> Result<Option<Zeroizing<Vec<u8>>>, Fault> {
    let Some(key) = unit.body_key(key)? else { return Ok(None) };
    let mut out = Zeroizing::new(Vec::new());
    Ok(open_as(&key, &of_file(chat, number), body, &mut out).then_some(out))
}

/// What the reference to a file is bound to: label, chat, number.
fn of_file(chat: &ChatId, number: Order) -> Vec<u8> {
    [FILE_LABEL, chat.as_bytes().as_slice(), &number.to_be_bytes()].concat()
}

/// Opens a text. `None` if its key is gone.
pub(super) fn open(
    unit: &Unit<'_>,
    chat: &ChatId,
    number: Order,
    key: &BodyKeyName,
    body: &[u8],
) -> Result<Option<Zeroizing<String>>, Fault> {
    let Some(key) = unit.body_key(key)? else { return Ok(None) };
    let mut text = Zeroizing::new(Vec::new());
    let opened = open_into(&key, chat, number, body, &mut text);
    Ok(opened.then(|| String::from_utf8(std::mem::take(&mut *text)).ok().map(Zeroizing::new)).flatten())
}

/// Opens bodies one after the other, and keeps the key of the last: neighbours as a rule have the same.
pub(super) struct Opener<'u, 'b> {
    unit: &'u Unit<'b>,
    key: Option<(BodyKeyName, Option<Zeroizing<[u8; 32]>>)>,
}

impl<'u, 'b> Opener<'u, 'b> {
    pub(super) fn new(unit: &'u Unit<'b>) -> Self {
        Self { unit, key: None }
    }

    /// As [`open`].
    pub(super) fn open(
        &mut self,
        chat: &ChatId,
        number: Order,
        name: &BodyKeyName,
        body: &[u8],
    ) -> Result<Option<String>, Fault> {
        if self.key.as_ref().is_none_or(|(known, _)| known != name) {
            self.key = Some((*name, self.unit.body_key(name)?));
        }
        let Some((_, Some(key))) = &self.key else { return Ok(None) };
        let mut text = Zeroizing::new(Vec::new());
        let opened = open_into(key, chat, number, body, &mut text);
        Ok(opened.then(|| String::from_utf8(std::mem::take(&mut *text)).ok()).flatten())
    }
}

/// Opens a body into `out`, in place of what that held. Returns whether it is authentic; if not, `out` is empty.
pub(super) fn open_into(
    key: &[u8; 32],
    chat: &ChatId,
    number: Order,
    body: &[u8],
    out: &mut Zeroizing<Vec<u8>>,
) -> bool {
    open_as(key, &associated(chat, number), body, out)
}

fn open_as(key: &[u8; 32], bound: &[u8], body: &[u8], out: &mut Zeroizing<Vec<u8>>) -> bool {
    out.clear();
    let Some((nonce, sealed)) = body.split_first_chunk::<NONCE_LEN>() else { return false };
    let Some((sealed, tag)) = sealed.split_last_chunk::<TAG_LEN>() else { return false };
    out.resize(sealed.len(), 0);
    let opened = XChaCha::new(key).open(nonce, bound, sealed, tag, out);
    if !opened {
        out.clear();
    }
    opened
}

/// A body that was stored then is gone. ERA-01: with the last one of its day the key is doomed.
pub(super) fn release(
    cx: &mut Cx<'_, '_, '_>,
    chat: ChatId,
    stored: Timestamp,
    key: &BodyKeyName,
) -> Result<(), Fault> {
    let place = (chat, day_of(stored));
    let Some(mut row) = cx.unit.get::<BodyKeyRow>(&place)?.filter(|row| is_of(key, &row.name, &row.lost))
    else {
        return release_spare(cx, key);
    };
    row.bodies = row.bodies.saturating_sub(1);
    if row.bodies == 0 {
        doom(cx, &place, &row);
    } else {
        cx.unit.put(&place, &row);
    }
    Ok(())
}

fn release_spare(cx: &mut Cx<'_, '_, '_>, key: &BodyKeyName) -> Result<(), Fault> {
    let Some(mut row) = cx.unit.get::<SpareKeyRow>(&())?.filter(|row| is_of(key, &row.name, &row.lost))
    else {
        return Ok(());
    };
    row.bodies = row.bodies.saturating_sub(1);
    if row.bodies == 0 {
        cx.unit.delete::<SpareKeyRow>(&());
        doom_names(cx, &row.name, &row.lost);
    } else {
        cx.unit.put(&(), &row);
    }
    Ok(())
}

/// Every body of a chat is to go: all its keys are doomed at once, whatever is still to be removed.
pub(super) fn release_all(cx: &mut Cx<'_, '_, '_>, chat: &ChatId) -> Result<(), Fault> {
    for (place, row) in cx.unit.scan::<BodyKeyRow>(chat.as_bytes())? {
        doom(cx, &place, &row);
    }
    Ok(())
}

fn doom(cx: &mut Cx<'_, '_, '_>, place: &(ChatId, u64), row: &BodyKeyRow) {
    cx.unit.delete::<BodyKeyRow>(place);
    doom_names(cx, &row.name, &row.lost);
}

fn doom_names(cx: &mut Cx<'_, '_, '_>, name: &BodyKeyName, lost: &[ByteArray<16>]) {
    cx.unit.put(name, &DoomedKeyRow {});
    lost.iter().for_each(|name| cx.unit.put(&**name, &DoomedKeyRow {}));
}

/// Whether a body under this key counts among those of a row with these names.
fn is_of(key: &BodyKeyName, name: &BodyKeyName, lost: &[ByteArray<16>]) -> bool {
    name == key || lost.iter().any(|lost| **lost == *key)
}

/// Keys of days that seal texts and for which the table of keys has no answer: damaged, or given up since (VLT-64). What is
/// under them opens for nobody; erasing the last text of their days ends them too.
///
/// # Errors
/// [`Fault::Store`].
pub fn keys_without_answer(unit: &Unit<'_>) -> Result<usize, Fault> {
    let spare = unit.get::<SpareKeyRow>(&())?.filter(|row| row.bodies > 0);
    let days = unit.scan::<BodyKeyRow>(&[])?.into_iter().map(|(_, row)| (row.name, row.lost));
    let mut count = 0;
    for (name, lost) in days.chain(spare.map(|row| (row.name, row.lost))) {
        for name in lost.iter().map(|lost| &**lost).chain([&name]) {
            count += usize::from(unit.body_key(name)?.is_none());
        }
    }
    Ok(count)
}
