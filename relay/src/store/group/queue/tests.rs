use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread::{self, JoinHandle},
};

use lapwing_wire::time::Timestamp;

use super::*;
use crate::store::{Day, tables::Writes};

/// Ends only what hangs.
const PATIENCE: Duration = Duration::from_secs(20);
const FAST: Duration = Duration::from_micros(10);
const SLOW: Duration = Duration::from_millis(5);
/// What waits until then waits for ever, and less than until a test that hangs is ended.
const NEVER: Duration = Duration::from_secs(120);
/// Nobody is ever late.
const PATIENT: Pace = Pace { late: NEVER, ..Pace::MEASURED };

/// A queue as released programs have it, in which this thread is one of two writers.
struct Scene {
    queue: Arc<Queue>,
    other: JoinHandle<()>,
    calls: Receiver<Call>,
}

impl Scene {
    fn start(pace: Pace) -> Self {
        let queue = Arc::new(Queue::new(2, None, pace));
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
                if of_other.must_forget() {
                    of_other.set_forget_at(None);
                }
                of_other.must_tidy();
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
        while !self.is_asleep() {
            assert!(begun.elapsed() < PATIENCE, "the other writer sleeps");
            thread::yield_now();
        }
    }

    /// And was not called.
    fn is_asleep(&self) -> bool {
        let state = self.queue.lock();
        !state.sleepers.is_empty() && !state.is_called
    }

    fn push(&self, count: usize) {
        for _ in 0..count {
            let change =
                Change { mutation: Mutation::Tick, now: Timestamp::from_millis(0), day: Day::new(0) };
            let (answer, _) = oneshot::channel();
            self.queue.send(Job { change, answer }).unwrap();
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
        state.sleepers.len() == 1 && !state.is_called && self.calls.try_recv().is_err()
    }
}

#[test]
fn what_came_while_a_commit_ran_does_not_wait_until_it_is_settled() {
    // One alone, as many as are worth a waking, more; after fast commits and slow ones.
    for (count, took) in [(1, FAST), (3, FAST), (8, FAST), (20, FAST), (1, SLOW), (7, SLOW)] {
        let scene = Scene::start(Pace::MEASURED);
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

/// FRM-05: two changes of one stream, of which the first was sent when much waited and the second when room had come.
#[test]
fn a_change_has_its_place_when_it_is_sent_however_much_waits() {
    let queue = Queue::new(2, None, Pace::MEASURED);
    let send = |number| {
        let now = Timestamp::from_millis(number);
        let change = Change { mutation: Mutation::Tick, now, day: Day::new(0) };
        queue.send(Job { change, answer: oneshot::channel().0 }).unwrap();
    };
    let waiting = 3 * u64::try_from(MAX_BATCH).unwrap();
    (1..=waiting).for_each(send);
    let mut order = Vec::new();
    let mut take = || {
        let mut jobs = Jobs::default();
        queue.take(&mut jobs);
        order.extend(jobs.all.iter().map(|job| job.change.now.as_millis()));
        jobs.all.len()
    };
    send(waiting + 1);
    assert_eq!(take(), MAX_BATCH);
    send(waiting + 2);
    while take() > 0 {}
    assert_eq!(order, (1..=waiting + 2).collect::<Vec<_>>());
    assert!(queue.lock().jobs.capacity() <= 2 * QUEUE, "what was needed for the crowd is given back");
}

#[test]
fn enough_changes_beside_a_slow_commit_wake_the_other_writer_at_once() {
    let scene = Scene::start(Pace::MEASURED);
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
    let scene = Scene::start(Pace::MEASURED);
    scene.push(1);
    assert!(scene.is_called());
    scene.until_it_sleeps();
    scene.end();
}

#[test]
fn what_waits_when_a_commit_ends_is_left_to_who_ended_it_as_long_as_it_is_not_late() {
    for (count, took) in [(1, FAST), (8, FAST), (60, FAST), (7, SLOW)] {
        let scene = Scene::start(PATIENT);
        for _ in 0..20 {
            scene.queue.lock().commit_time = took;
            let group = scene.begin_commit();
            scene.push(count);
            scene.queue.end_commit(Some(took), true, None);
            // It may be woken to look at the time.
            scene.until_it_sleeps();
            assert!(scene.sleeps_on(), "{count} changes after a commit of {took:?} are not worth it");
            scene.queue.end_settling(&group);
            let back = now();
            assert_eq!(scene.queue.next(), Call::Stage);
            assert!(back.elapsed() < PATIENCE, "who comes back takes them at once");
            scene.queue.take(&mut Jobs::default());
            scene.queue.end_nothing();
        }
        scene.end();
    }
}

#[test]
fn new_changes_beside_an_idle_disk_are_staged_while_the_last_group_is_settled() {
    let scene = Scene::start(PATIENT);
    let group = scene.begin_commit();
    scene.queue.end_commit(Some(FAST), true, None);
    scene.push(1);
    assert!(scene.is_called(), "a change that comes to an empty queue");
    scene.until_it_sleeps();
    scene.queue.end_settling(&group);

    scene.queue.lock().commit_time = SLOW;
    let group = scene.begin_commit();
    scene.push(1);
    scene.queue.end_commit(Some(SLOW), true, None);
    scene.until_it_sleeps();
    scene.push(Pace::MEASURED.worth - 2);
    assert!(scene.sleeps_on());
    scene.push(1);
    assert!(scene.is_called(), "as many as are worth a waking, where commits are slow");
    scene.until_it_sleeps();
    scene.queue.end_settling(&group);
    scene.end();
}

#[test]
fn who_sleeps_is_called_for_what_comes_at_a_time_before_it_would_wake() {
    let soon = || now() + Duration::from_millis(10);
    let scene = Scene::start(Pace::MEASURED);
    let group = scene.begin_commit();
    scene.queue.end_commit(Some(FAST), true, Some(soon()));
    assert!(scene.is_called(), "it slept without a time");
    scene.queue.end_settling(&group);
    scene.until_it_sleeps();

    scene.queue.set_forget_at(Some(now() + NEVER));
    scene.until_it_sleeps();
    scene.queue.tidy_by(soon());
    assert!(scene.is_called(), "it slept until later");
    scene.until_it_sleeps();

    scene.queue.set_forget_at(None);
    scene.queue.lock().is_staging = true;
    scene.queue.forget_by(soon());
    assert!(scene.sleeps_on(), "who stages has the tasks that come at a time, too");
    scene.queue.end_nothing();
    assert!(scene.is_called(), "it slept while this writer staged");
    scene.until_it_sleeps();
    scene.end();
}

#[test]
fn who_sleeps_when_the_queue_is_closed_is_called_for_what_waits() {
    let queue = Queue::new(2, None, Pace::MEASURED);
    queue.lock().is_staging = true;
    // No thread, so that nobody can look before this one does.
    queue.lock().sleepers.push(None);
    let (answer, _) = oneshot::channel();
    let change = Change { mutation: Mutation::Tick, now: Timestamp::from_millis(0), day: Day::new(0) };
    queue.send(Job { change, answer }).unwrap();
    queue.close();
    queue.end_nothing();
    assert!(queue.lock().is_called);

    let scene = Scene::start(Pace::MEASURED);
    let group = scene.begin_commit();
    scene.push(3);
    scene.queue.close();
    scene.queue.end_commit(Some(FAST), true, None);
    assert!(scene.is_called());
    scene.queue.end_settling(&group);
    assert!(matches!(scene.calls.recv_timeout(PATIENCE), Ok(Call::End { .. })));
    scene.other.join().unwrap();
}
