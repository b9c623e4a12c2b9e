//! What is shown of a compartment: read models, without secrets, with peers' text marked as such.

use std::collections::BTreeSet;

use lapwing_protocol::{
    alert::{Cause, Status},
    group::MemberId,
    identity::IdentityKey,
    route::Route,
    session::{LocalIdentity, SafetyNumber, Session},
    timer::Lifetime,
};
use lapwing_wire::{address::RelayAddress, frame::Refusal, time::Timestamp};
use serde::de::IgnoredAny;

use super::{Fault, bodies, contact, copies, drafts, expiry, files, group, renewal, trust, voice};
pub use super::{
    files::FileView,
    overdue::chats_at,
    relays::{RelayView, list as relays},
    voice::{RemoteView, VoiceState, VoiceView},
};
use crate::{
    store::{
        AlertRow, ChatId, ChatKind, ChatRow, ContactRow, ContactStanding, ContactState, DeadlineRow,
        DraftRow, InvitationRow, MailboxRow, MessageRow, MessageState, OpRow, Order, PlanAction, PlanRow,
        PlanState, Purpose, RecordsRow, SettingsRow, TimerRow, TrustRow, TrustSide, Unit, Writer,
    },
    untrusted::Untrusted,
};

/// A chat in a list.
#[derive(Debug)]
pub struct ChatView {
    /// Which.
    pub id: ChatId,
    /// Its name here.
    pub name: String,
    /// One person or many.
    pub kind: ChatKind,
    /// How far the contact has come; for groups, whether we are in it.
    pub state: ChatState,
    /// Blocked by us.
    pub blocked: bool,
    /// Safety numbers were compared.
    pub verified: bool,
    /// Messages that were not shown yet.
    pub unread: usize,
    /// Messages that have not reached the relay.
    pub waiting: usize,
    /// When the last message came.
    pub last: Option<Timestamp>,
    /// How long messages are kept once they were shown, where they are not kept for ever.
    pub timer: Option<Lifetime>,
    /// A text was kept that is not sent.
    pub draft: bool,
}

/// How long a chat keeps its messages once they were shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimerView {
    /// What we want.
    pub ours: Option<Lifetime>,
    /// What the other side wants; in a group its owner and admins.
    pub theirs: Option<Lifetime>,
    /// What counts: the shorter.
    pub counts: Option<Lifetime>,
}

/// A text that was not sent.
#[derive(Debug)]
pub struct DraftView {
    /// The text.
    pub text: Untrusted<String>,
    /// When it was last changed.
    pub saved: Timestamp,
}

/// Where a chat stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChatState {
    /// See [`ContactState::Invited`].
    Invited,
    /// See [`ContactState::Joining`] and [`ContactState::Joined`].
    Joining,
    /// Messages go both ways.
    Open,
    /// The session is being renewed: the other side has not answered yet.
    Renewing,
    /// It came to nothing.
    Failed,
    /// A group that we are not in any more.
    Ended,
}

/// A message.
#[derive(Debug)]
pub struct MessageView {
    /// Its place in the chat.
    pub order: Order,
    /// Who wrote it.
    pub writer: WriterView,
    /// When its author says he wrote it.
    pub sent: Timestamp,
    /// When it came into this vault.
    pub stored: Timestamp,
    /// Where it is.
    pub state: MessageState,
    /// When it disappears, as far as is known.
    pub until: Option<Timestamp>,
    /// The text; `None` where its key was destroyed.
    pub text: Option<Untrusted<String>>,
    /// The file that belongs to it.
    pub file: Option<FileView>,
}

impl MessageView {
    /// TMR-05: its time is not over. What could not be erased in time is not shown either.
    #[must_use]
    pub fn is_there(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| until > now)
    }
}

/// Who wrote a message, as it is shown.
#[derive(Debug)]
pub enum WriterView {
    /// The owner.
    Me,
    /// The other person of a direct chat.
    Peer,
    /// A member of the group, by the name that the roster gives.
    Member(Untrusted<String>),
    /// The program.
    Program,
}

/// A trust.
#[derive(Debug)]
pub struct TrustView {
    /// Name of the chat.
    pub chat: String,
    /// Who gets whose alerts.
    pub side: TrustSide,
    /// The other side, or we, said yes.
    pub accepted: bool,
    /// What we can set off for them.
    pub voices: Vec<VoiceView>,
}

/// An alert that reached us.
#[derive(Debug)]
pub struct AlertView {
    /// Its id.
    pub id: [u8; 16],
    /// Name of the chat with the person; `None` if the chat is gone.
    pub chat: Option<String>,
    /// When it came.
    pub received: Timestamp,
    /// When it was made ready, before it was set off.
    pub made: Timestamp,
    /// Real or a drill.
    pub status: Status,
    /// What set it off.
    pub cause: Cause,
    /// What it says.
    pub text: Untrusted<String>,
    /// Last known place.
    pub place: Option<Untrusted<String>>,
    /// What is asked of us.
    pub instructions: Option<Untrusted<String>>,
    /// When we acknowledged it.
    pub acknowledged: Option<Timestamp>,
    /// Groups that we and the person are both in.
    pub groups: Vec<String>,
}

/// A plan.
#[derive(Debug)]
pub struct PlanView {
    /// Which.
    pub id: [u8; 16],
    /// Its name.
    pub name: String,
    /// How far setting it up has come.
    pub state: PlanState,
    /// What becomes of the rest.
    pub action: PlanAction,
    /// Compartments that the cover shows.
    pub shows: Vec<String>,
    /// Chats of the contacts that are alerted.
    pub alerts: Vec<String>,
    /// Every relay holds what it should.
    pub armed: bool,
    /// A relay said that it was set off.
    pub fired: bool,
    /// Its trusted contacts did.
    pub agreed: bool,
    /// How many of them can, together.
    pub remote: Option<RemoteView>,
}

/// The compartment's name.
///
/// # Errors
/// [`Fault::Store`].
pub fn name(unit: &Unit<'_>) -> Result<Option<String>, Fault> {
    Ok(unit.get::<SettingsRow>(&())?.map(|row| row.name))
}

/// Whether the compartment's deletion was begun.
///
/// # Errors
/// [`Fault::Store`].
pub fn leaving(unit: &Unit<'_>) -> Result<bool, Fault> {
    Ok(unit.get::<SettingsRow>(&())?.is_some_and(|row| row.leaving))
}

/// What was recorded beside the compartment, ever, of what lies outside it.
///
/// # Errors
/// [`Fault::Store`].
pub fn records(unit: &Unit<'_>) -> Result<RecordsRow, Fault> {
    Ok(unit.get::<RecordsRow>(&())?.unwrap_or_default())
}

/// The chats, in the order of their names.
///
/// # Errors
/// [`Fault::Store`].
pub fn chats(unit: &Unit<'_>) -> Result<Vec<ChatView>, Fault> {
    let mut contacts = unit.range_as::<ContactRow, ContactStanding>(&[], None, usize::MAX, false)?;
    contacts.sort_unstable_by_key(|(chat, _)| *chat);
    let contact_of = |id: &ChatId| {
        let at = contacts.binary_search_by(|(contact, _)| contact.cmp(id)).ok()?;
        contacts.get(at).map(|(_, contact)| *contact)
    };
    // Each table once, instead of once for each chat.
    let renewing = renewal::waiting(unit)?;
    let timers = expiry::lifetimes(unit)?;
    let drafts = unit.range_as::<DraftRow, IgnoredAny>(&[], None, usize::MAX, false)?;
    let drafts: BTreeSet<ChatId> = drafts.into_iter().map(|(id, _)| id).collect();
    let rows = unit.scan::<ChatRow>(&[])?;
    let mut all = Vec::with_capacity(rows.len());
    for (id, row) in rows {
        let beside = Beside {
            contact: contact_of(&id),
            renewing: renewing.contains(&id),
            timer: timers.get(&id).copied(),
            draft: drafts.contains(&id),
        };
        all.push(chat_view(unit, id, row, &beside)?);
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

/// The chat of this name.
///
/// # Errors
/// [`Fault::UnknownChat`].
pub fn chat(unit: &Unit<'_>, name: &str) -> Result<ChatView, Fault> {
    let id = contact::id_of(unit, name)?;
    let contact = unit.get::<ContactRow>(&id)?;
    let beside = Beside {
        contact: contact.map(|row| ContactStanding { state: row.state, verified: row.verified }),
        renewing: renewal::is_waiting(unit, &id)?,
        timer: expiry::lifetime(unit, &id)?,
        draft: unit.get::<DraftRow>(&id)?.is_some(),
    };
    chat_view(unit, id, unit.get::<ChatRow>(&id)?.ok_or(Fault::UnknownChat)?, &beside)
}

/// The name of a chat.
///
/// # Errors
/// [`Fault::UnknownChat`].
pub fn chat_name(unit: &Unit<'_>, chat: &ChatId) -> Result<String, Fault> {
    unit.get::<ChatRow>(chat)?.map(|row| row.name).ok_or(Fault::UnknownChat)
}

/// What other records say of a chat.
struct Beside {
    contact: Option<ContactStanding>,
    renewing: bool,
    timer: Option<Lifetime>,
    draft: bool,
}

fn chat_view(unit: &Unit<'_>, id: ChatId, row: ChatRow, beside: &Beside) -> Result<ChatView, Fault> {
    let state = match (&beside.contact, row.kind) {
        (Some(contact), _) => match contact.state {
            ContactState::Invited => ChatState::Invited,
            ContactState::Joining | ContactState::Joined => ChatState::Joining,
            ContactState::Established if beside.renewing => ChatState::Renewing,
            ContactState::Established => ChatState::Open,
            ContactState::Failed => ChatState::Failed,
        },
        (None, _) => group::state(unit, &id)?,
    };
    Ok(ChatView {
        id,
        timer: beside.timer,
        draft: beside.draft,
        name: row.name,
        kind: row.kind,
        state,
        blocked: row.blocked,
        verified: beside.contact.is_some_and(|contact| contact.verified),
        unread: usize::try_from(row.unread).unwrap_or(usize::MAX),
        waiting: usize::try_from(row.waiting).unwrap_or(usize::MAX),
        last: row.last,
    })
}

/// Which messages to show.
#[derive(Debug, Clone, Copy)]
pub enum Span {
    /// Those that were not shown yet.
    Unread,
    /// The last so many.
    Last(usize),
    /// One.
    One(Order),
}

/// Messages of a chat, oldest first.
///
/// # Errors
/// [`Fault::UnknownChat`].
pub fn messages(unit: &Unit<'_>, chat: &ChatId, span: Span) -> Result<Vec<MessageView>, Fault> {
    let shown = unit.get::<ChatRow>(chat)?.ok_or(Fault::UnknownChat)?;
    let mut rows = match span {
        Span::Unread => {
            let after = (*chat, shown.read_to);
            unit.range::<MessageRow>(chat.as_bytes(), Some(&after), usize::MAX, false)?
        }
        Span::Last(count) => {
            let mut rows = unit.range::<MessageRow>(chat.as_bytes(), None, count, true)?;
            rows.reverse();
            rows
        }
        Span::One(order) => {
            unit.get::<MessageRow>(&(*chat, order))?.map(|row| ((*chat, order), row)).into_iter().collect()
        }
    };
    let names = match shown.kind {
        ChatKind::Group => group::Names::of(unit, chat)?,
        ChatKind::Direct => group::Names::default(),
    };
    let files = files::Files::from(unit, chat, rows.first().map(|((_, order), _)| *order))?;
    let mut bodies = bodies::Opener::new(unit);
    rows.drain(..)
        .map(|((_, order), row)| {
            let text = bodies.open(chat, order, &row.key, &row.body)?;
            let until = until(unit, chat, order, &row)?;
            let file = files.of(unit, (*chat, order), &row)?;
            Ok(MessageView { until, file, ..message(&names, order, &row, text) })
        })
        .collect()
}

/// When a message disappears, as far as is known.
pub(super) fn until(
    unit: &Unit<'_>,
    chat: &ChatId,
    order: Order,
    row: &MessageRow,
) -> Result<Option<Timestamp>, Fault> {
    if row.lives.is_none() {
        return Ok(None);
    }
    Ok(unit.get::<DeadlineRow>(&(*chat, order))?.map(|deadline| deadline.at))
}

/// One message of a chat whose members have these names. Its end is for the caller to look up.
pub(super) fn message(
    names: &group::Names,
    order: Order,
    row: &MessageRow,
    text: Option<String>,
) -> MessageView {
    MessageView {
        order,
        writer: writer(names, &row.writer),
        sent: row.sent,
        stored: row.stored,
        state: row.state,
        until: None,
        file: None,
        text: text.map(Untrusted::new),
    }
}

fn writer(names: &group::Names, writer: &Writer) -> WriterView {
    match writer {
        Writer::Me => WriterView::Me,
        Writer::Peer => WriterView::Peer,
        Writer::Member(member) => WriterView::Member(member_name(names, member)),
        Writer::Program => WriterView::Program,
    }
}

fn member_name(names: &group::Names, member: &MemberId) -> Untrusted<String> {
    Untrusted::new(names.get(member).unwrap_or_else(|| "former member".to_owned()))
}

/// How long a chat keeps its messages.
///
/// # Errors
/// [`Fault::Store`].
pub fn timer(unit: &Unit<'_>, chat: &ChatId) -> Result<TimerView, Fault> {
    let row = unit.get::<TimerRow>(chat)?.unwrap_or_default();
    Ok(TimerView {
        ours: row.ours.and_then(Lifetime::from_secs),
        theirs: row.theirs.and_then(Lifetime::from_secs),
        counts: expiry::lifetime(unit, chat)?,
    })
}

/// The draft of a chat.
///
/// # Errors
/// [`Fault::NoDraft`].
pub fn draft(unit: &Unit<'_>, chat: &ChatId) -> Result<DraftView, Fault> {
    let (text, saved) = drafts::of(unit, chat)?.ok_or(Fault::NoDraft)?;
    Ok(DraftView { text: Untrusted::new(text.to_string()), saved })
}

/// The safety number of a direct chat.
///
/// # Errors
/// [`Fault::NotDirect`], [`Fault::NotEstablished`].
pub fn safety_number(unit: &Unit<'_>, chat: &ChatId) -> Result<SafetyNumber, Fault> {
    let contact = unit.get::<ContactRow>(chat)?.ok_or(Fault::NotDirect)?;
    let session = Session::import(contact.session.as_ref().ok_or(Fault::NotEstablished)?)?;
    let local = LocalIdentity::import(&contact.local)?;
    let (own, peer): (&IdentityKey, &IdentityKey) = (local.public(), session.peer());
    Ok(SafetyNumber::of(own, peer)?)
}

/// The relay at which a contact receives.
///
/// # Errors
/// [`Fault::NotDirect`], [`Fault::NotEstablished`].
pub fn contact_relay(unit: &Unit<'_>, chat: &ChatId) -> Result<RelayAddress, Fault> {
    let contact = unit.get::<ContactRow>(chat)?.ok_or(Fault::NotDirect)?;
    let route = contact.route.ok_or(Fault::NotEstablished)?;
    Route::import(&route).map(|route| route.relay).map_err(|_| Fault::Inconsistent("a route cannot be read"))
}

/// The trusts of both sides.
///
/// # Errors
/// [`Fault::Store`].
pub fn trusts(unit: &Unit<'_>) -> Result<Vec<TrustView>, Fault> {
    let mut all = unit
        .scan::<TrustRow>(&[])?
        .into_iter()
        .map(|(id, row)| {
            let (chat, voices) = (chat_name(unit, &row.chat)?, voice::views(unit, &id, &row)?);
            Ok(TrustView { chat, side: row.side, accepted: row.accepted, voices })
        })
        .collect::<Result<Vec<_>, Fault>>()?;
    // Not in the order of ids, which are drawn: a list that changes from vault to vault looks as if it meant something.
    all.sort_by(|a, b| {
        a.chat.cmp(&b.chat).then((a.side == TrustSide::Theirs).cmp(&(b.side == TrustSide::Theirs)))
    });
    Ok(all)
}

/// The alerts, newest first.
///
/// # Errors
/// [`Fault::Store`].
pub fn alerts(unit: &Unit<'_>) -> Result<Vec<AlertView>, Fault> {
    let mut all = Vec::new();
    for (id, row) in unit.scan::<AlertRow>(&[])? {
        let Some(alert) = trust::open_with(&row.request, &row.trust, &row.alert)? else { continue };
        let alert = alert.into_alert();
        all.push(AlertView {
            id,
            chat: chat_name(unit, &row.chat).ok(),
            received: row.received,
            made: alert.made,
            status: alert.status,
            cause: alert.cause,
            text: Untrusted::new(alert.text),
            place: alert.place.map(Untrusted::new),
            instructions: alert.instructions.map(Untrusted::new),
            acknowledged: row.acknowledged,
            groups: group::shared_with(unit, &row.chat)?,
        });
    }
    all.sort_by_key(|alert| std::cmp::Reverse(alert.received));
    Ok(all)
}

/// The plans.
///
/// # Errors
/// [`Fault::Store`].
pub fn plans(unit: &Unit<'_>) -> Result<Vec<PlanView>, Fault> {
    let mut all = Vec::new();
    for (id, row) in unit.scan::<PlanRow>(&[])? {
        if row.after.is_some() {
            continue;
        }
        all.push(PlanView {
            id,
            alerts: alerted(unit, &row)?,
            armed: is_armed(&row),
            remote: voice::remote(&row),
            name: row.name,
            state: row.state,
            action: row.action,
            shows: row.shows,
            fired: row.tripwires.iter().any(|t| t.fired),
            agreed: row.tripwires.iter().any(|t| t.agreed),
        });
    }
    Ok(all)
}

/// Chats of the contacts that a plan alerts.
pub(super) fn alerted(unit: &Unit<'_>, row: &PlanRow) -> Result<Vec<String>, Fault> {
    let mut alerts = Vec::new();
    for trust in &row.alerts {
        if let Some(trust) = unit.get::<TrustRow>(trust)? {
            alerts.push(chat_name(unit, &trust.chat)?);
        }
    }
    Ok(alerts)
}

/// Whether every relay has said that it holds what it should.
pub(super) fn is_armed(row: &PlanRow) -> bool {
    row.tripwires.iter().all(|t| t.armed.as_deref().is_some_and(|armed| armed.as_slice() == t.wanted))
}

/// The mailboxes of a compartment that a firing turns into sinks.
///
/// # Errors
/// [`Fault::Store`].
pub fn sinks(unit: &Unit<'_>) -> Result<Vec<crate::store::Sink>, Fault> {
    let rows = unit.scan::<MailboxRow>(&[])?.into_iter();
    // An alert's own mailbox must deliver what the firing puts into it.
    let owned = rows.filter(|(_, row)| !matches!(row.purpose, Purpose::AlertOutbox(_) | Purpose::Group(_)));
    Ok(owned
        .filter_map(|(mailbox, row)| {
            Some(crate::store::Sink { relay: *row.relay.key(), mailbox, admin: row.admin? })
        })
        .collect())
}

/// Operations that wait for relays, but marks (CPY), with what the relay last said to each.
///
/// # Errors
/// [`Fault::Store`].
pub fn waiting(unit: &Unit<'_>) -> Result<Vec<(RelayAddress, Option<Refusal>)>, Fault> {
    let mut waiting = Vec::new();
    for (_, row) in unit.scan::<OpRow>(&[])? {
        if !copies::is_mark(unit, &row)? {
            waiting.push((row.relay, row.refused));
        }
    }
    Ok(waiting)
}

/// Invitations to groups that wait for an answer of ours.
///
/// # Errors
/// [`Fault::Store`].
pub fn invitations(unit: &Unit<'_>) -> Result<Vec<InvitationView>, Fault> {
    let mut all = Vec::new();
    for (id, row) in unit.scan::<InvitationRow>(&[])? {
        let asked = row.ours && row.request.is_some();
        let offered = !row.ours && row.chat.is_none();
        if asked || offered {
            let through = chat_name(unit, &row.through)?;
            all.push(InvitationView { id, group: Untrusted::new(row.name), through, ours: row.ours });
        }
    }
    all.sort_by(|a, b| a.through.cmp(&b.through).then_with(|| a.group.expose().cmp(b.group.expose())));
    Ok(all)
}

/// An invitation that waits for `group approve`.
#[derive(Debug)]
pub struct InvitationView {
    /// Which.
    pub id: [u8; 16],
    /// The group's name.
    pub group: Untrusted<String>,
    /// The chat it came through.
    pub through: String,
    /// Somebody asks to be let into a group of ours (true), or we are invited (false).
    pub ours: bool,
}
