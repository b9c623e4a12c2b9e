//! Where a command is killed, and where the power fails.

use std::fmt;

use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use rand_core::RngCore;

use super::{Call, Kill, Trace};

/// Places of one command in a run of all tests.
const PLACES: usize = 6;

/// More calls than these that differ in nothing but where they write are a loop.
const LOOP: usize = 64;

/// Places at each end of a loop that are always tried.
const LOOP_ENDS: usize = 4;

/// Places inside a loop that are drawn.
const LOOP_DRAWN: usize = 24;

/// Which places of a command are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Places {
    /// At most so many, besides those before the first call and after the last; where there are more, half of them are the
    /// first, the last, those around each sync and changes of names, and half are others.
    AtMost(usize),
    /// All but the inside of loops: of more than 64 equal calls in a row those at both ends and some that are drawn.
    Kinds,
    /// All.
    All,
}

impl Places {
    /// What `LAPWING_EVERY_CALL` asks for, `kinds` or all, and [`Self::AtMost`] of these if it is not set.
    #[must_use]
    pub fn asked(otherwise: usize) -> Self {
        match std::env::var("LAPWING_EVERY_CALL").as_deref() {
            Err(_) => Self::AtMost(otherwise),
            Ok("kinds") => Self::Kinds,
            Ok(_) => Self::All,
        }
    }

    /// Whether this is a long run, which somebody asked for.
    #[must_use]
    pub fn is_long(self) -> bool {
        matches!(self, Self::Kinds | Self::All)
    }

    /// Before the first changing call, then after each that was chosen, then after the last.
    pub(super) fn kills(self, whole: &Trace, seed: u64) -> Vec<Kill> {
        let changes: Vec<_> = whole.changes().collect();
        let last = changes.len().checked_sub(1).expect("a command that changes nothing cannot be swept");
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let mut chosen = match self {
            Self::AtMost(most) => drawn(&changes[..last], most, &mut rng),
            Self::Kinds => kinds(&changes[..last], &mut rng),
            Self::All => (0..last).collect(),
        };
        chosen.push(last);
        std::iter::once(Kill::Before(0)).chain(chosen.into_iter().map(Kill::After)).collect()
    }

    /// After how many calls of the trace the power fails. One of the places is `certain`.
    pub(super) fn cuts(self, whole: &Trace, certain: usize, rng: &mut impl RngCore) -> Vec<usize> {
        let changes = whole.calls.iter().enumerate().filter(|(_, call)| call.changes_a_file());
        let (at, calls): (Vec<usize>, Vec<&Call>) = changes.unzip();
        let chosen = match self {
            Self::AtMost(most) => sample(&(0..at.len()).collect::<Vec<_>>(), most - 1, rng),
            Self::Kinds => kinds(&calls, rng),
            Self::All => (0..at.len()).collect(),
        };
        let mut cuts: Vec<usize> = chosen.into_iter().map(|chosen| at[chosen] + 1).chain([certain]).collect();
        cuts.sort_unstable();
        cuts.dedup();
        cuts
    }
}

impl Default for Places {
    fn default() -> Self {
        Self::asked(PLACES)
    }
}

/// For the line that a long run prints.
impl fmt::Display for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AtMost(_) => "some",
            Self::Kinds => "all but the inside of loops",
            Self::All => "all",
        })
    }
}

/// Whether `LAPWING_COMMAND` leaves this command out: of a long run one can be done again.
#[must_use]
pub fn is_left_out(words: &[&str]) -> bool {
    std::env::var("LAPWING_COMMAND").is_ok_and(|wanted| !words.join(" ").contains(&wanted))
}

/// Half of them edges, half others.
fn drawn(changes: &[&Call], most: usize, rng: &mut impl RngCore) -> Vec<usize> {
    let count = changes.len();
    let syncs = changes.iter().enumerate().filter(|(_, call)| call.name.contains("sync")).map(|(at, _)| at);
    let mut edges: Vec<usize> = syncs.flat_map(|at| [at.saturating_sub(1), at]).collect();
    edges.extend([0, 1, 2]);
    edges.extend((1..3).filter_map(|back| count.checked_sub(back)));
    // Which files there are, and how long they are.
    edges.extend((0..count).filter(|at| !is_data(changes[*at])));
    edges.retain(|at| *at < count);
    edges.sort_unstable();
    edges.dedup();
    let others: Vec<usize> = (0..count).filter(|at| !edges.contains(at)).collect();
    let inner = sample(&others, most / 2, rng);
    let mut chosen = sample(&edges, most.saturating_sub(inner.len()), rng);
    chosen.extend(inner);
    chosen.sort_unstable();
    chosen
}

/// All but the inside of loops.
fn kinds(changes: &[&Call], rng: &mut impl RngCore) -> Vec<usize> {
    let all: Vec<usize> = (0..changes.len()).collect();
    let mut chosen = Vec::new();
    for run in all.chunk_by(|one, next| is_like(changes[*one], changes[*next])) {
        if run.len() <= LOOP {
            chosen.extend_from_slice(run);
        } else {
            let (first, rest) = run.split_at(LOOP_ENDS);
            let (inside, last) = rest.split_at(rest.len() - LOOP_ENDS);
            chosen.extend_from_slice(first);
            chosen.extend(sample(inside, LOOP_DRAWN, rng));
            chosen.extend_from_slice(last);
        }
    }
    chosen
}

/// Whether they differ in nothing but where they write.
fn is_like(one: &Call, other: &Call) -> bool {
    let Call { thread: _, name, target, second, offset: _, length, flags, result, changes: _ } = one;
    (name, target, second, length, flags, result)
        == (&other.name, &other.target, &other.second, &other.length, &other.flags, &other.result)
}

/// Whether it writes bytes, or makes them certain, and nothing else.
fn is_data(call: &Call) -> bool {
    call.name.contains("write") || call.name.contains("sync")
}

/// At most `most` of them, in order.
fn sample(all: &[usize], most: usize, rng: &mut impl RngCore) -> Vec<usize> {
    let mut left = all.to_vec();
    while left.len() > most {
        let at = usize::try_from(rng.next_u64() % left.len() as u64).expect("an index");
        left.remove(at);
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{End, Target};

    fn call(name: &str, offset: u64) -> Call {
        Call {
            thread: 0,
            name: name.to_owned(),
            target: Target::File("/f/vault".into()),
            second: None,
            offset: Some(offset),
            length: Some(4136),
            flags: None,
            result: 4136,
            changes: true,
        }
    }

    fn trace(loops: &[usize]) -> Trace {
        let one = |count: &usize| {
            let writes = (0..*count).map(|at| call("pwrite", 4136 * at as u64));
            writes.chain([call("fsync", 0)]).collect::<Vec<_>>()
        };
        let calls = loops.iter().flat_map(one).collect();
        let (writes, stdout, stderr) = (Vec::new(), Vec::new(), Vec::new());
        Trace { calls, writes, stdout, stderr, end: End::Exited(0), memory: None }
    }

    fn after(kills: &[Kill]) -> Vec<usize> {
        let at = |kill: &Kill| match kill {
            Kill::After(at) => Some(*at),
            Kill::Before(_) => None,
        };
        kills.iter().filter_map(at).collect()
    }

    #[test]
    fn every_kind_of_call_and_both_ends_of_every_loop_are_tried() {
        let whole = trace(&[10, 500, 64]);
        let kills = Places::Kinds.kills(&whole, 1);
        assert_eq!(kills[0], Kill::Before(0));
        let tried = after(&kills);
        // Whatever is no loop.
        let (before, behind) = (0..=10, 511..=576);
        assert!(before.chain(behind).all(|at| tried.contains(&at)), "{tried:?}");
        let inside: Vec<_> = tried.into_iter().filter(|at| (11..511).contains(at)).collect();
        assert_eq!(inside.len(), 2 * LOOP_ENDS + LOOP_DRAWN);
        assert!((11..15).chain(507..511).all(|at| inside.contains(&at)), "{inside:?}");
        let cuts = Places::Kinds.cuts(&whole, 577, &mut ChaCha20Rng::seed_from_u64(1));
        assert_eq!((cuts.len(), cuts.last()), (kills.len() - 1, Some(&577)));
        assert_eq!(after(&Places::All.kills(&whole, 1)), (0..=576).collect::<Vec<_>>());
        assert_eq!(after(&Places::AtMost(6).kills(&whole, 1)).len(), 7);
    }
}
