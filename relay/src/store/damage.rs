//! Scans that go on behind what the disk has spoilt.
//!
//! Engines check the sums of their blocks: a scan that comes to a block with a wrong one ends there, whatever lies behind it. Where
//! everybody's records lie side by side, that would let one block stop what is done for all.

use std::sync::{
    Once,
    atomic::{AtomicBool, Ordering},
};

use super::{
    StoreError,
    tables::{Scan, Space, Tables, Visit},
};

/// Whether something was found that nobody was told of yet.
static FOUND: AtomicBool = AtomicBool::new(false);

/// What a tripwire, an anchor or an envelope holds is damaged, and somebody's act has come to it: a token, a voice, a proof, an
/// acknowledgement. A line of the log at that second would tell when that was, so it is told later.
pub(crate) fn found() {
    FOUND.store(true, Ordering::Relaxed);
}

/// Tells what was found since the start, once. Call it at times that nobody but the relay decides on. Whether it was told now.
pub(crate) fn tell() -> bool {
    static TOLD: Once = Once::new();
    let is_news = FOUND.load(Ordering::Relaxed) && !TOLD.is_completed();
    if is_news {
        TOLD.call_once(|| {
            tracing::error!(
                "what tripwires, anchors or deleted envelopes hold is damaged: not all that they set off can be done, not all that opens them is overwritten; told once"
            );
        });
    }
    is_news
}

/// Damaged places that one scan goes over: each is felt for with some hundred looks, and a disk may be full of them.
const MAX_JUMPS: usize = 16;
/// Scans over a range that has more damaged places than one goes over.
pub(crate) const MAX_LOOKS: usize = 16;
/// Bytes of a key, behind what all keys of a range have in common, by which the end of a damaged place is felt for. Keys that differ
/// only behind them lie in one block in any case.
const WIDTH: usize = 16;

/// How a scan went.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Around {
    /// Whether there was a block that could not be read. What lies in it was not shown, nor what lies just before it.
    pub(crate) is_damaged: bool,
    /// Where to go on, if there were more of them than one scan goes over.
    pub(crate) next: Option<Vec<u8>>,
}

impl Around {
    const fn to_the_end(is_damaged: bool) -> Self {
        Self { is_damaged, next: None }
    }
}

/// As [`Tables::scan`], over what cannot be read. What the visitor itself calls damaged ends it.
pub(crate) fn scan_around(
    tables: &impl Tables,
    space: Space,
    first: &[u8],
    last: &[u8],
    visit: &mut Visit<'_>,
) -> Result<Around, StoreError> {
    let mut start = first.to_vec();
    for jumps in 0..MAX_JUMPS {
        if start.as_slice() > last {
            return Ok(Around::to_the_end(jumps > 0));
        }
        let mut seen = Vec::new();
        let mut of_visitor = None;
        let done = tables.scan(space, &start, last, &mut |key, value| {
            seen.clear();
            seen.extend_from_slice(key);
            visit(key, value).inspect_err(|failure| of_visitor = Some(*failure))
        });
        match (done, of_visitor) {
            (_, Some(failure)) => return Err(failure),
            (Err(StoreError::Damaged), None) => {}
            (done, None) => return done.map(|()| Around::to_the_end(jumps > 0)),
        }
        let from = if seen.is_empty() { start } else { after(&seen) };
        match behind(tables, space, &from, last)? {
            Some(next) => start = next,
            None => return Ok(Around::to_the_end(true)),
        }
    }
    Ok(Around { is_damaged: true, next: Some(start) })
}

/// The first key above one.
pub(crate) fn after(key: &[u8]) -> Vec<u8> {
    let mut next = key.to_vec();
    next.push(0);
    next
}

/// The end of the damaged place in which a scan from `from` on ends: with doubled steps until something can be read, and from there back.
fn behind(
    tables: &impl Tables,
    space: Space,
    from: &[u8],
    last: &[u8],
) -> Result<Option<Vec<u8>>, StoreError> {
    let common = from.iter().zip(last).take_while(|(one, other)| one == other).count();
    let (Some(prefix), Some(from), Some(end)) = (last.get(..common), from.get(common..), last.get(common..))
    else {
        return Ok(None);
    };
    let key_of = |number: u128| [prefix, &number.to_be_bytes()].concat();
    let is_whole = |number: u128| {
        let start = key_of(number);
        if start.as_slice() > last {
            return Ok(true);
        }
        match tables.scan(space, &start, last, &mut |_, _| Ok(Scan::Stop)) {
            Err(StoreError::Damaged) => Ok(false),
            done => done.map(|()| true),
        }
    };
    let (mut damaged, end) = (number(from), number(end));
    let mut step = 1u128;
    let mut whole = loop {
        let next = damaged.saturating_add(step).min(end);
        if next <= damaged {
            return Ok(None);
        }
        if is_whole(next)? {
            break next;
        }
        damaged = next;
        step = step.saturating_mul(2);
    };
    while whole - damaged > 1 {
        let middle = damaged + (whole - damaged) / 2;
        if is_whole(middle)? {
            whole = middle;
        } else {
            damaged = middle;
        }
    }
    Ok(Some(key_of(whole)))
}

fn number(bytes: &[u8]) -> u128 {
    let mut wide = [0; WIDTH];
    for (to, byte) in wide.iter_mut().zip(bytes) {
        *to = *byte;
    }
    u128::from_be_bytes(wide)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_have_come_to_is_told_once_and_later() {
        assert!(!tell());
        found();
        found();
        assert!(tell());
        found();
        assert!(!tell());
    }
}
