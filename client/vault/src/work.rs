//! How much work this thread has done, counted: tests compare what unlocks cost, which a clock cannot tell for certain.

use std::cell::Cell;

/// Operations of one thread since they were last taken, and bytes they went over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Derivations from a passphrase.
    pub derivations: u64,
    /// Boxes, payloads, units that were to be opened, whether or not they did.
    pub openings: u64,
    /// Bytes of them.
    pub opened_bytes: u64,
    /// Sealings.
    pub sealings: u64,
    /// Bytes of them.
    pub sealed_bytes: u64,
    /// Outer layers put on or taken off.
    pub layers: u64,
    /// Bytes of them.
    pub layer_bytes: u64,
}

thread_local! {
    static DONE: Cell<Work> = const { Cell::new(Work {
        derivations: 0,
        openings: 0,
        opened_bytes: 0,
        sealings: 0,
        sealed_bytes: 0,
        layers: 0,
        layer_bytes: 0,
    }) };
}

/// What this thread did since this was last asked.
pub fn take() -> Work {
    DONE.take()
}

pub(crate) fn derived() {
    add(|work| work.derivations += 1);
}

pub(crate) fn opened(bytes: usize) {
    add(|work| {
        work.openings += 1;
        work.opened_bytes += bytes as u64;
    });
}

pub(crate) fn sealed(bytes: usize) {
    add(|work| {
        work.sealings += 1;
        work.sealed_bytes += bytes as u64;
    });
}

pub(crate) fn layered(bytes: usize) {
    add(|work| {
        work.layers += 1;
        work.layer_bytes += bytes as u64;
    });
}

fn add(change: impl FnOnce(&mut Work)) {
    let mut work = DONE.get();
    change(&mut work);
    DONE.set(work);
}
