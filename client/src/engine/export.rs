//! A compartment as the items of a backup, and back.
//!
//! Rules: BAK-05 no ratchet state leaves: no session, no sender key, no key of an epoch, no plan; BAK-07 what disappears
//! by a timer is not in a backup; BAK-08 what waited to be sent is restored as not sent; BAK-09 after a restore every
//! contact is handshaken anew (RNW), and whoever cannot be is shown as ended; BAK-10 a group is restored as one that
//! was left, with its history and its members' names.

use lapwing_protocol::{
    attachment::Attachment,
    session::{LocalIdentity, Session},
};
use lapwing_wire::{codec, frame::Seq};
use serde_bytes::ByteBuf;

use super::{
    Cx, Fault, bodies, conversation, drafts, files, group,
    outgoing::{local_identity, seed},
    relays, renewal,
};
use crate::{
    backup::{Item, MAX_ITEM},
    store::{
        AlertRow, ChainRow, ChatId, ChatKind, ChatRow, ContactRow, ContactState, Counter, DraftRow, GroupRow,
        MailboxRow, MailboxState, MessageRow, MessageState, NameRow, Order, Purpose, RelayRow, RenewalRow,
        Row, SettingsRow, TimerRow, TrustRow, Unit,
    },
};

/// Messages read at once.
const PAGE: usize = 256;

/// Takes items one after the other.
pub type Sink<'a, E> = dyn FnMut(Item) -> Result<(), E> + 'a;

fn record<R: Row>(key: &R::Key, row: &R) -> Item {
    Item::Record { table: R::TABLE, key: R::key_bytes(key).into(), value: codec::encode(row).into() }
}

/// All of a compartment that a backup holds, in the order in which it is restored. Answers how many messages and drafts
/// are left out because their keys are gone or do not open (VLT-64).
///
/// # Errors
/// [`Fault::Store`], and what `sink` refuses.
pub fn export<E: From<Fault>>(unit: &Unit<'_>, sink: &mut Sink<'_, E>) -> Result<u64, E> {
    let mut closed = 0;
    let name = read(unit.get::<SettingsRow>(&()))?.map_or_else(|| "main".to_owned(), |row| row.name);
    sink(Item::Compartment { name })?;
    for (key, row) in read(unit.scan::<RelayRow>(&[]))? {
        sink(record(&key, &RelayRow { refused: None, retold: None, ..row }))?;
    }
    for (chat, row) in read(unit.scan::<ChatRow>(&[]))? {
        sink(record(&chat, &ChatRow { waiting: 0, ..row.clone() }))?;
        match row.kind {
            ChatKind::Direct => export_contact(unit, chat, sink)?,
            ChatKind::Group => export_group(unit, chat, sink)?,
        }
        closed += export_messages(unit, chat, sink)?;
        if let Some(timer) = read(unit.get::<TimerRow>(&chat))? {
            sink(record(&chat, &timer))?;
        }
        if let Some((text, stored)) = drafts::of(unit, &chat)? {
            sink(Item::Draft { chat, text: text.to_string(), stored })?;
        } else {
            closed += u64::from(read(unit.get::<DraftRow>(&chat))?.is_some());
        }
    }
    for (id, row) in read(unit.scan::<TrustRow>(&[]))? {
        sink(record(&id, &row))?;
    }
    for (id, row) in read(unit.scan::<AlertRow>(&[]))? {
        sink(record(&id, &row))?;
    }
    for (id, row) in read(unit.scan::<MailboxRow>(&[]))? {
        let kept = match row.purpose {
            Purpose::Direct(_) | Purpose::Alert(_) | Purpose::AlertOutbox(_) => true,
            Purpose::Ticket(_) | Purpose::Group(_) | Purpose::Home => false,
        };
        if kept {
            sink(record(&id, &row))?;
        }
    }
    Ok(closed)
}

fn read<T, E: From<Fault>>(found: Result<T, crate::store::StoreError>) -> Result<T, E> {
    found.map_err(|error| E::from(Fault::from(error)))
}

/// BAK-05.
fn export_contact<E: From<Fault>>(unit: &Unit<'_>, chat: ChatId, sink: &mut Sink<'_, E>) -> Result<(), E> {
    let Some(contact) = read(unit.get::<ContactRow>(&chat))? else { return Ok(()) };
    let mut row = read(unit.get::<RenewalRow>(&chat))?.unwrap_or_default();
    if let Some(session) = &contact.session {
        let session = Session::import(session).map_err(Fault::from)?;
        row.peer = Some(ByteBuf::from(session.peer().as_bytes().to_vec()));
    }
    // While the peer has not answered a successor he may know only the identity before.
    let unknown = row.waiting.as_ref().is_some_and(|waiting| waiting.first.is_some());
    let before = row.former.as_ref().filter(|_| unknown).and_then(|former| former.local.as_ref());
    let mut local = match before {
        Some(before) => LocalIdentity::import(before).map_err(Fault::from)?,
        None => local_identity(&contact)?,
    };
    if let Some(before) = before {
        row.keys.clone_from(before);
    }
    row.succeeds |= unknown;
    local.retire_all_bundles();
    let contact = ContactRow {
        state: match contact.state {
            ContactState::Established => ContactState::Established,
            ContactState::Invited | ContactState::Joining | ContactState::Joined | ContactState::Failed => {
                ContactState::Failed
            }
        },
        local: ByteBuf::from(local.export().map_err(Fault::from)?.expose().to_vec()),
        session: None,
        ticket_mailbox: None,
        ticket: None,
        ..contact
    };
    sink(record(&chat, &contact))?;
    let row = RenewalRow { waiting: None, former: None, due: None, ..row };
    sink(record(&chat, &row))
}

/// BAK-05, BAK-10: who was in it, and nothing that reads or writes it.
fn export_group<E: From<Fault>>(unit: &Unit<'_>, chat: ChatId, sink: &mut Sink<'_, E>) -> Result<(), E> {
    match read(unit.get::<ChainRow>(&chat))? {
        Some(chain) => sink(record(&chat, &chain)),
        None => Ok(()),
    }
}

/// Answers how many do not open.
fn export_messages<E: From<Fault>>(unit: &Unit<'_>, chat: ChatId, sink: &mut Sink<'_, E>) -> Result<u64, E> {
    let mut closed = 0;
    let mut after = None;
    loop {
        let page = read(unit.range::<MessageRow>(chat.as_bytes(), after.as_ref(), PAGE, false))?;
        let Some((last, _)) = page.last() else { return Ok(closed) };
        after = Some(*last);
        for ((_, order), row) in page {
            // BAK-07.
            if row.lives.is_some() {
                continue;
            }
            let Some(text) = conversation::text_of(unit, &chat, order, &row)? else {
                closed += 1;
                continue;
            };
            // BAK-08.
            let state = match row.state {
                MessageState::Waiting => MessageState::Failed,
                state => state,
            };
            let bare = MessageRow { state, key: [0; 16], body: ByteBuf::new(), ..row.clone() };
            sink(record(&(chat, order), &bare))?;
            sink(Item::Text { chat, order, text: text.to_string() })?;
            if let Some(file) = files::reference_of(unit, (chat, order), &row)? {
                sink(Item::File { chat, order, file: ByteBuf::from(file.to_vec()) })?;
            }
        }
    }
}

/// Takes items of one compartment into this one.
pub(super) fn import(cx: &mut Cx<'_, '_, '_>, items: Vec<Item>) -> Result<(), Fault> {
    for item in items {
        import_one(cx, &item)?;
    }
    Ok(())
}

fn import_one(cx: &mut Cx<'_, '_, '_>, item: &Item) -> Result<(), Fault> {
    match item {
        Item::Backup { .. } | Item::Compartment { .. } => Err(Fault::BadBackup),
        Item::Record { table, key, value } => import_record(cx, *table, key, value),
        Item::Text { chat, order, text } => import_text(cx, *chat, *order, text),
        Item::File { chat, order, file } => {
            let attachment = Attachment::import(file).map_err(|_| Fault::BadBackup)?;
            files::keep(cx, (*chat, *order), &attachment)
        }
        Item::Draft { chat, text, stored: _ } => {
            let shown = cx.unit.get::<ChatRow>(chat)?.ok_or(Fault::BadBackup)?;
            drafts::keep(cx, &shown.name, text)
        }
    }
}

fn parse<R: Row>(key: &[u8], value: &[u8]) -> Result<(R::Key, R), Fault> {
    let key = R::key_from(key).ok_or(Fault::BadBackup)?;
    Ok((key, codec::decode(value, MAX_ITEM).map_err(|_| Fault::BadBackup)?))
}

fn put<R: Row>(cx: &mut Cx<'_, '_, '_>, key: &[u8], value: &[u8]) -> Result<(), Fault> {
    let (key, row) = parse::<R>(key, value)?;
    cx.unit.put(&key, &row);
    Ok(())
}

/// Every table by name: what is not here is of a newer version, and is not taken in half.
fn import_record(cx: &mut Cx<'_, '_, '_>, table: u8, key: &[u8], value: &[u8]) -> Result<(), Fault> {
    match table {
        RelayRow::TABLE => {
            let (_, row) = parse::<RelayRow>(key, value)?;
            let access = lapwing_wire::capability::SecretKey::from_seed(seed(&row.access)?);
            relays::add_ticket(cx, &row.address, &access).map(|_| ())
        }
        ChatRow::TABLE => {
            let (chat, row) = parse::<ChatRow>(key, value)?;
            cx.unit.put(&row.name, &NameRow { chat });
            if row.kind == ChatKind::Group {
                let left = left_group(cx)?;
                cx.unit.put(&chat, &left);
            }
            cx.unit.put(&chat, &row);
            Ok(())
        }
        ContactRow::TABLE => put::<ContactRow>(cx, key, value),
        RenewalRow::TABLE => put::<RenewalRow>(cx, key, value),
        ChainRow::TABLE => put::<ChainRow>(cx, key, value),
        TimerRow::TABLE => put::<TimerRow>(cx, key, value),
        MessageRow::TABLE => put::<MessageRow>(cx, key, value),
        TrustRow::TABLE => put::<TrustRow>(cx, key, value),
        AlertRow::TABLE => put::<AlertRow>(cx, key, value),
        MailboxRow::TABLE => {
            let (id, row) = parse::<MailboxRow>(key, value)?;
            let row = MailboxRow {
                state: MailboxState::Open,
                cursor: Seq::START,
                hash: None,
                inconsistent: false,
                ..row
            };
            cx.unit.put(&id, &row);
            Ok(())
        }
        _ => Err(Fault::BadBackup),
    }
}

/// BAK-10. The identity is a fresh one: nobody can speak as the member from before.
fn left_group(cx: &mut Cx<'_, '_, '_>) -> Result<GroupRow, Fault> {
    let local = LocalIdentity::generate(&mut cx.rng)?;
    Ok(GroupRow { local: ByteBuf::from(local.export()?.expose().to_vec()), ended: true, ..group::empty() })
}

fn import_text(cx: &mut Cx<'_, '_, '_>, chat: ChatId, order: Order, text: &str) -> Result<(), Fault> {
    let mut row = cx.unit.get::<MessageRow>(&(chat, order))?.ok_or(Fault::BadBackup)?;
    cx.unit.raise(Counter::Order, order)?;
    // The key is that of the day on which it came.
    let now = std::mem::replace(&mut cx.now, row.stored);
    let sealed = bodies::seal(cx, chat, order, text);
    cx.now = now;
    let sealed = sealed?;
    row.key = sealed.key;
    row.body = sealed.body;
    cx.unit.put(&(chat, order), &row);
    Ok(())
}

/// BAK-09: everything is here. Sessions are begun anew.
pub(super) fn end_import(cx: &mut Cx<'_, '_, '_>) -> Result<(), Fault> {
    for (chat, row) in cx.unit.scan::<ChatRow>(&[])? {
        if row.blocked {
            continue;
        }
        if row.kind == ChatKind::Group {
            let text = "restored from a backup, as a group that you left: ask an admin to remove you, and to invite \
                        you again in a new chat";
            conversation::note(cx, chat, text)?;
            continue;
        }
        let Some(mut contact) = cx.unit.get::<ContactRow>(&chat)? else { continue };
        let begun = match contact.state {
            ContactState::Established => renewal::begin(cx, chat),
            _ => Err(Fault::NoRenewalTicket),
        };
        let text = match begun {
            Ok(()) => {
                "restored from a backup: a new session is begun; what came after the backup was made is not here"
            }
            Err(Fault::NoRenewalTicket | Fault::NotEstablished | Fault::NoRelay) => {
                contact.state = ContactState::Failed;
                cx.unit.put(&chat, &contact);
                "restored from a backup, and nothing is in it to begin a new session with: invite anew, in a new chat"
            }
            Err(fault) => return Err(fault),
        };
        conversation::note(cx, chat, text)?;
    }
    Ok(())
}
