//! Fuzz targets of what the session layer carries: envelopes, tickets, content, alerts, groups. Shared with the test
//! that replays the corpus.

use std::{
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use lapwing_protocol::{
    alert::{Alert, AlertError, AlertKey},
    content::{Body, Content, ContentError},
    envelope::{self, EnvelopeKey, MAX_CONTENT},
    group::{
        AuthorTrack, DirectBody, Entry, EpochKeys, ForkProof, Group, GroupContent, GroupError, GroupId,
        InvitationId, MemberEntry, Role, Settings,
    },
    labels,
    renewal::{RefusalIn, TicketSecret},
    route::Route,
    session::{BundleUse, LocalIdentity, claimed_handshake},
    ticket::{self, Ticket},
};
use lapwing_wire::{
    address::{RelayAddress, RelayKey},
    armor,
    capability::{AlertSigner, SecretKey, Signature},
    codec,
    ids::MailboxId,
    time::Timestamp,
};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

const MAILBOX: MailboxId = MailboxId::from_bytes([1; 32]);

fn key() -> EnvelopeKey {
    EnvelopeKey::from_bytes([3; 32])
}

/// An envelope from outside opens only if it was sealed, and what is sealed opens.
pub fn envelope(data: &[u8]) {
    let mut rng = ChaCha20Rng::from_seed([9; 32]);
    let _ = envelope::open(&key(), &MAILBOX, data);
    match envelope::seal(&key(), &MAILBOX, data, &mut rng) {
        Ok(sealed) => {
            let opened = envelope::open(&key(), &MAILBOX, &sealed).expect("an own envelope opens");
            assert_eq!(opened.expose(), data);
        }
        Err(_) => assert!(data.len() > MAX_CONTENT),
    }
}

/// A ticket's text, its payload, its blob. What is read is written the same again.
pub fn ticket(data: &[u8]) {
    let now = Timestamp::from_millis(0);
    let texts = [String::from_utf8_lossy(data).into_owned(), armor::encode("lapwing", data)];
    for text in texts {
        if let Ok(read) = Ticket::from_text(&text, now) {
            let again = Ticket::from_text(&read.to_text(), now).expect("an own ticket is read");
            assert_eq!(again.to_text(), read.to_text());
            assert!(read.open_bundle(data).is_err());
        }
    }
    let _ = ticket::open_bundle(&key(), data);
    if let Ok(route) = Route::import(data) {
        assert!(Route::import(route.export().expose()).is_ok());
    }
    if let Ok(keys) = EpochKeys::import(data) {
        assert_eq!(EpochKeys::import(keys.export().expose()).expect("own keys").hash(), keys.hash());
    }
}

/// Content from a peer. What is read is written and read again; what is verified inside does not panic.
pub fn content(data: &[u8]) {
    let _ = RefusalIn::parse(data).map(|refusal| refusal.is_genuine(&TicketSecret::from_bytes([1; 32])));
    let Ok(read) = Content::decode(data) else { return };
    let me = *group().roster().iter().next().expect("the founder").0;
    match &read.body {
        Body::GroupJoin(join) => {
            let _ = join.verify(join.group, join.invitation);
        }
        Body::GroupWelcome(welcome) => {
            let _ = welcome.open(welcome.group, welcome.invitation, &me, Some(data));
            let _ = welcome.open(group().id(), InvitationId::from_bytes([9; 16]), &me, None);
        }
        Body::RenewalTicket(ticket) => {
            let _ = ticket.bundle_of(&group().roster().iter().next().expect("the founder").1.identity);
        }
        Body::Successor(successor) => {
            let _ = claimed_handshake(&successor.first);
        }
        _ => {}
    }
    match read.encode() {
        Ok(bytes) => {
            let again = Content::decode(bytes.expose()).expect("own content is read");
            assert_eq!(again.encode().expect("as before").expose(), bytes.expose());
        }
        Err(error) => assert!(error == ContentError::Unsupported || error == ContentError::TooLong),
    }
}

/// A sealed alert; and a statement that the owner has really signed, whatever it says.
pub fn alert(data: &[u8]) {
    #[derive(serde::Serialize)]
    struct Signed<'a> {
        #[serde(with = "serde_bytes")]
        s: &'a [u8],
        g: Signature,
    }
    let key = AlertKey::from_bytes([1; 32]);
    let signer: SecretKey<AlertSigner> = SecretKey::from_seed([2; 32]);
    let _ = Alert::open(data, &key, &signer.public());
    let g = signer.sign(labels::ALERT_STATEMENT.as_bytes(), &[data]);
    let signed = codec::encode(&Signed { s: data, g });
    let nonce = [7; 24];
    let cipher = XChaCha20Poly1305::new(key.expose().into());
    let payload = Payload { msg: &signed, aad: labels::ALERT.as_bytes() };
    let body = cipher.encrypt(XNonce::from_slice(&nonce), payload).expect("short");
    let sealed = [&nonce[..], &body].concat();
    match Alert::open(&sealed, &key, &signer.public()) {
        Ok(opened) => {
            let mut rng = ChaCha20Rng::from_seed([9; 32]);
            let again = opened.alert().seal(&key, &signer, &mut rng).expect("what was read is in bounds");
            let again = Alert::open(&again, &key, &signer.public()).expect("an own alert opens");
            assert!(again.alert() == opened.alert());
        }
        Err(error) => assert_ne!(error, AlertError::NotGenuine),
    }
}

/// Commits, chains, wishes to leave and proofs from outside; a stored chain, whose signatures are not looked at, so
/// that the rules are reached.
pub fn group_chain(data: &[u8]) {
    let group = group();
    match group.verify(data) {
        Ok(staged) => assert!(staged.commit().group == group.id()),
        Err(error) => assert_ne!(error, GroupError::Stale),
    }
    let _ = group.verify_leave(data);
    let _ = Group::from_chain(&[data]);
    if let Ok(proof) = ForkProof::decode(data) {
        assert!(ForkProof::decode(&proof.encode()).expect("own proof") == proof);
        let _ = proof.verify(group);
    }
    if let Ok(read) = Group::import(data) {
        let again = Group::import(&read.export()).expect("what was stored is read");
        assert!(again.head() == read.head() && again.roster_hash() == read.roster_hash());
        let commits: Vec<Vec<u8>> = read.commits().map(<[u8]>::to_vec).collect();
        if let Ok(verified) = Group::from_chain(&commits) {
            assert!(verified.head() == read.head());
        }
    }
}

/// What lies in a log, and what members tell each other about it.
pub fn group_log(data: &[u8]) {
    if let Ok(entry) = Entry::decode(data) {
        match entry.encode() {
            Ok(bytes) => assert!(Entry::decode(&bytes).expect("own entry") == entry),
            Err(error) => {
                assert!(matches!(error, GroupError::NeedsNewerVersion | GroupError::TooLong));
            }
        }
    }
    if let Ok(body) = DirectBody::decode(data)
        && let Ok(bytes) = body.encode()
    {
        let again = DirectBody::decode(bytes.expose()).expect("own body");
        assert_eq!(again.encode().expect("as before").expose(), bytes.expose());
    }
    if let Ok(message) = GroupContent::decode(data) {
        let author = message.binding().author;
        let _ = group().check_message(&author, message.binding());
        let mut track = AuthorTrack::new();
        if let Ok(checked) = track.check(&message) {
            track.merge(checked);
            assert!(track.check(&message).is_err(), "read twice");
        }
    }
    if let Ok(track) = AuthorTrack::import(data) {
        assert!(AuthorTrack::import(&track.export()).is_ok());
    }
}

/// A group of one, the same in every run.
fn group() -> &'static Group {
    static GROUP: OnceLock<Group> = OnceLock::new();
    GROUP.get_or_init(|| {
        let mut rng = ChaCha20Rng::from_seed([7; 32]);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let mut me = LocalIdentity::generate(&mut rng).expect("identity");
        let bundle = me.new_bundle(BundleUse::Many, now, &mut rng).expect("bundle");
        let founder = MemberEntry {
            identity: *me.public(),
            bundle: bundle.encode().expect("an own bundle"),
            name: "founder".to_owned(),
            role: Role::Owner,
        };
        let keys = EpochKeys {
            epoch: 0,
            relay: RelayAddress::new(RelayKey::of_spki(b"fuzz"), "example.org", 443).expect("an address"),
            mailbox: MAILBOX,
            read: SecretKey::from_seed([1; 32]),
            write: SecretKey::from_seed([2; 32]),
            key: key(),
        };
        let made = Timestamp::from_millis(1_800_000_000_000);
        let group = Group::create(&me, founder, "fuzz", Settings::default(), &keys, made, &mut rng);
        let group = group.expect("a group");
        assert!(group.id() != GroupId::from_bytes([0; 32]));
        group
    })
}
