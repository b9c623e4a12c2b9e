//! A writer that still answers while the other opens a full disk's engine anew.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, mpsc},
    task::{Context, Wake, Waker},
};

use lapwing_wire::{capability, frame::MailboxKind, ids::EnvelopeId};

use super::*;
use crate::store::{Born, Charge, Day, MailboxKeys, Mutation, fjall::Fjall, mailbox_id, tables::Writes};

/// Settling waits while `holds` is there, and finds a full disk while `full` is.
#[derive(Clone)]
struct Slow {
    inner: Fjall,
    holds: PathBuf,
    full: PathBuf,
}

impl Engine for Slow {
    type View = <Fjall as Engine>::View;
    type Direct<'a> = <Fjall as Engine>::Direct<'a>;
    type Group = <Fjall as Engine>::Group;

    const WRITERS: usize = Fjall::WRITERS;

    fn open(path: &Path) -> Result<Self, StoreError> {
        let [holds, full] = ["holds", "full"].map(|name| path.with_extension(name));
        Ok(Self { inner: Fjall::open(path)?, holds, full })
    }

    fn view(&self) -> Self::View {
        self.inner.view()
    }

    fn direct(&self) -> Self::Direct<'_> {
        self.inner.direct()
    }

    fn prepare(&self, bulk: &Writes, state: &Writes) -> Result<Self::Group, StoreError> {
        self.inner.prepare(bulk, state)
    }

    fn commit(&self, group: &Self::Group) -> Result<(), StoreError> {
        self.inner.commit(group)
    }

    fn settle(&self, group: Self::Group) -> Result<(), StoreError> {
        let is_held = self.holds.exists();
        while is_held && self.holds.exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
        if is_held && self.full.exists() { Err(StoreError::Full) } else { self.inner.settle(group) }
    }

    fn rest(&self) -> Result<(), StoreError> {
        self.inner.rest()
    }

    fn tidy(&self) -> Result<bool, StoreError> {
        self.inner.tidy()
    }
}

/// Who answers it is preempted there.
struct Preempt {
    begun: Mutex<mpsc::Sender<()>>,
    may_go: Mutex<bool>,
    goes: Condvar,
}

impl Wake for Preempt {
    fn wake(self: Arc<Self>) {
        self.begun.lock().unwrap().send(()).ok();
        let mut may_go = self.may_go.lock().unwrap();
        while !*may_go {
            may_go = self.goes.wait(may_go).unwrap();
        }
    }
}

fn keys() -> MailboxKeys {
    MailboxKeys {
        admin: capability::PublicKey::from_bytes([1; 32]),
        read: capability::PublicKey::from_bytes([2; 32]),
        write: capability::PublicKey::from_bytes([3; 32]),
    }
}

fn change(mutation: Mutation) -> Change {
    Change { mutation, now: Timestamp::from_millis(0), day: Day::new(1) }
}

fn create() -> Change {
    change(Mutation::Create {
        keys: keys(),
        kind: MailboxKind::Queue,
        charge: Charge::Open,
        born: Born::new(9),
    })
}

fn append(byte: u8) -> Change {
    let envelope = vec![byte; 1000];
    change(Mutation::Append {
        mailbox: mailbox_id(&keys().admin),
        born: Born::new(9),
        id: EnvelopeId::of(&envelope),
        envelope: Arc::new(envelope),
        limit: 1 << 20,
        reserve: 0,
    })
}

#[test]
fn a_writer_that_answers_while_the_other_opens_the_engine_anew_goes_on() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let is_closed = runtime.block_on(play());
    // Not waited for: it may hang.
    runtime.shutdown_background();
    assert!(is_closed, "the second group's writer waits for ever: the store cannot be closed");
}

/// Whether the store could be closed.
async fn play() -> bool {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions::at(dir.path().join("store"));
    let [holds, full] = ["holds", "full"].map(|name| options.path.with_extension(name));
    let store = Arc::new(GroupCommit::<Slow>::open(&options).unwrap());
    store.apply(create()).await.unwrap();
    while !store.is_settled() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for path in [&holds, &full] {
        std::fs::create_dir(path).unwrap();
    }
    // The first group is durable; its writer finds that the index cannot take it, a little later.
    store.apply(append(1)).await.unwrap();
    // The second is durable; its writer answers, and is preempted there.
    let (begun, has_begun) = mpsc::channel();
    let waker =
        Arc::new(Preempt { begun: Mutex::new(begun), may_go: Mutex::new(false), goes: Condvar::new() });
    let mut second = store.apply(append(2));
    let with = Waker::from(Arc::clone(&waker));
    assert!(second.as_mut().poll(&mut Context::from_waker(&with)).is_pending());
    has_begun.recv_timeout(Duration::from_secs(20)).expect("the second group is answered");
    std::fs::remove_dir(&holds).unwrap();
    while !store.health().is_full {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    std::fs::remove_dir(&full).unwrap();
    // There is room: the first writer opens the engine anew.
    let third = tokio::time::timeout(Duration::from_secs(20), store.apply(append(3))).await;
    let third = third.expect("the third is answered").unwrap();
    assert!(matches!(third, Outcome::Stored { place, .. } if place.seq.value() == 3), "{third:?}");
    *waker.may_go.lock().unwrap() = true;
    waker.goes.notify_all();
    assert!(matches!(second.await, Ok(Outcome::Stored { place, .. }) if place.seq.value() == 2));
    let closed = tokio::time::timeout(Duration::from_secs(10), store.close()).await;
    closed.is_ok()
}
