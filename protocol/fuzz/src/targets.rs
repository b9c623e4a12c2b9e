//! What each fuzz target does with its input. Shared with the test that replays the corpus.

use std::{
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use lapwing_protocol::session::{
    BundleIn, BundleUse, Context, LocalIdentity, OwnSenderKey, PeerSenderKey, Session, SessionError,
    accept_first, claimed_sender, distribution_of,
};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

/// The context of every message here.
pub const CONTEXT: Context<'static> = Context::new(b"fuzz");

/// A fixed world: everything in it is made from one seed, so a corpus stays meaningful.
pub struct World {
    /// Stored identity of the receiver, with one reusable bundle.
    pub bob: Vec<u8>,
    /// Stored session of the receiver, as it is after the first message and an answer.
    pub bob_session: Vec<u8>,
    /// A first message by somebody else for the receiver's bundle.
    pub first: Vec<u8>,
    /// The next message of the session.
    pub next: Vec<u8>,
    /// The receiver's bundle.
    pub bundle: Vec<u8>,
    /// Stored sender key of a peer.
    pub peer_key: Vec<u8>,
    /// The distribution it came from.
    pub distribution: Vec<u8>,
    /// A message under it.
    pub group_message: Vec<u8>,
    /// Stored sender key of the author.
    pub own_key: Vec<u8>,
}

/// The fixed world.
pub fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| build().expect("the fixed world can be built"))
}

fn build() -> Result<World, SessionError> {
    let mut rng = ChaCha20Rng::from_seed([7; 32]);
    let rng = &mut rng;
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let mut bob = LocalIdentity::generate(rng)?;
    let bundle = bob.new_bundle(BundleUse::Many, now, rng)?.encode()?;
    let decoded = BundleIn::decode(&bundle)?.verify()?;

    let mut alice = LocalIdentity::generate(rng)?;
    let mut alice_session = Session::initiate(&alice, &decoded, now, rng)?;
    let hello = alice_session.encrypt(b"hello", CONTEXT, now, rng)?;
    let mut bob_session = accept_first(&mut bob, None, hello.as_bytes(), CONTEXT, rng)?.session;
    let answer = bob_session.encrypt(b"answer", CONTEXT, now, rng)?;
    alice_session.decrypt(&mut alice, answer.as_bytes(), CONTEXT, rng)?;
    let next = alice_session.encrypt(b"next", CONTEXT, now, rng)?.into_bytes();

    let carol = LocalIdentity::generate(rng)?;
    let first = Session::initiate(&carol, &decoded, now, rng)?.encrypt(b"first", CONTEXT, now, rng)?;

    let mut own_key = OwnSenderKey::generate(alice.public(), rng)?;
    let distribution = own_key.distribution(rng)?.expose().to_vec();
    let peer_key = PeerSenderKey::accept(alice.public(), &distribution)?.export()?.expose().to_vec();
    let group_message = own_key.encrypt(b"group", CONTEXT, rng)?.into_bytes();
    Ok(World {
        bob: bob.export()?.expose().to_vec(),
        bob_session: bob_session.export()?.expose().to_vec(),
        first: first.into_bytes(),
        next,
        bundle,
        peer_key,
        distribution,
        group_message,
        own_key: own_key.export()?.expose().to_vec(),
    })
}

/// A message from outside, for an existing session and as a first message. Nothing panics inside libsignal, and a
/// refusal changes nothing.
pub fn session_message(data: &[u8]) {
    let world = world();
    let mut rng = ChaCha20Rng::from_seed([9; 32]);
    let mut bob = LocalIdentity::import(&world.bob).expect("stored identity");
    let mut session = Session::import(&world.bob_session).expect("stored session");
    let _ = claimed_sender(data);
    match session.decrypt(&mut bob, data, CONTEXT, &mut rng) {
        Ok(_) => {}
        Err(error) => {
            assert_ne!(error, SessionError::Panicked);
            assert_eq!(session.export().expect("export").expose(), &world.bob_session);
            assert_eq!(bob.export().expect("export").expose(), &world.bob);
        }
    }
    let mut bob = LocalIdentity::import(&world.bob).expect("stored identity");
    if let Err(error) = accept_first(&mut bob, None, data, CONTEXT, &mut rng) {
        assert_ne!(error, SessionError::Panicked);
        assert_eq!(bob.export().expect("export").expose(), &world.bob);
    }
}

/// A bundle from outside: what is accepted encodes to something that is accepted, and a session can begin with it.
pub fn bundle(data: &[u8]) {
    let Ok(bundle) = BundleIn::decode(data).and_then(BundleIn::verify) else { return };
    let encoded = bundle.encode().expect("a verified bundle has an encoding");
    let again = BundleIn::decode(&encoded).and_then(BundleIn::verify).expect("its encoding is accepted");
    assert_eq!(again.identity(), bundle.identity());
    let mut rng = ChaCha20Rng::from_seed([9; 32]);
    let local = LocalIdentity::generate(&mut rng).expect("identity");
    let begun = Session::initiate(&local, &again, SystemTime::UNIX_EPOCH, &mut rng);
    assert_ne!(begun.err(), Some(SessionError::Panicked));
}

/// A sender-key message and a distribution from outside.
pub fn sender_key(data: &[u8]) {
    let world = world();
    let mut key = PeerSenderKey::import(&world.peer_key).expect("stored sender key");
    let _ = distribution_of(data);
    if let Err(error) = key.decrypt(data, CONTEXT) {
        assert_ne!(error, SessionError::Panicked);
        assert_eq!(key.export().expect("export").expose(), &world.peer_key);
    }
    let author = *key.author();
    match PeerSenderKey::accept(&author, data) {
        Ok(mut key) => {
            let outcome = key.decrypt(&world.group_message, CONTEXT);
            assert_ne!(outcome.err(), Some(SessionError::Panicked));
        }
        Err(error) => assert_ne!(error, SessionError::Panicked),
    }
}

/// Stored forms: whatever the bytes, importing neither panics nor accepts what it would not write again.
pub fn stored_state(data: &[u8]) {
    if let Ok(local) = LocalIdentity::import(data) {
        let again = local.export().expect("export");
        assert!(LocalIdentity::import(again.expose()).is_ok());
    }
    if let Ok(session) = Session::import(data) {
        let again = session.export().expect("export");
        assert!(Session::import(again.expose()).is_ok());
    }
    if let Ok(key) = OwnSenderKey::import(data) {
        assert!(OwnSenderKey::import(key.export().expect("export").expose()).is_ok());
    }
    if let Ok(key) = PeerSenderKey::import(data) {
        assert!(PeerSenderKey::import(key.export().expect("export").expose()).is_ok());
    }
}

/// Two people, a network that loses, repeats, reorders and alters, and restarts at any moment: every byte of `data` is
/// one event. What arrives unaltered for the first time is read; nothing else is.
pub fn interaction(data: &[u8]) {
    /// Longer inputs find nothing that shorter ones do not.
    const MAX_EVENTS: usize = 400;
    let mut rng = ChaCha20Rng::from_seed([11; 32]);
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let mut locals = [(); 2].map(|()| LocalIdentity::generate(&mut rng).expect("identity"));
    let bundle = locals[1].new_bundle(BundleUse::Once, now, &mut rng).expect("bundle");
    let other = locals[0].new_bundle(BundleUse::Once, now, &mut rng).expect("bundle");
    let mut sessions = [
        Session::initiate(&locals[0], &bundle, now, &mut rng).ok(),
        // The second begins as well, or waits to be written to.
        data.first()
            .filter(|byte| *byte & 1 == 1)
            .and_then(|_| Session::initiate(&locals[1], &other, now, &mut rng).ok()),
    ];
    // For each receiver: bytes, text, whether it was read.
    let mut network: [Vec<(Vec<u8>, u32, bool)>; 2] = [Vec::new(), Vec::new()];
    for (number, event) in (0_u32..).zip(data.iter().take(MAX_EVENTS)) {
        let (who, what, at) = (usize::from(event & 1), event >> 1 & 7, usize::from(event >> 4));
        let waiting = network[who].len();
        match what {
            0..=2 => {
                if let Some(session) = &mut sessions[who] {
                    let text = number.to_be_bytes();
                    let message = session.encrypt(&text, CONTEXT, now, &mut rng).expect("encrypt");
                    network[1 - who].push((message.into_bytes(), number, false));
                }
            }
            3 => {
                if let Some(session) = &mut sessions[who] {
                    let stored = session.export().expect("export");
                    *session = Session::import(stored.expose()).expect("what was stored is read");
                }
                let stored = locals[who].export().expect("export");
                locals[who] = LocalIdentity::import(stored.expose()).expect("what was stored is read");
            }
            4 if waiting > 0 => {
                let (mut message, ..) = network[who][at % waiting].clone();
                let position = (usize::try_from(number).unwrap_or(0) * 31) % message.len();
                message[position] ^= 1 << (number % 8);
                if let Some(session) = &mut sessions[who] {
                    let before = session.export().expect("export");
                    // The registration id of a first message is under no MAC: such a message may still be read.
                    if let Err(error) = session.decrypt(&mut locals[who], &message, CONTEXT, &mut rng) {
                        assert_ne!(error, SessionError::Panicked);
                        assert_eq!(session.export().expect("export").expose(), before.expose());
                    } else {
                        network[who][at % waiting].2 = true;
                    }
                }
            }
            _ if waiting > 0 => {
                let (message, text, read) = network[who][at % waiting].clone();
                let outcome = match &mut sessions[who] {
                    Some(session) => session.decrypt(&mut locals[who], &message, CONTEXT, &mut rng),
                    None => {
                        accept_first(&mut locals[who], None, &message, CONTEXT, &mut rng).map(|accepted| {
                            sessions[who] = Some(accepted.session);
                            accepted.plaintext
                        })
                    }
                };
                match outcome {
                    Ok(plaintext) => {
                        assert!(!read, "a message was read twice");
                        assert_eq!(plaintext.expose(), text.to_be_bytes());
                        network[who][at % waiting].2 = true;
                    }
                    Err(error) => {
                        assert!(read && error == SessionError::Duplicate, "{error:?}, read: {read}")
                    }
                }
            }
            _ => {}
        }
    }
}
