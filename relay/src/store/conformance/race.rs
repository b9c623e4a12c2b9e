//! A writer that still answers while the other opens a full disk's engine anew.

use std::{
    sync::{Arc, Condvar, Mutex, mpsc},
    task::{Context, Wake, Waker},
};

use super::{faults::Faulty, *};
use crate::store::{KeptStore, StoreOptions, group::GroupCommit};

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
    let [holds, fills] = ["holds", "fills"].map(|name| options.path.with_extension(name));
    let store = Arc::new(GroupCommit::<Faulty>::open(&options).unwrap());
    let owner = Owner::new(9);
    done(&*store, owner.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
    while !store.is_settled() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for path in [&holds, &fills] {
        std::fs::create_dir(path).unwrap();
    }
    // The first group is durable; its writer finds that the index cannot take it, a little later.
    apply(&*store, owner.append(envelope(1, 1000)), 1).await.unwrap();
    // The second is durable; its writer answers, and is preempted there.
    let (begun, has_begun) = mpsc::channel();
    let waker =
        Arc::new(Preempt { begun: Mutex::new(begun), may_go: Mutex::new(false), goes: Condvar::new() });
    let mut second = std::pin::pin!(apply(&*store, owner.append(envelope(2, 1000)), 1));
    let with = Waker::from(Arc::clone(&waker));
    assert!(second.as_mut().poll(&mut Context::from_waker(&with)).is_pending());
    has_begun.recv_timeout(Duration::from_secs(20)).expect("the second group is answered");
    std::fs::remove_dir(&holds).unwrap();
    while !store.health().is_full {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    std::fs::remove_dir(&fills).unwrap();
    // There is room: the first writer opens the engine anew.
    let third =
        tokio::time::timeout(Duration::from_secs(20), apply(&*store, owner.append(envelope(3, 1000)), 1))
            .await;
    let third = third.expect("the third is answered").unwrap();
    assert!(matches!(third, Outcome::Stored { place, .. } if place.seq.value() == 3), "{third:?}");
    *waker.may_go.lock().unwrap() = true;
    waker.goes.notify_all();
    assert!(matches!(second.await, Ok(Outcome::Stored { place, .. }) if place.seq.value() == 2));
    let closed = tokio::time::timeout(Duration::from_secs(10), store.close()).await;
    closed.is_ok()
}
