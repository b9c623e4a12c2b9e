//! A panic inside libsignal is contained, silent, and leaves everything as it was (SES-07).
//!
//! Alone in its file: the panic hook belongs to the whole process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    dead_code,
    unreachable_pub,
    reason = "a test fails by panicking, and shares its helpers with the other test binary"
)]

#[path = "session/support.rs"]
mod support;

use std::{
    panic::{PanicHookInfo, catch_unwind, set_hook, take_hook},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use lapwing_protocol::session::{BundleUse, Session, SessionError};
use rand_chacha::{
    ChaCha20Rng,
    rand_core::{CryptoRng, RngCore},
};
use support::{
    CONTEXT, CURRENT_SESSION, PQ_RATCHET_STATE, begun, edited, now, pair, record_of, rng, with_field,
};

static HEARD: AtomicUsize = AtomicUsize::new(0);

/// Fields of SPQR's `pq_ratchet.proto`: the chain, its links, each link's two directions, their next key.
const CHAIN: u64 = 2;
const LINKS: u64 = 3;
const DIRECTIONS: [u64; 2] = [1, 2];
const NEXT: u64 = 2;

/// A stored session in which libsignal will find an empty chain key, which it asserts not to exist.
fn damaged(session: &Session) -> Vec<u8> {
    let record = with_field(&record_of(session), CURRENT_SESSION, |current| {
        Some(with_field(current, PQ_RATCHET_STATE, |state| {
            Some(with_field(state, CHAIN, |chain| {
                Some(with_field(chain, LINKS, |link| {
                    let one = with_field(link, DIRECTIONS[0], |half| Some(with_field(half, NEXT, |_| None)));
                    Some(with_field(&one, DIRECTIONS[1], |half| Some(with_field(half, NEXT, |_| None))))
                }))
            }))
        }))
    });
    edited(session.export().unwrap().expose(), "rec", |stored| *stored = ciborium::Value::Bytes(record))
}

type Hook = Box<dyn Fn(&PanicHookInfo<'_>) + Sync + Send>;

/// Where a hook lies: the same hook has the same address, and no other hook has it meanwhile.
fn address(hook: &Hook) -> usize {
    (&raw const **hook).cast::<()>().addr()
}

/// A hook that counts, and is not of size zero, so that it has an address of its own.
fn counting() -> Hook {
    let by: usize = std::hint::black_box(1);
    Box::new(move |_| {
        HEARD.fetch_add(by, Ordering::SeqCst);
    })
}

/// A generator that sets a panic hook while libsignal draws from it: somebody else does so during a call.
struct Intruder<'a> {
    rng: &'a mut ChaCha20Rng,
    hook: Option<Hook>,
}

impl RngCore for Intruder<'_> {
    fn next_u32(&mut self) -> u32 {
        self.rng.next_u32()
    }

    fn next_u64(&mut self) -> u64 {
        self.rng.next_u64()
    }

    fn fill_bytes(&mut self, out: &mut [u8]) {
        if let Some(hook) = self.hook.take() {
            set_hook(hook);
        }
        self.rng.fill_bytes(out);
    }
}

impl CryptoRng for Intruder<'_> {}

#[test]
fn ses_07_a_panic_of_libsignal_is_an_error_makes_no_noise_and_changes_nothing() {
    let before_us = take_hook();
    let ours = counting();
    let our_address = address(&ours);
    set_hook(ours);

    let (mut alice, mut bob) = pair(1);
    let whole = bob.session.export().unwrap();
    let message = alice.send(b"genuine");

    bob.session = Session::import(&damaged(&bob.session)).unwrap();
    bob.refuses(message.as_bytes(), SessionError::Panicked);
    let stored = bob.stored();
    let sent = bob.session.encrypt(b"text", CONTEXT, now(), &mut bob.rng);
    assert_eq!(sent, Err(SessionError::Panicked));
    assert!(bob.stored() == stored);
    assert_eq!(HEARD.load(Ordering::SeqCst), 0, "a contained panic was heard");

    // The hook is back, for this thread and for others.
    assert!(catch_unwind(|| panic!("aloud")).is_err());
    assert_eq!(HEARD.load(Ordering::SeqCst), 1);
    assert!(thread::spawn(|| panic!("aloud")).join().is_err());
    assert_eq!(HEARD.load(Ordering::SeqCst), 2);
    // It is the very same hook, not one wrapped once more by every call.
    let ours = take_hook();
    assert_eq!(address(&ours), our_address);
    set_hook(ours);

    // The record as it was before the damage still works.
    bob.session = Session::import(whole.expose()).unwrap();
    assert_eq!(bob.receive(&message).unwrap(), b"genuine");

    // A hook that is set during a call stays.
    let (mut inviter, _) = begun(2, BundleUse::Once);
    let bundle = inviter.new_bundle(BundleUse::Once, now(), &mut rng(3)).unwrap();
    let other = counting();
    let other_address = address(&other);
    let mut intruder = Intruder { rng: &mut rng(4), hook: Some(other) };
    Session::initiate(&bob.local, &bundle, now(), &mut intruder).unwrap();
    assert!(intruder.hook.is_none(), "the call drew nothing from the generator");
    assert_eq!(address(&take_hook()), other_address);
    set_hook(before_us);
}
