//! Files of messages: what is to be sent, what came, and what belongs to which message.
//!
//! Rules: ATT-07 a message with a file leaves once, when its relay has all of the file: until then the file is a record of
//! its own, and the commit that takes the relay's last answer puts the message where every message waits; ATT-09 what opens
//! a file is sealed under the key of its message and ends with it.

mod shown;

pub use shown::FileView;
pub(super) use shown::{Files, shown};

use std::{
    ffi::OsString,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::PathBuf,
};

use lapwing_protocol::{
    attachment::{Attachment, FileName, MediaType},
    content::{Body, MAX_TEXT, MessageId},
};
use lapwing_wire::{
    address::{RelayAddress, RelayKey},
    frame::{BlobPut, Refusal, RequestBody},
};
use serde_bytes::ByteBuf;
use zeroize::Zeroizing;

use super::{
    Cx, Effect, Fault, bodies, contact,
    conversation::{self, NewMessage},
    group,
    outgoing::{self, Proof},
    relays,
};
use crate::{
    attach::{Prepared, SourceError},
    store::{
        ChatId, ChatKind, ContactRow, FileRow, MailboxRow, MessageRow, MessageState, Order, RelayRow, Unit,
        UnsealedRow, UploadRow, Writer,
    },
};

/// Files in one command. More are sent with another.
pub const MAX_FILES: usize = 10;

/// A file to be sent, and what the others are told of its name.
#[derive(Debug)]
pub struct NewFile {
    /// What was looked at.
    pub prepared: Prepared,
    /// What it is called.
    pub name: FileName,
}

/// A file on its way to a relay.
pub struct Upload {
    /// Of which message.
    pub place: (ChatId, Order),
    /// To which relay.
    pub relay: RelayAddress,
    /// What names and opens it.
    pub attachment: Attachment,
    /// Where it lies.
    pub path: PathBuf,
    /// It is sent as it is.
    pub whole: bool,
    /// Bytes of the blob that the relay has, as far as was noted.
    pub done: u64,
    /// What the relay said when it last refused.
    pub refused: Option<Refusal>,
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { place: _, relay: _, attachment: _, path: _, whole: _, done: _, refused: _ } = self;
        f.write_str("Upload(..)")
    }
}

/// What became of a file on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// So many bytes of the blob are at the relay.
    To(u64),
    /// All of it.
    Whole,
    /// The relay does not take it.
    Refused(Refusal),
    /// It is not there any more, or not what it was.
    Lost(SourceError),
}

/// Writes a message for each file into a chat, the first one with the text, and records that the files have to be sent.
pub(super) fn send(
    cx: &mut Cx<'_, '_, '_>,
    name: &str,
    text: &str,
    files: Vec<NewFile>,
) -> Result<(ChatId, Vec<Order>), Fault> {
    let (chat, _) = contact::find(cx, name)?;
    if text.len() > MAX_TEXT {
        return Err(Fault::TextTooLong);
    }
    conversation::require_writable(cx.unit, chat)?;
    let relay = relay_of(cx, chat)?;
    let mut orders = Vec::with_capacity(files.len());
    let mut text = text;
    for NewFile { prepared, name } in files {
        let Prepared { path, whole, key, hash, size, left_out: _, kind } = prepared;
        let id = MessageId::from_bytes(cx.random());
        let text = std::mem::take(&mut text);
        let message = NewMessage { id, writer: Writer::Me, sent: cx.now, state: MessageState::Waiting, text };
        let order = conversation::store(cx, chat, &message)?;
        let media = kind.media_type().and_then(MediaType::parse);
        let relay = relay.clone();
        let path = ByteBuf::from(path.as_os_str().as_bytes());
        let row = UploadRow { relay: relay.clone(), path, whole, done: 0, refused: None };
        let attachment = Attachment { relay, hash, key, size, name, media, text: String::new() };
        keep(cx, (chat, order), &attachment)?;
        cx.unit.put(&(chat, order), &row);
        orders.push(order);
    }
    Ok((chat, orders))
}

/// Whether a file can be sent to this chat now.
///
/// # Errors
/// As sending it.
pub fn require_writable(unit: &Unit<'_>, name: &str) -> Result<(), Fault> {
    let chat = contact::id_of(unit, name)?;
    conversation::require_writable(unit, chat).map(|_| ())
}

/// Where files for a chat go: to a relay whose access ticket is ours, and that the other side talks to anyway, if there is
/// one.
fn relay_of(cx: &Cx<'_, '_, '_>, chat: ChatId) -> Result<RelayAddress, Fault> {
    let contact = cx.unit.get::<ContactRow>(&chat)?;
    let near = match contact.and_then(|contact| contact.inbox) {
        Some(inbox) => cx.unit.get::<MailboxRow>(&inbox)?.map(|mailbox| mailbox.relay),
        None => group::log_relay(cx.unit, chat)?,
    };
    if let Some(near) = near
        && let Some(row) = cx.unit.get::<RelayRow>(near.key().as_bytes())?
    {
        return Ok(row.address);
    }
    Ok(relays::default_relay(cx.unit, None)?.address)
}

/// ATT-09: keeps what names and opens the file of a message that was just stored.
pub(super) fn keep(
    cx: &mut Cx<'_, '_, '_>,
    place: (ChatId, Order),
    attachment: &Attachment,
) -> Result<(), Fault> {
    let message =
        cx.unit.get::<MessageRow>(&place)?.ok_or(Fault::Inconsistent("a file without a message"))?;
    // The text lies in the message itself.
    let bare = Attachment { text: String::new(), ..attachment.duplicate() };
    let reference = bare.export().map_err(|_| Fault::TextTooLong)?;
    let body = bodies::seal_file(cx, place.0, place.1, &message.key, reference.expose())?;
    cx.unit.put(&place, &FileRow { body, fetched: false });
    Ok(())
}

/// What names and opens the file of a message, as it is stored. `None` where it has none, or its key is gone.
pub(super) fn reference_of(
    unit: &Unit<'_>,
    place: (ChatId, Order),
    message: &MessageRow,
) -> Result<Option<Zeroizing<Vec<u8>>>, Fault> {
    match unit.get::<FileRow>(&place)? {
        Some(row) => bodies::open_file(unit, &place.0, place.1, &message.key, &row.body),
        None => Ok(None),
    }
}

/// The file of a message, and whether it was fetched here. `None` where it has none, or its key is gone.
pub(super) fn of(
    unit: &Unit<'_>,
    place: (ChatId, Order),
    message: &MessageRow,
) -> Result<Option<(Attachment, bool)>, Fault> {
    match unit.get::<FileRow>(&place)? {
        Some(row) => open(unit, place, message, &row),
        None => Ok(None),
    }
}

/// As [`of`], where the record is at hand.
pub(super) fn open(
    unit: &Unit<'_>,
    place: (ChatId, Order),
    message: &MessageRow,
    row: &FileRow,
) -> Result<Option<(Attachment, bool)>, Fault> {
    let Some(reference) = bodies::open_file(unit, &place.0, place.1, &message.key, &row.body)? else {
        return Ok(None);
    };
    let attachment = Attachment::import(&reference)
        .map_err(|_| Fault::Inconsistent("what names a file cannot be read"))?;
    Ok(Some((attachment, row.fetched)))
}

/// What names and opens the file of a message that goes to another compartment.
pub(super) struct MovedFile {
    reference: Zeroizing<Vec<u8>>,
    fetched: bool,
}

/// The file of a message that goes to another compartment. MOV-10: one that does not open keeps it from going.
pub(super) fn to_move(
    unit: &Unit<'_>,
    place: (ChatId, Order),
    message: &MessageRow,
) -> Result<Option<MovedFile>, Fault> {
    let Some(row) = unit.get::<FileRow>(&place)? else { return Ok(None) };
    let reference = bodies::open_file(unit, &place.0, place.1, &message.key, &row.body)?;
    let reference = reference.ok_or(Fault::DoesNotOpen)?;
    Ok(Some(MovedFile { reference, fetched: row.fetched }))
}

/// MOV-03: keeps the file of a message that came from another compartment, under the message's key here.
pub(super) fn moved_here(
    cx: &mut Cx<'_, '_, '_>,
    place: (ChatId, Order),
    file: &MovedFile,
) -> Result<(), Fault> {
    let message =
        cx.unit.get::<MessageRow>(&place)?.ok_or(Fault::Inconsistent("a file without a message"))?;
    let body = bodies::seal_file(cx, place.0, place.1, &message.key, &file.reference)?;
    cx.unit.put(&place, &FileRow { body, fetched: file.fetched });
    Ok(())
}

/// As [`of`], for showing.
pub(super) fn look(
    unit: &Unit<'_>,
    place: (ChatId, Order),
    message: &MessageRow,
) -> Result<Option<FileView>, Fault> {
    unit.get::<FileRow>(&place)?.map_or(Ok(None), |row| shown(unit, place, message, &row))
}

/// What a stored message says, as it is sent. `None` if its key is gone.
pub(super) fn body_of(
    unit: &Unit<'_>,
    place: (ChatId, Order),
    message: &MessageRow,
) -> Result<Option<Body>, Fault> {
    let Some(text) = conversation::text_of(unit, &place.0, place.1, message)? else { return Ok(None) };
    let text = text.to_string();
    Ok(match of(unit, place, message)? {
        Some((attachment, _)) => Some(Body::File(Attachment { text, ..attachment })),
        None => Some(Body::Text(text)),
    })
}

/// The file of a message, for fetching it.
///
/// # Errors
/// [`Fault::UnknownMessage`], [`Fault::NoFile`], [`Fault::FileErased`], [`Fault::FileWaits`] for one of ours.
pub fn file(unit: &Unit<'_>, chat: ChatId, order: Order) -> Result<Attachment, Fault> {
    let place = (chat, order);
    let message = unit.get::<MessageRow>(&place)?.ok_or(Fault::UnknownMessage)?;
    if unit.get::<FileRow>(&place)?.is_none() {
        return Err(Fault::NoFile);
    }
    if unit.get::<UploadRow>(&place)?.is_some() {
        return Err(Fault::FileWaits);
    }
    of(unit, place, &message)?.map(|(attachment, _)| attachment).ok_or(Fault::FileErased)
}

/// Whether this relay is one that the vault talks to anyway.
///
/// # Errors
/// [`Fault::Store`].
pub fn is_known_relay(unit: &Unit<'_>, chat: ChatId, relay: &RelayAddress) -> Result<bool, Fault> {
    if relays::connected_relays(unit)?.iter().any(|known| known == relay) {
        return Ok(true);
    }
    let contact = unit.get::<ContactRow>(&chat)?.and_then(|contact| contact.route);
    let route = contact.and_then(|route| lapwing_protocol::route::Route::import(&route).ok());
    Ok(route.is_some_and(|route| route.relay == *relay))
}

/// It lies on the disk now.
pub(super) fn fetched(cx: &mut Cx<'_, '_, '_>, chat: ChatId, order: Order) -> Result<(), Fault> {
    if let Some(row) = cx.unit.get::<FileRow>(&(chat, order))?.filter(|row| !row.fetched) {
        cx.unit.put(&(chat, order), &FileRow { fetched: true, ..row });
    }
    Ok(())
}

/// Files on their way, all or those for one relay, oldest first.
///
/// # Errors
/// [`Fault::Store`].
pub fn uploads(unit: &Unit<'_>, relay: Option<&RelayKey>) -> Result<Vec<Upload>, Fault> {
    let mut all = Vec::new();
    for (place, row) in unit.scan::<UploadRow>(&[])? {
        if relay.is_some_and(|relay| row.relay.key() != relay) {
            continue;
        }
        let Some(message) = unit.get::<MessageRow>(&place)? else { continue };
        let Some((attachment, _)) = of(unit, place, &message)? else { continue };
        let UploadRow { relay, path, whole, done, refused } = row;
        let path = PathBuf::from(OsString::from_vec(path.into_vec()));
        all.push(Upload { place, relay, attachment, path, whole, done, refused });
    }
    all.sort_by_key(|upload| upload.place.1);
    Ok(all)
}

/// The request that stores a part of a file, and what has to be proved for it.
///
/// # Errors
/// [`Fault::Store`].
pub fn put_request(
    unit: &Unit<'_>,
    upload: &Upload,
    offset: u64,
    total: u64,
    bytes: Vec<u8>,
) -> Result<(Vec<Proof>, RequestBody), Fault> {
    let (proofs, access) = outgoing::access(unit, upload.relay.key())?;
    let hash = upload.attachment.hash;
    let put = BlobPut { hash, total, offset, bytes: ByteBuf::from(bytes), access };
    Ok((proofs, RequestBody::BlobPut(put)))
}

/// Takes what became of a file on its way. One that was erased meanwhile is none any more.
pub(super) fn moved(cx: &mut Cx<'_, '_, '_>, place: (ChatId, Order), moved: Moved) -> Result<(), Fault> {
    let Some(row) = cx.unit.get::<UploadRow>(&place)? else { return Ok(()) };
    match moved {
        Moved::To(done) => {
            cx.unit.put(&place, &UploadRow { done, refused: None, ..row });
            Ok(())
        }
        Moved::Whole => whole(cx, place),
        // It will not become smaller.
        Moved::Refused(Refusal::TooLarge) => {
            give_up_one(cx, place)?;
            let text = "a file was not sent: its relay takes none of this size";
            conversation::note(cx, place.0, text).map(|_| ())
        }
        Moved::Refused(refusal) => {
            cx.unit.put(&place, &UploadRow { refused: Some(refusal), ..row });
            Ok(())
        }
        Moved::Lost(error) => {
            give_up_one(cx, place)?;
            let text = format!("a file was not sent: {error}");
            conversation::note(cx, place.0, &text).map(|_| ())
        }
    }
}

/// ATT-07: the relay has all of the file: the message leaves, if its chat still takes any.
fn whole(cx: &mut Cx<'_, '_, '_>, place: (ChatId, Order)) -> Result<(), Fault> {
    let (chat, order) = place;
    cx.unit.delete::<UploadRow>(&place);
    let Some(message) = cx.unit.get::<MessageRow>(&place)? else { return Ok(()) };
    let kind = match conversation::require_writable(cx.unit, chat) {
        Ok(kind) => kind,
        Err(fault @ Fault::Store(_)) => return Err(fault),
        Err(_) => return give_up_one(cx, place),
    };
    if kind == ChatKind::Group {
        cx.unit.put(&place, &UnsealedRow { since: cx.now, timer: false });
        return Ok(());
    }
    let Some(body) = body_of(cx.unit, place, &message)? else { return give_up_one(cx, place) };
    let inbox = cx.unit.get::<ContactRow>(&chat)?.and_then(|contact| contact.inbox);
    outgoing::send_content_as(cx, chat, message.id, body, Some(order), inbox)
}

/// What is on its way for a chat that takes no messages any more is not sent.
pub(super) fn give_up(cx: &mut Cx<'_, '_, '_>, chat: ChatId) -> Result<(), Fault> {
    for (place, _) in cx.unit.scan::<UploadRow>(chat.as_bytes())? {
        give_up_one(cx, place)?;
    }
    Ok(())
}

fn give_up_one(cx: &mut Cx<'_, '_, '_>, place: (ChatId, Order)) -> Result<(), Fault> {
    let (chat, order) = place;
    cx.unit.delete::<UploadRow>(&place);
    conversation::set_state(cx, chat, order, MessageState::Failed)?;
    cx.tell(Effect::Undelivered { chat, order });
    Ok(())
}

/// The message is erased.
pub(super) fn erase(cx: &mut Cx<'_, '_, '_>, place: (ChatId, Order)) {
    cx.unit.delete::<FileRow>(&place);
    cx.unit.delete::<UploadRow>(&place);
}

/// The chat is deleted: nothing of it leaves any more. What names its files goes with its messages.
pub(super) fn forget(cx: &mut Cx<'_, '_, '_>, chat: &ChatId) -> Result<(), Fault> {
    for (place, _) in cx.unit.scan::<UploadRow>(chat.as_bytes())? {
        cx.unit.delete::<UploadRow>(&place);
    }
    Ok(())
}
