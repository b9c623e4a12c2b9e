//! The owner's token stays away.
//!
//! Invariants: TRP-10 a deadline is measured in the relay's own running time, which moves only while the relay runs, by a
//! clock that nobody sets and by a minute at a time at most: no clock makes it come early, and none keeps it from coming;
//! TRP-12 only the owner's token puts it off, and each comes once.

use std::time::Duration;

use lapwing_wire::ids::TripwireId;

use super::{
    super::{
        super::{
            Outcome, StoreError,
            record::{
                self, Cause, Due, RUNNING, Running, Tripwire, due_in, due_key, dues_between, key, list_key,
            },
            tables::{Batch, Scan, Space, Tables},
        },
        Scene,
    },
    list, save,
};

/// Longest piece of running time that is believed at once: a computer that slept, or was moved, counts this.
const MAX_STEP: Duration = Duration::from_secs(60);
/// When a deadline is tried again whose list cannot be read.
const AGAIN: Duration = Duration::from_secs(3600);
/// Deadlines that come in one change, at most; the others come in the next.
const MAX_DUE: usize = 64;

/// When a deadline comes. What was running since the last step is not counted yet, so that a step is added.
pub(super) fn due_at(now: u64, after: u64) -> u64 {
    now.saturating_add(after).saturating_add(millis(MAX_STEP))
}

/// The running time.
pub(super) fn running<T: Tables>(batch: &Batch<'_, T>) -> Result<Running, StoreError> {
    batch.load(Space::State, RUNNING)?.map_or(Ok(Running::default()), |bytes| Running::decode(&bytes))
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
    let mut come = Vec::new();
    batch.scan(Space::State, &first, &last, &mut |key, _| {
        come.push(due_in(key)?);
        Ok(if come.len() < MAX_DUE { Scan::More } else { Scan::Stop })
    })?;
    let has_more = come.len() == MAX_DUE;
    // A scan shows what is on disk first, so what it left may lie anywhere.
    if !has_more {
        running.done = running.now;
    }
    running.waiting = running.waiting.saturating_sub(u64::try_from(come.len()).unwrap_or(u64::MAX));
    set_running(batch, running);
    // The order within a change is that of time.
    come.sort_unstable_by_key(|(at, _, _)| *at);
    for (at, id, cause) in come {
        batch.delete(Space::State, due_key(at, &id, cause));
        fire(batch, &id, cause, &mut scene)?;
    }
    let Scene { appended, withdrawn, .. } = scene;
    Ok(Outcome::Watched { appended, withdrawn, has_more })
}

/// TRP-12: once.
fn fire<T: Tables>(
    batch: &mut Batch<'_, T>,
    id: &TripwireId,
    cause: Cause,
    scene: &mut Scene,
) -> Result<(), StoreError> {
    let Some(mut tripwire) = batch.load_as::<Tripwire>(Space::State, &key::tripwire(id))? else {
        return Ok(());
    };
    let sealed = batch.load_sealed(&list_key(id, cause));
    let actions = match sealed.and_then(|all| all.map(|all| record::decode_list(&all)).transpose()) {
        Ok(actions) => actions.unwrap_or_default(),
        Err(_) => return come_again(batch, id, tripwire, cause),
    };
    tripwire.dues.retain(|due| due.cause != cause);
    match cause {
        Cause::Alerting => tripwire.came.alerting = true,
        Cause::Destroying => tripwire.came.destroying = true,
        Cause::Token | Cause::Quorum | Cause::Frozen => return Err(StoreError::Damaged),
    }
    list::run(batch, &actions, scene)?;
    list::spend(batch, id, &mut tripwire, cause)?;
    save(batch, id, &tripwire);
    Ok(())
}

/// What a deadline sets off cannot be read now. It is tried again, and keeps nobody else's from coming meanwhile.
fn come_again<T: Tables>(
    batch: &mut Batch<'_, T>,
    id: &TripwireId,
    mut tripwire: Tripwire,
    cause: Cause,
) -> Result<(), StoreError> {
    tracing::error!("what a deadline is to set off cannot be read; it is tried again");
    let at = running(batch)?.now.saturating_add(millis(AGAIN));
    let Some(due) = tripwire.dues.iter_mut().find(|due| due.cause == cause) else { return Ok(()) };
    due.at = at;
    let due = *due;
    wait(batch, id, &[due])?;
    save(batch, id, &tripwire);
    Ok(())
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
    let now = running(batch)?.now;
    for due in &mut tripwire.dues {
        batch.delete(Space::State, due_key(due.at, id, due.cause));
        due.at = due_at(now, due.after);
        batch.put(Space::State, due_key(due.at, id, due.cause), vec![1]);
    }
    save(batch, id, &tripwire);
    Ok(())
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
