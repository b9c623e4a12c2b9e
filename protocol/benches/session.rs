//! What sessions cost: `cargo bench -p lapwing-protocol --bench session`. Figures are in `docs/performance.md`.
//!
//! Every measured call asserts its result. Sessions are read from and written to their stored form as in the
//! client, where an operation begins with a stored record and ends with one.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    unreachable_pub,
    dead_code,
    reason = "a bench fails by panicking, and shares its helpers with the tests"
)]

#[path = "../tests/session/support.rs"]
mod support;

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use lapwing_protocol::session::{
    BundleUse, LocalIdentity, MAX_COUNTER_AHEAD, OwnSenderKey, PeerSenderKey, Session, SessionError,
    accept_first,
};
use libsignal_protocol as signal;
use support::{CONTEXT, Side, begun, forged, fresh_key, now, pair, rng, wire};

/// A short text, as most are.
const TEXT: [u8; 100] = [b'x'; 100];

fn reopened(side: &Side) -> Side {
    let (session, local) = side.stored();
    Side {
        session: Session::import(&session).unwrap(),
        local: LocalIdentity::import(&local).unwrap(),
        rng: rng(9),
    }
}

fn direct(c: &mut Criterion) {
    let (mut alice, mut bob) = pair(1);
    for _ in 0..10 {
        let ping = alice.send(&TEXT);
        bob.receive(&ping).unwrap();
        let pong = bob.send(&TEXT);
        alice.receive(&pong).unwrap();
    }
    c.bench_function("direct/encrypt", |b| {
        b.iter_batched_ref(|| reopened(&alice), |side| black_box(side.send(&TEXT)), BatchSize::SmallInput);
    });
    let message = alice.send(&TEXT);
    c.bench_function("direct/decrypt", |b| {
        b.iter_batched_ref(
            || reopened(&bob),
            |side| assert_eq!(side.receive(&message).unwrap(), TEXT),
            BatchSize::SmallInput,
        );
    });
    c.bench_function("direct/store and read back", |b| {
        b.iter(|| {
            let stored = bob.session.export().unwrap();
            assert_eq!(Session::import(stored.expose()).unwrap().peer(), bob.session.peer());
        });
    });
}

fn handshake(c: &mut Criterion) {
    c.bench_function("handshake/new identity and bundle", |b| {
        let mut rng = rng(2);
        b.iter(|| {
            let mut local = LocalIdentity::generate(&mut rng).unwrap();
            assert!(
                !local.new_bundle(BundleUse::Once, now(), &mut rng).unwrap().encode().unwrap().is_empty()
            );
        });
    });
    let (inviter, mut joiner) = begun(3, BundleUse::Once);
    let stored = inviter.export().unwrap();
    let first = joiner.send(&TEXT);
    c.bench_function("handshake/accept", |b| {
        b.iter_batched_ref(
            || LocalIdentity::import(stored.expose()).unwrap(),
            |local| {
                let accepted = accept_first(local, None, first.as_bytes(), CONTEXT, &mut rng(4)).unwrap();
                assert_eq!(accepted.plaintext.expose(), TEXT);
            },
            BatchSize::SmallInput,
        );
    });
}

/// What somebody can make us do who may deliver to the mailbox but is not the peer.
fn forgeries(c: &mut Criterion) {
    let (alice, mut bob) = pair(5);
    let forgery = |counter, field: &[u8]| {
        let message = forged(fresh_key(6), counter, field, &alice.session);
        wire(&signal::CiphertextMessage::SignalMessage(message))
    };
    let cases = [
        (
            "forgery/counter 25000, refused by the guard",
            forgery(25_000, &[1, 1, 0, 0]),
            SessionError::TooFarAhead,
        ),
        ("forgery/three-byte field, refused by the guard", forgery(0, &[1, 1, 0]), SessionError::Malformed),
        ("forgery/counter 0, refused by libsignal", forgery(0, &[1, 1, 0, 0]), SessionError::Undecryptable),
        (
            "forgery/farthest counter, refused by libsignal",
            forgery(MAX_COUNTER_AHEAD, &[1, 1, 0, 0]),
            SessionError::Undecryptable,
        ),
        (
            // The post-quantum ratchet has an index of its own; libsignal allows it 25,000 steps.
            "forgery/farthest post-quantum index, refused by libsignal",
            forgery(0, &[1, 1, 0xA8, 0xC3, 0x01, 0]),
            SessionError::Undecryptable,
        ),
    ];
    let mut group = c.benchmark_group("hostile");
    group.sample_size(20);
    for (name, message, error) in cases {
        group.bench_function(name, |b| b.iter(|| assert_eq!(bob.receive_bytes(&message), Err(error))));
    }
    group.finish();
}

fn group(c: &mut Criterion) {
    let mut rng = rng(7);
    let author = LocalIdentity::generate(&mut rng).unwrap();
    let own = OwnSenderKey::generate(author.public(), &mut rng).unwrap();
    let peer = PeerSenderKey::accept(author.public(), own.distribution(&mut rng).unwrap().expose()).unwrap();
    let (own, peer) = (own.export().unwrap(), peer.export().unwrap());
    let key = || OwnSenderKey::import(own.expose()).unwrap();
    c.bench_function("group/encrypt", |b| {
        b.iter_batched_ref(
            key,
            |key| black_box(key.encrypt(&TEXT, CONTEXT, &mut rng).unwrap()),
            BatchSize::SmallInput,
        );
    });
    let message = key().encrypt(&TEXT, CONTEXT, &mut rng).unwrap();
    c.bench_function("group/decrypt", |b| {
        b.iter_batched_ref(
            || PeerSenderKey::import(peer.expose()).unwrap(),
            |key| assert_eq!(key.decrypt(message.as_bytes(), CONTEXT).unwrap().expose(), TEXT),
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, direct, handshake, forgeries, group);
criterion_main!(benches);
