//! The owner's token stays away.
//!
//! Invariants: TRP-10 a deadline is measured in the relay's own running time, which moves only while the relay runs, by a
//! clock that nobody sets and by a minute at a time at most: no clock makes it come early, and none keeps it from coming;
//! TRP-12 only the owner's token puts it off, and each comes once.
//!
//! A deadline stands in the order of time under a key of its own, and in its tripwire. Where the disk has spoilt the first, it is found in
//! the second; where it has spoilt the running time, the tripwires tell what that was at least.

use std::{sync::Once, time::Duration};

use lapwing_wire::ids::TripwireId;

use super::{
    super::{
        super::{
            Outcome, StoreError,
            damage::{MAX_LOOKS, after},
            record::{
                self, Cause, Due, RUNNING, Running, Tripwire, WALK, decode_walk, due_in, due_key,
                dues_between, encode_walk, key, list_key,
            },
            tables::{Batch, Scan, Space, Tables, Value},
        },
        Scene,
    },
    list, save,
};

/// Longest piece of running time that is believed at once: a computer that slept, or was moved, counts this.
const MAX_STEP: Duration = Duration::from_secs(60);
/// When a deadline is tried again whose tripwire or list cannot be read.
const AGAIN: Duration = Duration::from_secs(3600);
/// Deadlines that come in one change, at most; the others come in the next.
const MAX_DUE: usize = 64;
/// Tripwires that one change of a walk looks at: some milliseconds of the writer.
const MAX_WALK: usize = 1024;

/// Added to the deadlines that wait where nobody can count them: they are looked for from then on, whatever comes.
const UNCOUNTED: u64 = 1 << 32;

/// A deadline that has come.
type Come = (u64, TripwireId, Cause);

/// When a deadline comes. What was running since the last step is not counted yet, so that a step is added.
pub(super) fn due_at(now: u64, after: u64) -> u64 {
    now.saturating_add(after).saturating_add(millis(MAX_STEP))
}

/// The running time.
pub(super) fn running<T: Tables>(batch: &Batch<'_, T>) -> Result<Running, StoreError> {
    let there = batch.load(Space::State, RUNNING);
    match there.and_then(|there| there.map(|bytes| Running::decode(&bytes)).transpose()) {
        Err(StoreError::Damaged) => at_least(batch),
        there => Ok(there?.unwrap_or_default()),
    }
}

/// What the running time was when somebody armed or renewed last, as the tripwires say. No deadline comes earlier by that; all come later,
/// by what has passed since.
fn at_least<T: Tables>(batch: &Batch<'_, T>) -> Result<Running, StoreError> {
    tracing::error!(
        "the running time is damaged: deadlines come later, by the time since somebody armed or renewed last"
    );
    let (mut running, mut is_damaged) = (Running::default(), false);
    let (mut start, last) = key::all(key::TRIPWIRES);
    for _ in 0..MAX_LOOKS {
        let around = batch.scan_around(Space::State, &start, &last, &mut |_, value| {
            let Ok(tripwire) = record::decode::<Tripwire>(&value.whole()?) else {
                is_damaged = true;
                return Ok(Scan::More);
            };
            for due in tripwire.dues {
                // One that is tried again was put off by as much as that.
                let wait = due.after.max(millis(AGAIN)).saturating_add(millis(MAX_STEP));
                running.now = running.now.max(due.at.saturating_sub(wait));
                running.waiting = running.waiting.saturating_add(1);
            }
            Ok(Scan::More)
        })?;
        is_damaged |= around.is_damaged;
        match around.next {
            Some(next) => start = next,
            None => break,
        }
    }
    if is_damaged {
        // At zero nobody looks for deadlines any more.
        running.waiting = running.waiting.saturating_add(UNCOUNTED);
    }
    Ok(running)
}

fn set_running<T: Tables>(batch: &mut Batch<'_, T>, running: Running) {
    batch.put(Space::State, RUNNING.to_vec(), running.encode());
}

/// Deadlines that are to come.
pub(super) fn wait<T: Tables>(
    batch: &mut Batch<'_, T>,
    id: &TripwireId,
    dues: &[Due],
) -> Result<(), StoreError> {
    if dues.is_empty() {
        return Ok(());
    }
    let mut running = running(batch)?;
    for due in dues {
        batch.put(Space::State, due_key(due.at, id, due.cause), vec![1]);
        running.waiting = running.waiting.saturating_add(1);
    }
    set_running(batch, running);
    Ok(())
}

/// Deadlines that are not to come.
pub(super) fn wait_no_more<T: Tables>(
    batch: &mut Batch<'_, T>,
    id: &TripwireId,
    dues: &[Due],
) -> Result<(), StoreError> {
    if dues.is_empty() {
        return Ok(());
    }
    let mut running = running(batch)?;
    for due in dues {
        batch.delete(Space::State, due_key(due.at, id, due.cause));
        running.waiting = running.waiting.saturating_sub(1);
    }
    set_running(batch, running);
    Ok(())
}

/// Moves the running time, and does what has come. Reads and writes nothing more while nobody has a deadline.
pub(in super::super) fn watch<T: Tables>(
    batch: &mut Batch<'_, T>,
    elapsed: Duration,
    mut scene: Scene,
) -> Result<Outcome, StoreError> {
    let mut running = running(batch)?;
    if running.waiting == 0 {
        return Ok(Outcome::Watched { appended: Vec::new(), withdrawn: Vec::new(), has_more: false });
    }
    running.now = running.now.saturating_add(millis(elapsed.min(MAX_STEP)));
    // From where the last look ended: every deadline that was put off left something behind that has to be walked over.
    let (first, last) = dues_between(running.done, running.now);
    let mut come: Vec<Come> = Vec::new();
    let around = batch.scan_around(Space::State, &first, &last, &mut |key, _| {
        come.extend(due_in(key));
        Ok(if come.len() < MAX_DUE { Scan::More } else { Scan::Stop })
    })?;
    let (done, has_more) = if come.len() >= MAX_DUE {
        (None, true)
    } else if around.is_damaged {
        match walk(batch, running.now, &mut come)? {
            Walked::OnTheWay => (None, true),
            Walked::All(upto) => (Some(upto), false),
            Walked::NotAll => (None, false),
        }
    } else {
        (Some(running.now), false)
    };
    // A scan shows what is on disk first, so what it left may lie anywhere.
    running.done = done.unwrap_or(running.done);
    set_running(batch, running);
    // The order within a change is that of time.
    come.sort_unstable_by_key(|(at, _, _)| *at);
    let mut over = 0;
    for (at, id, cause) in come {
        batch.delete(Space::State, due_key(at, &id, cause));
        over += u64::from(fire(batch, &id, cause, &mut scene)?);
    }
    // Some are to come again.
    let running = self::running(batch)?;
    set_running(batch, Running { waiting: running.waiting.saturating_sub(over), ..running });
    let Scene { appended, withdrawn, .. } = scene;
    Ok(Outcome::Watched { appended, withdrawn, has_more })
}

/// How far a walk over tripwires came.
enum Walked {
    OnTheWay,
    /// To the end. All that had come by then has been found.
    All(u64),
    /// To the end, but not over all of them. Those that were passed over have not come, and are looked for again.
    NotAll,
}

/// Looks for what has come in all tripwires, a step of it.
fn walk<T: Tables>(batch: &mut Batch<'_, T>, now: u64, come: &mut Vec<Come>) -> Result<Walked, StoreError> {
    let (first, last) = key::all(key::TRIPWIRES);
    let there = batch.load(Space::State, WALK).ok().flatten();
    let (upto, was_damaged, start) = match there.and_then(|there| decode_walk(&there).ok()) {
        Some(there) => there,
        None => {
            // The next look may come to the same place.
            static TOLD: Once = Once::new();
            TOLD.call_once(|| {
                tracing::error!("deadlines are damaged; they are looked for in the tripwires; told once");
            });
            (now, false, first.clone())
        }
    };
    let mut look = |name: &[u8], value: &Value<'_>| -> Result<bool, StoreError> {
        let Some(id) = key::id_in(name).map(TripwireId::from_bytes) else { return Ok(false) };
        let Ok(tripwire) = record::decode::<Tripwire>(&value.whole()?) else { return Ok(false) };
        for due in tripwire.dues.iter().filter(|due| due.at <= upto) {
            let found = (due.at, id, due.cause);
            if !come.contains(&found) {
                come.push(found);
            }
        }
        Ok(come.len() >= MAX_DUE)
    };
    // What this change leaves otherwise than it is on disk may lie where the walk has been.
    batch.scan_staged(Space::State, &first, &last, &mut |name, value| {
        look(name, value)?;
        Ok(Scan::More)
    })?;
    let (mut looked, mut next) = (0, None);
    let around = batch.scan_written_around(Space::State, &start, &last, &mut |name, value| {
        let is_enough = look(name, value)?;
        looked += 1;
        if looked < MAX_WALK && !is_enough {
            return Ok(Scan::More);
        }
        next = Some(after(name));
        Ok(Scan::Stop)
    })?;
    let is_damaged = was_damaged || around.is_damaged;
    if let Some(next) = next.or(around.next) {
        batch.put(Space::State, WALK.to_vec(), encode_walk(upto, is_damaged, &next));
        return Ok(Walked::OnTheWay);
    }
    batch.delete(Space::State, WALK.to_vec());
    Ok(if is_damaged { Walked::NotAll } else { Walked::All(upto) })
}

/// TRP-12: once. Whether it was one of those that are waited for.
fn fire<T: Tables>(
    batch: &mut Batch<'_, T>,
    id: &TripwireId,
    cause: Cause,
    scene: &mut Scene,
) -> Result<bool, StoreError> {
    let mut tripwire = match batch.load_as::<Tripwire>(Space::State, &key::tripwire(id)) {
        Ok(Some(there)) => there,
        Ok(None) => return Ok(false),
        Err(StoreError::Damaged) => return look_again(batch, id, cause).map(|()| true),
        Err(failure) => return Err(failure),
    };
    let now = running(batch)?.now;
    // Else it is left over from what was tried again, and was put off or has come meanwhile.
    if !tripwire.dues.iter().any(|due| due.cause == cause && due.at <= now) {
        return Ok(false);
    }
    let sealed = batch.load_sealed(&list_key(id, cause));
    let actions = match sealed.and_then(|all| all.map(|all| record::decode_list(&all)).transpose()) {
        Ok(actions) => actions.unwrap_or_default(),
        Err(_) => return come_again(batch, id, tripwire, cause).map(|()| true),
    };
    if !list::run(batch, &actions, scene)? {
        return come_again(batch, id, tripwire, cause).map(|()| true);
    }
    tripwire.dues.retain(|due| due.cause != cause);
    match cause {
        Cause::Alerting => tripwire.came.alerting = true,
        Cause::Destroying => tripwire.came.destroying = true,
        Cause::Token | Cause::Quorum | Cause::Frozen => return Err(StoreError::Damaged),
    }
    list::spend(batch, id, &mut tripwire, cause)?;
    save(batch, id, &tripwire);
    Ok(true)
}

/// What a deadline sets off cannot be read, or not all of it be done now. It is tried again, and keeps nobody else's from coming meanwhile.
fn come_again<T: Tables>(
    batch: &mut Batch<'_, T>,
    id: &TripwireId,
    mut tripwire: Tripwire,
    cause: Cause,
) -> Result<(), StoreError> {
    tracing::error!("what a deadline is to set off cannot be read, or not all be done; it is tried again");
    let at = running(batch)?.now.saturating_add(millis(AGAIN));
    let Some(due) = tripwire.dues.iter_mut().find(|due| due.cause == cause) else { return Ok(()) };
    due.at = at;
    let due = *due;
    wait(batch, id, &[due])?;
    save(batch, id, &tripwire);
    Ok(())
}

/// As `come_again`, of a tripwire that cannot be read.
fn look_again<T: Tables>(batch: &mut Batch<'_, T>, id: &TripwireId, cause: Cause) -> Result<(), StoreError> {
    tracing::error!("the tripwire of a deadline cannot be read; it is tried again");
    let at = running(batch)?.now.saturating_add(millis(AGAIN));
    wait(batch, id, &[Due { cause, after: 0, at }])
}

/// TRP-12: the owner's token puts off what has not come.
pub(super) fn renew<T: Tables>(
    batch: &mut Batch<'_, T>,
    id: &TripwireId,
    mut tripwire: Tripwire,
) -> Result<(), StoreError> {
    if tripwire.dues.is_empty() {
        return Ok(());
    }
    let running = running(batch)?;
    // Where that was damaged it is whole from here on, and is not looked for with every token.
    set_running(batch, running);
    for due in &mut tripwire.dues {
        batch.delete(Space::State, due_key(due.at, id, due.cause));
        due.at = due_at(running.now, due.after);
        batch.put(Space::State, due_key(due.at, id, due.cause), vec![1]);
    }
    save(batch, id, &tripwire);
    Ok(())
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
