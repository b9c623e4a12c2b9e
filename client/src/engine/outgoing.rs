//! Operations for relays: recorded with the change they belong to, carried out after it is committed.

use lapwing_protocol::{
    content::{Body, Content, MessageId},
    envelope::{self, EnvelopeKey},
    route::Route,
    session::{Context, LocalIdentity, Session, SessionError},
};
use lapwing_wire::{
    address::{RelayAddress, RelayKey},
    capability::{
        Access, Admin, ChannelBinding, PublicKey, Read, Right, SecretKey, Subject, Trigger, TripwireOwner,
        Write,
    },
    frame::{self, BlobGet, BlobPut, Close, Create, Disarm, MailboxKind, RequestBody, Seq},
    ids::{MailboxId, RunningHash},
    limits::MAX_BLOB_PART,
    time::Timestamp,
};
use rand_core::CryptoRng;
use serde_bytes::ByteBuf;

use super::{Cx, Fault, plan, renewal, voice};
use crate::store::{
    ChatId, ContactRow, Counter, MailboxRow, MailboxState, OpId, OpKind, OpRow, Order, Purpose, RelayRow,
    Unit,
};

/// What every message between two contacts is bound to, beside their identities.
pub(super) const DIRECT: Context<'static> = Context::new(b"direct");

/// A 32-byte secret of a record.
pub(super) fn seed(bytes: &[u8]) -> Result<[u8; 32], Fault> {
    bytes.try_into().map_err(|_| Fault::Inconsistent("a key has another length"))
}

/// Records an operation.
pub(super) fn push(
    cx: &mut Cx<'_, '_, '_>,
    relay: &RelayAddress,
    kind: OpKind,
    after: Option<MailboxId>,
) -> Result<OpId, Fault> {
    let id = cx.unit.next(Counter::Op)?;
    cx.unit.put(&id, &OpRow { relay: relay.clone(), kind, after, refused: None });
    Ok(id)
}

/// Makes a mailbox of ours and records that the relay has to create it.
pub(super) fn new_mailbox(
    cx: &mut Cx<'_, '_, '_>,
    relay: &RelayAddress,
    purpose: Purpose,
    kind: MailboxKind,
) -> Result<MailboxId, Fault> {
    let admin: SecretKey<Admin> = SecretKey::generate(cx.rng);
    let read: SecretKey<Read> = SecretKey::generate(cx.rng);
    let write: SecretKey<Write> = SecretKey::generate(cx.rng);
    let id = MailboxId::of_admin(&admin.public());
    let row = MailboxRow {
        relay: relay.clone(),
        purpose,
        state: MailboxState::Creating,
        kind,
        admin: Some(ByteBuf::from(admin.expose_seed().to_vec())),
        read: Some(ByteBuf::from(read.expose_seed().to_vec())),
        write: Some(ByteBuf::from(write.expose_seed().to_vec())),
        key: ByteBuf::from(cx.random::<32>().to_vec()),
        cursor: Seq::START,
        hash: Some(RunningHash::START),
        inconsistent: false,
        closes: None,
    };
    cx.unit.put(&id, &row);
    push(cx, relay, OpKind::Create { mailbox: id }, None)?;
    Ok(id)
}

/// Forgets a mailbox of ours and records that the relay has to close it.
pub(super) fn close_mailbox(cx: &mut Cx<'_, '_, '_>, id: &MailboxId) -> Result<(), Fault> {
    let Some(row) = cx.unit.get::<MailboxRow>(id)? else { return Ok(()) };
    cx.unit.delete::<MailboxRow>(id);
    // Where its creation still waits, that finds no record and is dropped. A relay that never saw the mailbox refuses to
    // close it, which ends the operation.
    if let Some(admin) = row.admin {
        push(cx, &row.relay, OpKind::Close { mailbox: *id, admin }, None)?;
    }
    Ok(())
}

/// How others send to a mailbox of ours.
pub(super) fn route_to(cx: &Cx<'_, '_, '_>, id: &MailboxId) -> Result<Route, Fault> {
    let row = cx.unit.get::<MailboxRow>(id)?.ok_or(Fault::Inconsistent("a mailbox is missing"))?;
    let write = row.write.ok_or(Fault::Inconsistent("a write key is missing"))?;
    Ok(Route {
        relay: row.relay,
        mailbox: *id,
        write: SecretKey::from_seed(seed(&write)?),
        key: EnvelopeKey::from_bytes(seed(&row.key)?),
    })
}

/// Seals `message` for a route and records that the relay has to store it.
pub(super) fn append(
    cx: &mut Cx<'_, '_, '_>,
    route: &Route,
    chat: ChatId,
    message: &[u8],
    order: Option<Order>,
    after: Option<MailboxId>,
) -> Result<OpId, Fault> {
    let envelope =
        envelope::seal(&route.key, &route.mailbox, message, &mut cx.rng).map_err(|_| Fault::TextTooLong)?;
    let kind = OpKind::Append {
        mailbox: route.mailbox,
        write: ByteBuf::from(route.write.expose_seed().to_vec()),
        key: ByteBuf::from(route.key.expose().to_vec()),
        envelope: ByteBuf::from(envelope),
        chat,
        order,
    };
    push(cx, &route.relay, kind, after)
}

/// Encrypts content for a contact, stages the advanced session and the envelope together.
pub(super) fn send_content(
    cx: &mut Cx<'_, '_, '_>,
    chat: ChatId,
    body: Body,
    order: Option<Order>,
    after: Option<MailboxId>,
) -> Result<MessageId, Fault> {
    let id = MessageId::from_bytes(cx.random());
    send_content_as(cx, chat, id, body, order, after)?;
    Ok(id)
}

/// As [`send_content`], with a chosen message id.
pub(super) fn send_content_as(
    cx: &mut Cx<'_, '_, '_>,
    chat: ChatId,
    id: MessageId,
    body: Body,
    order: Option<Order>,
    after: Option<MailboxId>,
) -> Result<(), Fault> {
    let mut contact = cx.unit.get::<ContactRow>(&chat)?.ok_or(Fault::NotDirect)?;
    let stored = contact.session.as_ref().ok_or(Fault::NotEstablished)?;
    let route = contact.route.as_ref().ok_or(Fault::NotEstablished)?;
    let route = Route::import(route).map_err(|_| Fault::Inconsistent("a route cannot be read"))?;
    let mut session = Session::import(stored)?;
    let content = Content { id, sent: cx.now, body };
    let now = cx.system_time();
    let plain = content.encode().map_err(|_| Fault::TextTooLong)?;
    let message = match session.encrypt(plain.expose(), DIRECT, now, &mut cx.rng) {
        Err(SessionError::Expired) => {
            let earlier = renewal::sealed_as_of(cx, &chat)?.ok_or(Fault::Session(SessionError::Expired))?;
            session.encrypt(plain.expose(), DIRECT, earlier, &mut cx.rng)?
        }
        other => other?,
    };
    contact.session = Some(ByteBuf::from(session.export()?.expose().to_vec()));
    cx.unit.put(&chat, &contact);
    append(cx, &route, chat, message.as_bytes(), order, after)?;
    Ok(())
}

/// Seals again for `route` what was waiting for another mailbox of the same contact (design 6.1).
pub(super) fn reroute(cx: &mut Cx<'_, '_, '_>, contact: ChatId, route: &Route) -> Result<(), Fault> {
    for (op, row) in cx.unit.scan::<OpRow>(&[])? {
        let OpKind::Append { mailbox, write: _, key, envelope, chat, order } = &row.kind else { continue };
        if *chat != contact || *mailbox == route.mailbox {
            continue;
        }
        let key = EnvelopeKey::from_bytes(seed(key)?);
        let message = envelope::open(&key, mailbox, envelope)
            .map_err(|_| Fault::Inconsistent("a waiting envelope cannot be opened"))?;
        cx.unit.delete::<OpRow>(&op);
        append(cx, route, contact, message.expose(), *order, row.after)?;
    }
    Ok(())
}

/// Our identity of a direct chat.
pub(super) fn local_identity(contact: &ContactRow) -> Result<LocalIdentity, Fault> {
    Ok(LocalIdentity::import(&contact.local)?)
}

/// What the driver has to do for an operation.
#[derive(Debug)]
pub enum OpStep {
    /// Prove these rights on the connection, then send the request.
    Send {
        /// Rights, each with what signs its proof.
        proofs: Vec<Proof>,
        /// The request.
        body: Box<RequestBody>,
    },
    /// A mailbox of ours has to exist first.
    Wait,
    /// Nothing to do any more; the operation can be dropped.
    Obsolete,
}

/// A right and the key that proves it.
#[derive(Debug)]
pub enum Proof {
    /// A right on a mailbox, by one of its keys.
    Admin(MailboxId, SecretKey<Admin>),
    /// To read.
    Read(MailboxId, SecretKey<Read>),
    /// To append.
    Write(MailboxId, SecretKey<Write>),
    /// The relay's access ticket.
    Access(SecretKey<Access>),
    /// A tripwire's owner.
    Tripwire(SecretKey<TripwireOwner>),
    /// A trusted contact's voice.
    Trigger(SecretKey<Trigger>),
}

impl Proof {
    /// What is proved.
    #[must_use]
    pub fn subject(&self) -> Subject {
        match self {
            Self::Admin(id, _) => Subject::Mailbox(*id, Right::Admin),
            Self::Read(id, _) => Subject::Mailbox(*id, Right::Read),
            Self::Write(id, _) => Subject::Mailbox(*id, Right::Write),
            Self::Access(key) => Subject::Access(key.public()),
            Self::Tripwire(key) => Subject::Tripwire(key.public()),
            Self::Trigger(key) => Subject::Trigger(key.public()),
        }
    }

    /// The request that proves it on the connection with this binding.
    #[must_use]
    pub fn request(&self, binding: &ChannelBinding) -> RequestBody {
        let subject = self.subject();
        let signature = match self {
            Self::Admin(_, key) => subject.prove(key, binding),
            Self::Read(_, key) => subject.prove(key, binding),
            Self::Write(_, key) => subject.prove(key, binding),
            Self::Access(key) => subject.prove(key, binding),
            Self::Tripwire(key) => subject.prove(key, binding),
            Self::Trigger(key) => subject.prove(key, binding),
        };
        RequestBody::Prove(frame::Prove { subject, signature })
    }
}

/// The request of an operation, for the connection with this binding.
///
/// # Errors
/// [`Fault`] where the records contradict each other.
pub fn request_of(
    unit: &Unit<'_>,
    row: &OpRow,
    binding: &ChannelBinding,
    now: Timestamp,
    rng: &mut dyn CryptoRng,
) -> Result<OpStep, Fault> {
    let is_coming = |mailbox: &MailboxId| -> Result<bool, Fault> {
        Ok(unit.get::<MailboxRow>(mailbox)?.is_some_and(|known| known.state == MailboxState::Creating))
    };
    // CON-04; and what is written to a log of ours waits until the log is there.
    let target = match &row.kind {
        OpKind::Append { mailbox, .. } => Some(mailbox),
        _ => None,
    };
    for first in row.after.iter().chain(target) {
        if is_coming(first)? {
            return Ok(OpStep::Wait);
        }
    }
    let send = |proofs, body| Ok(OpStep::Send { proofs, body: Box::new(body) });
    match &row.kind {
        OpKind::Create { mailbox } => {
            let Some(keys) = unit.get::<MailboxRow>(mailbox)? else { return Ok(OpStep::Obsolete) };
            let (Some(admin), Some(read), Some(write)) = (&keys.admin, &keys.read, &keys.write) else {
                return Ok(OpStep::Obsolete);
            };
            let read: SecretKey<Read> = SecretKey::from_seed(seed(read)?);
            let write: SecretKey<Write> = SecretKey::from_seed(seed(write)?);
            let admin = SecretKey::from_seed(seed(admin)?);
            let (proofs, access) = access(unit, row.relay.key())?;
            let create = Create::signed(&admin, read.public(), write.public(), keys.kind, access, binding);
            send(proofs, RequestBody::Create(create))
        }
        OpKind::Close { mailbox, admin } => {
            let proof = Proof::Admin(*mailbox, SecretKey::from_seed(seed(admin)?));
            send(vec![proof], RequestBody::Close(Close { mailbox: *mailbox }))
        }
        OpKind::Append { mailbox, write, envelope, key: _, chat: _, order: _ } => {
            // Who made a log appends with the admin key: the relay keeps room for that, so that no member can fill the log
            // against his own removal.
            let admin = unit.get::<MailboxRow>(mailbox)?.and_then(|row| row.admin);
            let proof = match admin {
                Some(admin) => Proof::Admin(*mailbox, SecretKey::from_seed(seed(&admin)?)),
                None => Proof::Write(*mailbox, SecretKey::from_seed(seed(write)?)),
            };
            let body = frame::Append { mailbox: *mailbox, envelope: envelope.clone() };
            send(vec![proof], RequestBody::Append(body))
        }
        OpKind::PutBlob { hash, bytes, offset } => {
            let (proofs, access) = access(unit, row.relay.key())?;
            let total = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            let start = usize::try_from(*offset).unwrap_or(usize::MAX).min(bytes.len());
            let end = start.saturating_add(MAX_BLOB_PART).min(bytes.len());
            let part = bytes.get(start..end).unwrap_or_default();
            let body = BlobPut { hash: *hash, total, offset: *offset, bytes: ByteBuf::from(part), access };
            send(proofs, RequestBody::BlobPut(body))
        }
        OpKind::GetBundle { hash, chat: _ } => {
            send(Vec::new(), RequestBody::BlobGet(BlobGet { hash: *hash, offset: 0 }))
        }
        OpKind::GetChain { hash, chat: _, got } => {
            let offset = u64::try_from(got.len()).unwrap_or(u64::MAX);
            send(Vec::new(), RequestBody::BlobGet(BlobGet { hash: *hash, offset }))
        }
        OpKind::Arm { plan } => {
            let Some((owner, arm)) = plan::arm_request(unit, plan, row.relay.key(), now, rng)? else {
                return Ok(OpStep::Obsolete);
            };
            let (mut proofs, access) = access(unit, row.relay.key())?;
            proofs.push(Proof::Tripwire(owner));
            send(proofs, RequestBody::Arm(frame::Arm { access, ..arm }))
        }
        OpKind::Disarm { owner } => {
            let owner: SecretKey<TripwireOwner> = SecretKey::from_seed(seed(owner)?);
            let body = Disarm { owner: owner.public() };
            send(vec![Proof::Tripwire(owner)], RequestBody::Disarm(body))
        }
        OpKind::Trigger { trust, tripwire } => {
            let Some((key, raise)) = voice::request(unit, trust, tripwire)? else {
                return Ok(OpStep::Obsolete);
            };
            send(vec![Proof::Trigger(key)], RequestBody::Trigger(raise))
        }
    }
}

pub(super) type AccessProof = (Vec<Proof>, Option<PublicKey<Access>>);

pub(super) fn access(unit: &Unit<'_>, relay: &RelayKey) -> Result<AccessProof, Fault> {
    let Some(row) = unit.get::<RelayRow>(relay.as_bytes())? else { return Ok((Vec::new(), None)) };
    let key: SecretKey<Access> = SecretKey::from_seed(seed(&row.access)?);
    let public = key.public();
    Ok((vec![Proof::Access(key)], Some(public)))
}
