//! Requests, responses and notices: what travels between client and relay.
//!
//! ```text
//! frame    = length (u32 BE, at most MAX_FRAME) | CBOR item of that length
//! stream   = the client opens bidirectional streams; each carries requests one way and responses the other
//! notices  = after the first `subscribe`, the relay opens one unidirectional stream per connection
//! ```
//! Invariants: FRM-01 a longer claim ends the connection before a byte of it is read; FRM-02 every request gets
//! exactly one response with its number, not necessarily in order; FRM-03 a request whose number can be read but
//! whose body cannot is answered `unsupported`; FRM-04 unknown and forbidden mailboxes get the same answer.
//! Unknown map keys are ignored, except in [`Arm`]: a deadline that an older relay overlooks would be dangerous.

mod anchor;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::{
    capability::{
        Access, Admin, ChannelBinding, PublicKey, Read as ReadRight, SecretKey, Signature, Subject, Trigger,
        TripwireOwner, Write,
    },
    codec::{self, DecodeError},
    ids::{BlobHash, EnvelopeId, MailboxId, RunningHash, TripwireId},
    labels,
    limits::{FRAME_PREFIX, MAX_FRAME},
    sharing::Share,
    succession::Succession,
    tripwire::{Causes, SealedList, Status, Token, TokenRecord},
};

pub use anchor::{
    AddEntry, AnchorAnswer, AnchorRequest, CreateAnchor, Evaluate, ProveEntry, RaiseThaw, Release,
    RemoveAnchor, SetEntry, Settle, Stage, ThawRule,
};

/// ALPN name of this version of the protocol, unless the operator configures another.
pub const ALPN: &[u8] = b"lapwing/1";

/// Number of an envelope in its mailbox: 1, 2, 3, ... A cursor is the number of the last one taken; 0 before all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(u64);

impl Seq {
    /// Before the first envelope.
    pub const START: Self = Self(0);

    /// The number `n`.
    pub const fn new(n: u64) -> Self {
        Self(n)
    }

    /// The number.
    pub const fn value(self) -> u64 {
        self.0
    }

    /// The number after this one. A mailbox never reaches the end of 64 bits.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The number before this one; before the first envelope nothing is.
    #[must_use]
    pub const fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

/// One request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the client; the response repeats it.
    pub id: u64,
    /// What is asked.
    pub body: RequestBody,
}

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestBody {
    /// Proves a right on this connection. Answer: `done` or `refused`.
    Prove(Prove),
    /// Creates a mailbox; again with the same keys is `done` again.
    Create(Create),
    /// Ends a mailbox and deletes what it holds. Needs `admin`. A mailbox that is not there is `done`.
    Close(Close),
    /// Appends an envelope. Needs `write` or `admin`. Answer: `stored`, after it is on disk.
    Append(Append),
    /// Reads a window. Needs `read`. Answer: `window`.
    Read(Read),
    /// As `read`, and from then on notices for what comes after. Needs `read`. Answer: `window`.
    Subscribe(Read),
    /// Ends the notices of a mailbox. Answer: `done`.
    Unsubscribe(Close),
    /// Deletes what was taken, in a queue; does nothing in a log. Needs `read`. Answer: `done`.
    Ack(Ack),
    /// Stores a part of a blob. Needs an access proof. Answer: `blob_progress`.
    BlobPut(BlobPut),
    /// Reads a part of a blob; who knows its hash may. Answer: `blob_part`.
    BlobGet(BlobGet),
    /// Arms a tripwire, replacing what its owner armed before. Needs the owner's proof and an access proof.
    Arm(Arm),
    /// Removes a tripwire. Needs the owner's proof. Answer: `done`, whether it was there or not.
    Disarm(Disarm),
    /// Presents a token. The answer is always `token`, whatever the token means.
    Token(PresentToken),
    /// Raises a trusted contact's voice in setting off a tripwire. Needs the proof of its key. The answer is always `done`.
    Trigger(RaiseTrigger),
    /// About an anchor.
    Anchor(AnchorRequest),
    /// Asks for all changes of the relay's key. Needs no right. Answer: `lineage`.
    Lineage,
}

/// Proof of a right; see [`Subject::prove`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prove {
    /// What is proved.
    pub subject: Subject,
    /// The proof.
    pub signature: Signature,
}

/// Whether taking an envelope removes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MailboxKind {
    /// One reader, who acknowledges; acknowledged envelopes are deleted.
    Queue,
    /// Many readers; envelopes are deleted by age.
    Log,
}

/// Creation of a mailbox; its id is the hash of `admin`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Create {
    /// Whose hash is the id.
    pub admin: PublicKey<Admin>,
    /// Who may read.
    pub read: PublicKey<ReadRight>,
    /// Who may append.
    pub write: PublicKey<Write>,
    /// Queue or log.
    pub kind: MailboxKind,
    /// The access ticket, proved on this connection, whose quota is charged. `None` where the operator lets
    /// everybody create.
    pub access: Option<PublicKey<Access>>,
    /// By the admin key, over this connection and all the above.
    pub signature: Signature,
}

impl Create {
    /// CAP-04: a signed creation for the connection with this binding.
    pub fn signed(
        admin: &SecretKey<Admin>,
        read: PublicKey<ReadRight>,
        write: PublicKey<Write>,
        kind: MailboxKind,
        access: Option<PublicKey<Access>>,
        binding: &ChannelBinding,
    ) -> Self {
        let signature = admin.sign(labels::CREATE, &create_parts(binding, &read, &write, kind));
        Self { admin: admin.public(), read, write, kind, access, signature }
    }

    /// Whether the signature belongs to the admin key and this connection.
    pub fn is_authentic(&self, binding: &ChannelBinding) -> bool {
        let parts = create_parts(binding, &self.read, &self.write, self.kind);
        self.admin.verify(labels::CREATE, &parts, &self.signature).is_ok()
    }

    /// The id of the mailbox.
    pub fn mailbox(&self) -> MailboxId {
        MailboxId::of_admin(&self.admin)
    }
}

fn create_parts<'a>(
    binding: &'a ChannelBinding,
    read: &'a PublicKey<ReadRight>,
    write: &'a PublicKey<Write>,
    kind: MailboxKind,
) -> [&'a [u8]; 4] {
    let kind: &[u8] = match kind {
        MailboxKind::Queue => b"queue",
        MailboxKind::Log => b"log",
    };
    [binding.as_bytes(), read.as_bytes(), write.as_bytes(), kind]
}

/// Names a mailbox to close or to unsubscribe from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Close {
    /// Which.
    pub mailbox: MailboxId,
}

/// An envelope for a mailbox. Its id is the hash of its bytes, so a retry needs nothing else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Append {
    /// Where to.
    pub mailbox: MailboxId,
    /// Sealed, of one of the four sizes.
    pub envelope: ByteBuf,
}

/// A window after a cursor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Read {
    /// Which mailbox.
    pub mailbox: MailboxId,
    /// The last number that was taken.
    pub after: Seq,
    /// Most envelopes wanted; the relay's own bound applies too.
    pub count: u16,
}

/// What was taken: everything to `upto`, and single numbers above it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ack {
    /// Which mailbox.
    pub mailbox: MailboxId,
    /// Everything to this number.
    pub upto: Seq,
    /// And these.
    #[serde(default)]
    pub also: Vec<Seq>,
}

/// A part of a blob. Parts may be sent again; they must come in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlobPut {
    /// Hash of the whole blob.
    pub hash: BlobHash,
    /// Length of the whole blob in bytes.
    pub total: u64,
    /// Where this part starts.
    pub offset: u64,
    /// The part.
    pub bytes: ByteBuf,
    /// The access ticket, proved on this connection, whose quota is charged.
    pub access: Option<PublicKey<Access>>,
}

/// Asks for a part of a blob.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlobGet {
    /// Hash of the whole blob.
    pub hash: BlobHash,
    /// Where to start.
    pub offset: u64,
}

/// A tripwire as its owner wants it from now on. Fields that this relay does not know make it `unsupported`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arm {
    /// Its owner, who proved the key on this connection; the id is the hash of it.
    pub owner: PublicKey<TripwireOwner>,
    /// The access ticket, proved on this connection, whose quota is charged.
    pub access: Option<PublicKey<Access>>,
    /// Counted up by the owner at each arming; a lower or equal one is refused unless all else is equal.
    pub serial: u64,
    /// All of one size; several may have the same token.
    pub records: Vec<TokenRecord>,
    /// What a token that fires sets off, sealed under a key that only such tokens' records hold.
    pub token_list: SealedList,
    /// What else sets it off.
    #[serde(default, skip_serializing_if = "Causes::is_empty")]
    pub causes: Causes,
}

/// Names the tripwire to remove.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Disarm {
    /// Its owner, who proved the key on this connection.
    pub owner: PublicKey<TripwireOwner>,
}

/// A token, as every unlock of every vault sends it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PresentToken {
    /// The token. It leaves nothing at the relay but what its records say.
    pub token: Token,
}

/// A trusted contact's voice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RaiseTrigger {
    /// Which tripwire.
    pub tripwire: TripwireId,
    /// Whose voice; proved on this connection.
    pub key: PublicKey<Trigger>,
    /// Its part of the list's key.
    pub share: Share,
}

/// The answer to the request with the same number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// The request's number.
    pub id: u64,
    /// The answer.
    pub body: ResponseBody,
}

/// What a relay answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResponseBody {
    /// It is so, on disk.
    Done,
    /// The envelope is on disk.
    Stored(Stored),
    /// Envelopes after the cursor.
    Window(Window),
    /// The blob's parts that are on disk end here; equal to its length when it is complete.
    BlobProgress(u64),
    /// A part of a blob.
    BlobPart(BlobPart),
    /// The answer to every token, of one size.
    Token(Status),
    /// About an anchor.
    Anchor(AnchorAnswer),
    /// All changes of the relay's key, in the order of time; at most `MAX_LINEAGE`.
    Lineage(Vec<Succession>),
    /// It was not done.
    Refused(Refusal),
}

/// FRM-06: the place of an envelope; the same for each retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Its number.
    pub seq: Seq,
    /// FRM-07: the mailbox's running hash after it.
    pub hash: RunningHash,
}

/// Envelopes of a mailbox, in the order of their numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// Which mailbox.
    pub mailbox: MailboxId,
    /// The number of the newest envelope that was ever stored, taken or not; a reader whose cursor is above it
    /// talks to a relay that was rolled back.
    pub newest: Seq,
    /// The envelopes.
    pub items: Vec<Item>,
}

/// One stored envelope.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// Its place.
    pub place: Stored,
    /// Its bytes.
    pub envelope: ByteBuf,
}

impl Item {
    /// The envelope's id.
    pub fn id(&self) -> EnvelopeId {
        EnvelopeId::of(&self.envelope)
    }
}

/// A part of a blob.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlobPart {
    /// Length of the whole blob.
    pub total: u64,
    /// From the offset that was asked for; empty at the end.
    pub bytes: ByteBuf,
}

/// Why something was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// FRM-04: there is no such thing, or not for you. One answer for both.
    NotAllowed,
    /// The access ticket is missing, unknown, expired or used up.
    NoAccess,
    /// The mailbox is full; it empties when its reader takes what is there, or with time.
    Full,
    /// The relay takes no new things now; what it has accepted is safe.
    Busy,
    /// Larger than a limit, or not of one of the four sizes.
    TooLarge,
    /// It contradicts what is there: other keys for this mailbox, other bytes for this blob, an old serial.
    Conflict,
    /// Too many guesses were made at this anchor. Trusted contacts, or the recovery kit, let it go on.
    Frozen,
    /// This relay does not know the request.
    Unsupported,
}

/// What a relay says unasked: envelopes that came after a subscription's cursor, in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Notice {
    /// New envelopes of a subscribed mailbox.
    Window(Window),
}

/// The number of a request whose body could not be read.
#[derive(Deserialize)]
struct Numbered {
    id: u64,
}

/// FRM-03: a request, or the number to answer `unsupported` to.
///
/// # Errors
/// [`DecodeError`] where not even a number can be read: the connection has no future.
pub fn decode_request(bytes: &[u8]) -> Result<Result<Request, u64>, DecodeError> {
    match codec::decode::<Request>(bytes, MAX_FRAME) {
        Ok(request) => Ok(Ok(request)),
        Err(DecodeError::TooLong) => Err(DecodeError::TooLong),
        Err(error) => match codec::decode::<Numbered>(bytes, MAX_FRAME) {
            Ok(Numbered { id }) => Ok(Err(id)),
            Err(_) => Err(error),
        },
    }
}

/// The bytes of a frame, length prefix included.
///
/// # Errors
/// [`DecodeError::TooLong`] if the value does not fit into one frame.
pub fn encode_frame<T: Serialize>(value: &T) -> Result<Vec<u8>, DecodeError> {
    let mut out = Vec::with_capacity(256);
    encode_frame_onto(value, &mut out)?;
    Ok(out)
}

/// The same behind what is in `out`, so that a window of envelopes is not copied from one buffer to the next.
///
/// # Errors
/// As [`encode_frame`]; `out` is then as it was.
pub fn encode_frame_onto<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME_PREFIX]);
    codec::encode_onto(value, out);
    let length = out.len() - start - FRAME_PREFIX;
    let prefix = u32::try_from(length).ok().filter(|_| length <= MAX_FRAME);
    let place = out.get_mut(start..start + FRAME_PREFIX);
    let (Some(prefix), Some(place)) = (prefix, place) else {
        out.truncate(start);
        return Err(DecodeError::TooLong);
    };
    place.copy_from_slice(&prefix.to_be_bytes());
    Ok(())
}

/// FRM-01: the length that a prefix claims.
///
/// # Errors
/// [`DecodeError::TooLong`] above [`MAX_FRAME`].
pub fn frame_length(prefix: [u8; 4]) -> Result<usize, DecodeError> {
    let length = usize::try_from(u32::from_be_bytes(prefix)).map_err(|_| DecodeError::TooLong)?;
    if length > MAX_FRAME { Err(DecodeError::TooLong) } else { Ok(length) }
}
