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
    panic::{catch_unwind, set_hook, take_hook},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use lapwing_protocol::session::{Session, SessionError};
use support::{CURRENT_SESSION, PQ_RATCHET_STATE, edited, pair, record_of, with_field};

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

#[test]
fn ses_07_a_panic_of_libsignal_is_an_error_makes_no_noise_and_changes_nothing() {
    let before_us = take_hook();
    set_hook(Box::new(|_| {
        HEARD.fetch_add(1, Ordering::SeqCst);
    }));

    let (mut alice, mut bob) = pair(1);
    let whole = bob.session.export().unwrap();
    let message = alice.send(b"genuine");

    bob.session = Session::import(&damaged(&bob.session)).unwrap();
    bob.refuses(message.as_bytes(), SessionError::Panicked);
    let stored = bob.stored();
    let sent = bob.session.encrypt(b"text", support::CONTEXT, support::now(), &mut bob.rng);
    assert_eq!(sent, Err(SessionError::Panicked));
    assert!(bob.stored() == stored);
    assert_eq!(HEARD.load(Ordering::SeqCst), 0, "a contained panic was heard");

    // The hook is back, for this thread and for others.
    assert!(catch_unwind(|| panic!("aloud")).is_err());
    assert_eq!(HEARD.load(Ordering::SeqCst), 1);
    assert!(thread::spawn(|| panic!("aloud")).join().is_err());
    assert_eq!(HEARD.load(Ordering::SeqCst), 2);

    // The record as it was before the damage still works.
    bob.session = Session::import(whole.expose()).unwrap();
    assert_eq!(bob.receive(&message).unwrap(), b"genuine");
    set_hook(before_us);
}
