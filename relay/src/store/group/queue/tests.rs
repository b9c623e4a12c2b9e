use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread::{self, JoinHandle},
};

use futures_util::FutureExt;
use lapwing_wire::time::Timestamp;

use super::*;
use crate::store::{Day, tables::Writes};

/// Ends only what hangs.
const PATIENCE: Duration = Duration::from_secs(20);
const FAST: Duration = Duration::from_micros(10);
const SLOW: Duration = Duration::from_millis(5);

/// A queue as released programs have it, in which this thread is one of two writers.
struct Scene {
    queue: Arc<Queue>,
    other: JoinHandle<()>,
    calls: Receiver<Call>,
}

impl Scene {
    fn start() -> Self {
        let queue = Arc::new(Queue::new(2, None, Pace::MEASURED));
        let (told, calls) = channel();
        let of_other = Arc::clone(&queue);
        // The other writer says what it is woken for, stages nothing, and sleeps again.
        let other = thread::spawn(move || {
            loop {
                let call = of_other.next();
                told.send(call).ok();
                if call != Call::Stage {
                    break;
                }
                of_other.take(&mut Jobs::default());
                assert!(of_other.begin_commit());
                of_other.end_nothing();
            }
        });
        let scene = Self { queue, other, calls };
        scene.until_it_sleeps();
        scene
    }

    fn until_it_sleeps(&self) {
        let begun = now();
        while self.queue.lock().sleeping == 0 {
            assert!(begun.elapsed() < PATIENCE, "the other writer sleeps");
            thread::yield_now();
        }
    }

    fn push(&self, count: usize) {
        for _ in 0..count {
            let change =
                Change { mutation: Mutation::Tick, now: Timestamp::from_millis(0), day: Day::new(0) };
            let (answer, _) = oneshot::channel();
            self.queue.send(Job { change, answer }).now_or_never().expect("there is room").unwrap();
        }
    }

    /// This writer stages a job and goes to the disk with it.
    fn begin_commit(&self) -> Arc<Layer> {
        self.queue.lock().is_staging = true;
        self.push(1);
        let mut jobs = Jobs::default();
        self.queue.take(&mut jobs);
        assert_eq!((jobs.all.len(), self.queue.turn(&jobs)), (1, Turn::Commit));
        let group = Arc::new(Layer { bulk: Writes::default(), state: Writes::default() });
        self.queue.set_out(Arc::clone(&group));
        group
    }

    fn is_called(&self) -> bool {
        match self.calls.recv_timeout(PATIENCE) {
            Ok(call) => call == Call::Stage,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => false,
        }
    }

    fn end(self) {
        self.queue.close();
        assert!(matches!(self.calls.recv_timeout(PATIENCE), Ok(Call::End { .. })));
        self.other.join().unwrap();
    }

    /// Nobody was woken since: what would wake has been done by this thread, under the lock.
    fn sleeps_on(&self) -> bool {
        let state = self.queue.lock();
        state.sleeping == 1 && !state.is_called && self.calls.try_recv().is_err()
    }
}

#[test]
fn what_came_while_a_commit_ran_does_not_wait_until_it_is_settled() {
    // One alone, as many as are worth a waking, more; after fast commits and slow ones.
    for (count, took) in [(1, FAST), (3, FAST), (8, FAST), (20, FAST), (1, SLOW), (7, SLOW)] {
        let scene = Scene::start();
        for _ in 0..20 {
            scene.queue.lock().commit_time = took;
            let group = scene.begin_commit();
            scene.push(count);
            assert!(scene.sleeps_on(), "{count} changes beside a commit of {took:?} are not worth it");
            scene.queue.end_commit(Some(took), true, None);
            // This writer settles now, for however long.
            assert!(scene.is_called(), "{count} changes wait beside an idle disk");
            scene.until_it_sleeps();
            assert!(scene.queue.lock().jobs.is_empty());
            scene.queue.end_settling(&group);
        }
        scene.end();
    }
}

#[test]
fn enough_changes_beside_a_slow_commit_wake_the_other_writer_at_once() {
    let scene = Scene::start();
    scene.queue.lock().commit_time = SLOW;
    let group = scene.begin_commit();
    scene.push(Pace::MEASURED.worth - 1);
    assert!(scene.sleeps_on());
    scene.push(1);
    assert!(scene.is_called());
    scene.queue.end_commit(Some(SLOW), true, None);
    scene.queue.end_settling(&group);
    scene.until_it_sleeps();
    scene.end();
}

#[test]
fn a_change_alone_wakes_one_writer() {
    let scene = Scene::start();
    scene.push(1);
    assert!(scene.is_called());
    scene.until_it_sleeps();
    scene.end();
}
