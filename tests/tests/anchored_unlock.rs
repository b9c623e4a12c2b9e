//! Whole unlocks against an anchor: the client's library, a real relay over QUIC, and a header in small.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::{net::SocketAddr, sync::Arc};

use lapwing::net::{Link, QuicTransport, Transport};
use lapwing_protocol::anchor::{
    AnchorError, AnchorInput, Attempt, NewAnchor, NewEntry, Opened, Shown, anchored_slot_key, commit,
};
use lapwing_relay::{
    clock::SystemClock,
    key::RelaySecret,
    limits::Limits,
    server::{Server, ServerOptions},
    service::Service,
    store::{StoreOptions, fjall::FjallStore},
};
use lapwing_wire::{
    address::RelayAddress,
    anchor::{Deed, GroupKey, OuterKey},
    capability::{AnchorOwner, SecretKey, Subject, Thaw},
    frame::{AnchorAnswer, AnchorRequest, Prove, Refusal, RequestBody, ResponseBody, ThawRule},
    ids::AnchorId,
    time::Timestamp,
};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use sha2::{Digest, Sha256};

const NOW: Timestamp = Timestamp::from_millis(1_750_000_000_000);

/// A header copy in small: one slot, whose inner layer needs passphrase and share, under the outer key.
#[derive(Clone)]
struct Header {
    sealed: [u8; 64],
}

const SALT: [u8; 16] = *b"salt of a vault.";
const PAYLOAD: [u8; 32] = *b"the keys of everything that is..";

fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

fn root(passphrase: &str) -> [u8; 32] {
    hash(&[&SALT, passphrase.as_bytes()])
}

fn xor(bytes: &mut [u8; 64], key: &[u8; 32], label: &[u8]) {
    for (half, chunk) in (0u8..).zip(bytes.chunks_mut(32)) {
        for (byte, mask) in chunk.iter_mut().zip(hash(&[key, label, &[half]])) {
            *byte ^= mask;
        }
    }
}

impl Header {
    fn seal(passphrase: &str, opened: &lapwing_wire::anchor::VaultShare, outer: &OuterKey) -> Self {
        let slot = anchored_slot_key(&root(passphrase), opened);
        let mut sealed = [0; 64];
        sealed[..32].copy_from_slice(&PAYLOAD);
        sealed[32..].copy_from_slice(&hash(&[&*slot, &PAYLOAD]));
        xor(&mut sealed, &slot, b"inner");
        xor(&mut sealed, outer.expose(), b"outer");
        Self { sealed }
    }

    fn open(&self, passphrase: &str, opened: &Opened, outer: &OuterKey) -> Option<[u8; 32]> {
        let slot = anchored_slot_key(&root(passphrase), &opened.share);
        let mut bytes = self.sealed;
        xor(&mut bytes, outer.expose(), b"outer");
        xor(&mut bytes, &slot, b"inner");
        let payload: [u8; 32] = bytes[..32].try_into().unwrap();
        (hash(&[&*slot, &payload]) == bytes[32..]).then_some(payload)
    }
}

struct Place {
    service: Arc<Service>,
    server: Server,
    link: Arc<dyn Link>,
}

impl Place {
    async fn start(folder: &std::path::Path, secret: &RelaySecret) -> Self {
        let store = FjallStore::open(&StoreOptions::at(folder.join("store"))).unwrap();
        let limits = Limits { open_creation: true, ..Limits::default() };
        let mut rng = rand();
        let service = Arc::new(Service::start(Arc::new(store), limits, &mut rng, NOW).await.unwrap());
        let options =
            ServerOptions { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..ServerOptions::default() };
        let server = Server::start(&options, secret, Arc::clone(&service), Arc::new(SystemClock)).unwrap();
        let address =
            RelayAddress::new(secret.public().unwrap(), "127.0.0.1", server.address().port()).unwrap();
        let link = QuicTransport::default().connect(&address).await.unwrap();
        Self { service, server, link }
    }

    async fn ask(&self, request: AnchorRequest) -> ResponseBody {
        self.link.request(RequestBody::Anchor(request)).await.unwrap()
    }

    async fn stop(self) {
        self.link.close();
        self.server.shutdown(&self.service).await;
    }

    async fn open(
        &self,
        anchor: &AnchorId,
        passphrase: &str,
        remembered: Option<u64>,
    ) -> Result<(Shown, Result<Opened, AnchorError>), Refusal> {
        let input = AnchorInput::derive(&root(passphrase));
        let attempt = Attempt::begin(anchor, &input, &mut rand()).unwrap();
        let shown = match self.ask(attempt.request()).await {
            ResponseBody::Anchor(AnchorAnswer::Evaluated(evaluated)) => attempt.prove(&evaluated).unwrap(),
            ResponseBody::Refused(refusal) => return Err(refusal),
            other => panic!("{other:?}"),
        };
        match self.ask(shown.request()).await {
            ResponseBody::Anchor(AnchorAnswer::Released(release)) => {
                let opened = shown.open(&release, remembered);
                Ok((shown, opened))
            }
            ResponseBody::Refused(refusal) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }
}

fn rand() -> ChaCha20Rng {
    ChaCha20Rng::from_os_rng()
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_anchored_header_opens_with_the_relay_only_and_an_older_image_stays_shut() {
    let dir = tempfile::tempdir().unwrap();
    let secret = RelaySecret::generate(&mut rand());
    let place = Place::start(dir.path(), &secret).await;
    let owner = SecretKey::<AnchorOwner>::generate(&mut rand());
    let anchor = AnchorId::of_owner(&owner.public());
    let inputs = ["everyday", "under duress"].map(|words| AnchorInput::derive(&root(words)));
    let groups = [(); 2].map(|()| GroupKey::generate(&mut rand()));
    let entries: Vec<_> = inputs
        .iter()
        .zip(&groups)
        .zip([false, true])
        .map(|((input, group), destroys)| NewEntry {
            input,
            deed: Deed { fires: None, destroys, group: group.clone() },
        })
        .collect();
    let first = OuterKey::generate(&mut rand());
    let thaw =
        ThawRule { threshold: 1, voices: vec![SecretKey::<Thaw>::generate(&mut rand()).public()], kit: None };
    let made = NewAnchor::make(&owner, 1, first.clone(), &entries, thaw, None, &mut rand()).unwrap();
    let subject = Subject::Anchor(owner.public());
    let signature = subject.prove(&owner, &place.link.binding());
    place.link.request(RequestBody::Prove(Prove { subject, signature })).await.unwrap();
    assert_eq!(place.ask(AnchorRequest::Create(made.create)).await, ResponseBody::Done);
    let image = Header::seal("everyday", &made.shares[0], &first);

    // An unlock: the next outer key is staged, the header written, the key committed.
    let (shown, opened) = place.open(&anchor, "everyday", None).await.unwrap();
    let opened = opened.unwrap();
    assert_eq!(image.open("everyday", &opened, &opened.outer), Some(PAYLOAD));
    let second = OuterKey::generate(&mut rand());
    let stage = shown.stage(&second, opened.serial + 1, &mut rand());
    assert_eq!(place.ask(stage).await, ResponseBody::Done);
    let header = Header::seal("everyday", &opened.share, &second);
    // The program dies before it commits. What counts is the header, whichever was written last.
    for newest in [&image, &header] {
        let (_, found) = place.open(&anchor, "everyday", Some(1)).await.unwrap();
        let found = found.unwrap();
        let settled = found.settle(|key| newest.open("everyday", &found, key).is_some());
        assert_eq!(newest.open("everyday", &found, &settled.outer), Some(PAYLOAD));
    }
    assert_eq!(place.ask(commit(&anchor, second.stage())).await, ResponseBody::Done);
    let (_, found) = place.open(&anchor, "everyday", Some(2)).await.unwrap();
    let found = found.unwrap();
    assert_eq!((found.serial, found.staged.is_none()), (2, true));
    assert_eq!(header.open("everyday", &found, &found.outer), Some(PAYLOAD));
    assert_eq!(
        image.open("everyday", &found, &found.outer),
        None,
        "an image from before, with the right passphrase"
    );

    // A copy of the relay from here is noticed later on.
    place.stop().await;
    copy(&dir.path().join("store"), &dir.path().join("old/store"));
    let place = Place::start(dir.path(), &secret).await;
    let (shown, opened) = place.open(&anchor, "everyday", Some(2)).await.unwrap();
    let third = OuterKey::generate(&mut rand());
    assert_eq!(
        place.ask(shown.stage(&third, opened.unwrap().serial + 1, &mut rand())).await,
        ResponseBody::Done
    );
    assert_eq!(place.ask(commit(&anchor, third.stage())).await, ResponseBody::Done);
    assert!(place.open(&anchor, "everyday", Some(3)).await.unwrap().1.is_ok());
    let old = Place::start(&dir.path().join("old"), &secret).await;
    let (_, found) = old.open(&anchor, "everyday", Some(3)).await.unwrap();
    assert_eq!(found.unwrap_err(), AnchorError::RolledBack);
    old.stop().await;

    // The other passphrase ends the first, here and in every copy of the file.
    let (_, cover) = place.open(&anchor, "under duress", None).await.unwrap();
    assert!(cover.unwrap().outer == third);
    assert_eq!(place.open(&anchor, "everyday", None).await.unwrap_err(), Refusal::NotAllowed);
    place.stop().await;
}
