//! What an opened message contains.
//!
//! ```text
//! content = CBOR map { "i": message id 16, "t": sent, ms since 1970, "k": kind, "b": CBOR of the body, as bytes }
//!
//! kind            body
//! "hello"         { "route": route, "alias": text or null }
//! "route"         route
//! "ready"         null
//! "text"          text, at most 16,000 bytes of UTF-8
//! "timer"         see timer.rs
//! "file"          see attachment/
//! "trust_request" "trust_accept" "trust_remove" "alert_ack" "voices"         see alert/
//! "group_invite" "group_join" "group_welcome" "group_decline"               see group/invite.rs
//! ```
//!
//! The body is bytes within bytes, so that an unknown kind is decoded as such without looking at its body.
//!
//! Invariants: decoding is bounded before it begins (CNT-01); an unknown kind is kept by name and is no error, a
//! known kind with another body is (CNT-02); texts and names keep their bounds both ways (CNT-03).
//! Known gap: `sent` and every text are whatever the peer wrote. Show them as such.

use std::fmt;

use lapwing_wire::{
    codec::{self, DecodeError},
    time::Timestamp,
};
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_bytes::ByteBuf;
use zeroize::Zeroize;

use crate::{
    alert::{AlertAck, RawVoices, TrustAnswer, TrustRequest, Voices},
    attachment::Attachment,
    group::{GroupDecline, GroupInvite, GroupJoin, GroupWelcome, MAX_NAME},
    renewal::{RenewalTicket, Successor},
    route::{RawRoute, Route},
    secret::SecretBytes,
    session::MAX_PLAINTEXT,
    timer::Timer,
};

/// Longest text, in bytes of UTF-8: with what surrounds it, a text fits an envelope of the largest class with room
/// to spare. Longer ones are split, or sent as an attachment.
pub const MAX_TEXT: usize = 16_000;

/// Longest name of a kind, in bytes. A longer one is malformed.
pub const MAX_KIND: usize = 32;

/// Names a message for as long as somebody keeps it: drawn at random by its author.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MessageId(#[serde(with = "serde_bytes")] [u8; 16]);

impl MessageId {
    /// A new id.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut bytes = [0; 16];
        rng.fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// The id with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The id's bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MessageId(..)")
    }
}

/// What an opened message contains.
pub struct Content {
    /// Chosen by the sender; makes display exactly once.
    pub id: MessageId,
    /// When the sender says that it was written.
    pub sent: Timestamp,
    /// What it says.
    pub body: Body,
}

/// What a message says.
#[non_exhaustive]
pub enum Body {
    /// A joiner's first message.
    Hello(Hello),
    /// The sender's mailbox from now on: the inviter's answer to a `Hello`, or a move.
    Route(Route),
    /// The sender has stored the other side's `Route` and uses it; older mailboxes may close once drained.
    Ready,
    /// Text from one person to others. Untrusted: never print it without escaping.
    Text(String),
    /// A file from one person to others, and what is said with it.
    File(Attachment),
    /// How long the sender wants messages of this chat to be kept once they were shown.
    Timer(Timer),
    /// Asks the peer to be a trusted contact.
    TrustRequest(TrustRequest),
    /// The peer agrees.
    TrustAccept(TrustAnswer),
    /// Either side ends it.
    TrustRemove(TrustAnswer),
    /// A trusted contact has seen an alert.
    AlertAck(AlertAck),
    /// What the peer can set off for the sender, together with others.
    Voices(Voices),
    /// Asks the peer to join a group.
    GroupInvite(GroupInvite),
    /// The peer wants to be added.
    GroupJoin(GroupJoin),
    /// The peer is a member; here is what it needs.
    GroupWelcome(GroupWelcome),
    /// The peer does not want to join, or is not wanted.
    GroupDecline(GroupDecline),
    /// With it the peer can begin the session anew when it is gone.
    RenewalTicket(RenewalTicket),
    /// The first content of a session that was begun anew: the sender's mailbox from now on.
    Renewal(Route),
    /// Another identity of the sender goes on with the chat.
    Successor(Successor),
    /// A kind that this version does not know. Shown as unsupported, never an error.
    Unsupported {
        /// The kind's name as sent; untrusted text.
        kind: String,
    },
}

/// A joiner's first message: where to send the answer.
pub struct Hello {
    /// The joiner's fresh mailbox.
    pub route: Route,
    /// How the joiner wants to be called, at most [`MAX_NAME`] bytes. Untrusted.
    pub alias: Option<String>,
}

/// Content that cannot be encoded or decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContentError {
    /// CNT-01, CNT-03: longer than one message may be. Split it.
    #[error("the message is too long")]
    TooLong,
    /// CNT-02: not content, or a known kind with another body. The sender is at fault; drop it.
    #[error("the message is malformed")]
    Malformed,
    /// An unsupported body was to be sent. Forwarding what one does not understand is not offered.
    #[error("the message is of an unsupported kind")]
    Unsupported,
}

impl From<DecodeError> for ContentError {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::TooLong => Self::TooLong,
            _ => Self::Malformed,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct RawContent {
    i: MessageId,
    t: Timestamp,
    k: String,
    b: ByteBuf,
}

#[derive(Serialize, Deserialize)]
struct RawHello {
    route: RawRoute,
    alias: Option<String>,
}

impl Content {
    /// The content's bytes, to be encrypted.
    ///
    /// # Errors
    /// [`ContentError::TooLong`], and [`ContentError::Unsupported`] for [`Body::Unsupported`].
    pub fn encode(&self) -> Result<SecretBytes, ContentError> {
        let Self { id, sent, body } = self;
        let (kind, body) = body.encode()?;
        let mut raw = RawContent { i: *id, t: *sent, k: kind.to_owned(), b: ByteBuf::from(body.expose()) };
        let bytes = SecretBytes::new(codec::encode(&raw));
        raw.b.as_mut_slice().zeroize();
        if bytes.expose().len() > MAX_PLAINTEXT { Err(ContentError::TooLong) } else { Ok(bytes) }
    }

    /// Reads a peer's content.
    ///
    /// # Errors
    /// [`ContentError::TooLong`] and [`ContentError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ContentError> {
        // CNT-01.
        let RawContent { i, t, k, b } = codec::decode(bytes, MAX_PLAINTEXT)?;
        let body = SecretBytes::new(b.into_vec());
        if k.len() > MAX_KIND {
            return Err(ContentError::Malformed);
        }
        Ok(Self { id: i, sent: t, body: Body::decode(k, body.expose())? })
    }
}

impl Body {
    /// The kind's name on the wire.
    #[must_use]
    pub fn kind(&self) -> &str {
        match self {
            Self::Hello(_) => "hello",
            Self::Route(_) => "route",
            Self::Ready => "ready",
            Self::Text(_) => "text",
            Self::File(_) => "file",
            Self::Timer(_) => "timer",
            Self::TrustRequest(_) => "trust_request",
            Self::TrustAccept(_) => "trust_accept",
            Self::TrustRemove(_) => "trust_remove",
            Self::AlertAck(_) => "alert_ack",
            Self::Voices(_) => "voices",
            Self::GroupInvite(_) => "group_invite",
            Self::GroupJoin(_) => "group_join",
            Self::GroupWelcome(_) => "group_welcome",
            Self::GroupDecline(_) => "group_decline",
            Self::RenewalTicket(_) => "renewal_ticket",
            Self::Renewal(_) => "renewal",
            Self::Successor(_) => "successor",
            Self::Unsupported { kind } => kind,
        }
    }

    fn encode(&self) -> Result<(&str, SecretBytes), ContentError> {
        let body = match self {
            Self::Hello(Hello { route, alias }) => {
                check_name(alias.as_deref(), ContentError::TooLong)?;
                codec::encode(&RawHello { route: route.raw(), alias: alias.clone() })
            }
            Self::Route(route) | Self::Renewal(route) => codec::encode(&route.raw()),
            Self::Ready => codec::encode(&()),
            Self::Text(text) => {
                check_text(text, ContentError::TooLong)?;
                codec::encode(text)
            }
            Self::File(attachment) => codec::encode(&attachment.raw()?),
            Self::Timer(timer) => codec::encode(&timer.raw()),
            Self::TrustRequest(request) => codec::encode(&request.raw()),
            Self::TrustAccept(answer) | Self::TrustRemove(answer) => codec::encode(answer),
            Self::AlertAck(ack) => codec::encode(ack),
            Self::Voices(voices) => codec::encode(&voices.raw()?),
            Self::GroupInvite(invite) => {
                check_name(Some(&invite.name), ContentError::TooLong)?;
                codec::encode(invite)
            }
            Self::GroupJoin(join) => codec::encode(&join.raw()),
            Self::GroupWelcome(welcome) => codec::encode(&welcome.raw()),
            Self::GroupDecline(decline) => codec::encode(decline),
            Self::RenewalTicket(ticket) => codec::encode(&ticket.raw()),
            Self::Successor(successor) => codec::encode(&successor.raw()),
            Self::Unsupported { kind: _ } => return Err(ContentError::Unsupported),
        };
        Ok((self.kind(), SecretBytes::new(body)))
    }

    fn decode(kind: String, body: &[u8]) -> Result<Self, ContentError> {
        Ok(match kind.as_str() {
            "hello" => {
                let RawHello { route, alias } = part(body)?;
                check_name(alias.as_deref(), ContentError::Malformed)?;
                Self::Hello(Hello { route: Route::from_raw(route), alias })
            }
            "route" => Self::Route(Route::from_raw(part(body)?)),
            "ready" => {
                let () = part(body)?;
                Self::Ready
            }
            "text" => {
                let text: String = part(body)?;
                check_text(&text, ContentError::Malformed)?;
                Self::Text(text)
            }
            "file" => Self::File(Attachment::from_raw(part(body)?)?),
            "timer" => Self::Timer(Timer::from_raw(&part(body)?)?),
            "trust_request" => Self::TrustRequest(TrustRequest::from_raw(part(body)?)),
            "trust_accept" => Self::TrustAccept(part(body)?),
            "trust_remove" => Self::TrustRemove(part(body)?),
            "alert_ack" => Self::AlertAck(part(body)?),
            "voices" => Self::Voices(Voices::from_raw(part::<RawVoices>(body)?)?),
            "group_invite" => {
                let invite: GroupInvite = part(body)?;
                check_name(Some(&invite.name), ContentError::Malformed)?;
                Self::GroupInvite(invite)
            }
            "group_join" => {
                Self::GroupJoin(GroupJoin::from_raw(part(body)?).map_err(|_| ContentError::Malformed)?)
            }
            "group_welcome" => {
                Self::GroupWelcome(GroupWelcome::from_raw(part(body)?).map_err(|_| ContentError::Malformed)?)
            }
            "group_decline" => Self::GroupDecline(part(body)?),
            "renewal_ticket" => Self::RenewalTicket(RenewalTicket::from_raw(part(body)?)?),
            "renewal" => Self::Renewal(Route::from_raw(part(body)?)),
            "successor" => {
                Self::Successor(Successor::from_raw(part(body)?).map_err(|_| ContentError::Malformed)?)
            }
            // CNT-02.
            _ => Self::Unsupported { kind },
        })
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id: _, sent: _, body: _ } = self;
        f.write_str("Content(..)")
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Body(..)")
    }
}

impl fmt::Debug for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { route: _, alias: _ } = self;
        f.write_str("Hello(..)")
    }
}

fn part<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ContentError> {
    codec::decode(bytes, MAX_PLAINTEXT).map_err(ContentError::from)
}

/// CNT-03.
fn check_text(text: &str, error: ContentError) -> Result<(), ContentError> {
    if text.len() > MAX_TEXT { Err(error) } else { Ok(()) }
}

/// CNT-03.
fn check_name(name: Option<&str>, error: ContentError) -> Result<(), ContentError> {
    if name.is_some_and(|name| name.len() > MAX_NAME) { Err(error) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{self, NOW};

    fn content(body: Body) -> Content {
        Content { id: MessageId::from_bytes([7; 16]), sent: NOW, body }
    }

    fn raw(kind: &str, body: &[u8]) -> Vec<u8> {
        codec::encode(&RawContent {
            i: MessageId::from_bytes([7; 16]),
            t: NOW,
            k: kind.to_owned(),
            b: ByteBuf::from(body),
        })
    }

    #[test]
    fn every_kind_round_trips() {
        for body in crate::vectors::bodies() {
            let bytes = content(body).encode().unwrap();
            let back = Content::decode(bytes.expose()).unwrap();
            assert!(!matches!(back.body, Body::Unsupported { .. }), "{}", back.body.kind());
            assert_eq!((back.id, back.sent), (MessageId::from_bytes([7; 16]), NOW));
            assert_eq!(back.encode().unwrap().expose(), bytes.expose(), "{}", back.body.kind());
        }
    }

    #[test]
    fn cnt_01_too_long_content_is_refused_before_it_is_read() {
        assert_eq!(Content::decode(&vec![0xff; MAX_PLAINTEXT + 1]).unwrap_err(), ContentError::TooLong);
    }

    #[test]
    fn cnt_02_unknown_kinds_survive_and_known_kinds_with_other_bodies_do_not() {
        let back = Content::decode(&raw("poll", &[0xff, 0x00])).unwrap();
        assert!(matches!(&back.body, Body::Unsupported { kind } if kind == "poll"));
        assert_eq!(back.encode().unwrap_err(), ContentError::Unsupported);
        for kind in [
            "hello",
            "route",
            "text",
            "file",
            "timer",
            "trust_request",
            "group_join",
            "group_welcome",
            "alert_ack",
            "voices",
        ] {
            assert_eq!(Content::decode(&raw(kind, &[0xf6])).unwrap_err(), ContentError::Malformed, "{kind}");
            assert_eq!(Content::decode(&raw(kind, &[])).unwrap_err(), ContentError::Malformed, "{kind}");
        }
        assert_eq!(Content::decode(&raw("ready", &[1])).unwrap_err(), ContentError::Malformed);
        assert_eq!(
            Content::decode(&raw(&"k".repeat(MAX_KIND + 1), &[])).unwrap_err(),
            ContentError::Malformed
        );
    }

    #[test]
    fn cnt_02_unknown_fields_are_ignored() {
        let bytes = content(Body::Ready).encode().unwrap().expose().to_vec();
        // One more pair in the map of four.
        assert_eq!(bytes[0], 0xa4);
        let mut more = bytes.clone();
        more[0] = 0xa5;
        more.extend_from_slice(&[0x61, b'z', 0x07]);
        assert!(matches!(Content::decode(&more).unwrap().body, Body::Ready));
    }

    #[test]
    fn cnt_03_texts_and_names_are_bounded_both_ways() {
        assert!(content(Body::Text("x".repeat(MAX_TEXT))).encode().is_ok());
        let long = "x".repeat(MAX_TEXT + 1);
        assert_eq!(
            Content::decode(&raw("text", &codec::encode(&long))).unwrap_err(),
            ContentError::Malformed
        );
        assert_eq!(content(Body::Text(long)).encode().unwrap_err(), ContentError::TooLong);
        let hello = Hello { route: testing::route(1), alias: Some("n".repeat(MAX_NAME + 1)) };
        assert_eq!(content(Body::Hello(hello)).encode().unwrap_err(), ContentError::TooLong);
    }

    #[test]
    fn debug_shows_neither_text_nor_kind() {
        let content = content(Body::Text("secret".to_owned()));
        assert_eq!(
            format!("{content:?} {:?} {:?}", content.body, content.id),
            "Content(..) Body(..) MessageId(..)"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn texts_round_trip(text in "\\PC{0,400}") {
            let bytes = content(Body::Text(text.clone())).encode().unwrap();
            let back = Content::decode(bytes.expose()).unwrap();
            prop_assert!(matches!(back.body, Body::Text(read) if read == text));
        }

        #[test]
        fn changed_content_never_panics(which in 0usize..18, at: prop::sample::Index, byte: u8) {
            let bodies = crate::vectors::bodies();
            let body = bodies.into_iter().nth(which).unwrap();
            let mut bytes = content(body).encode().unwrap().expose().to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(read) = Content::decode(&bytes) {
                // What was read can be written again, unless it is of an unknown kind.
                let again = read.encode();
                prop_assert!(again.is_ok() || matches!(read.body, Body::Unsupported { .. }), "written again");
            }
        }

        #[test]
        fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Content::decode(&bytes);
        }
    }
}
