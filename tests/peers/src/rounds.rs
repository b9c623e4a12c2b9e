//! Arms in turns, medians, a table.

use std::time::{Duration, Instant};

/// What something took.
#[derive(Clone, Copy)]
pub struct Took {
    /// On the clock.
    pub wall: Duration,
    /// Of the processors, by all threads: what others on the machine cannot change.
    pub work: Duration,
}

/// What `work` took, and what it gave.
pub fn timed<T>(work: impl FnOnce() -> T) -> (Took, T) {
    let (begin, spent) = (Instant::now(), spent());
    let out = work();
    (Took { wall: begin.elapsed(), work: self::spent().saturating_sub(spent) }, out)
}

/// Time of the processors that this process took so far.
fn spent() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call fills the one structure that it is given.
    let answer = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut now) };
    assert_eq!(answer, 0);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// The middle one.
pub fn median<T: Copy + PartialOrd>(values: &[T]) -> T {
    let mut sorted = values.to_vec();
    sorted.sort_by(|a, b| a.partial_cmp(b).unwrap());
    sorted[sorted.len() / 2]
}

/// Times of one operation, by arm and round.
pub struct Rounds {
    what: String,
    arms: Vec<(String, Vec<Took>)>,
    /// Least ratio of the first arm's speed to each other arm's, where one is required.
    must: Option<f64>,
}

/// What one operation came to.
pub struct Verdict {
    /// The operation, against which arm, the ratio, and what it must be.
    pub missed: Vec<String>,
}

impl Rounds {
    /// Of an operation; the first arm is ours.
    pub fn new(what: impl Into<String>, must: Option<f64>) -> Self {
        Self { what: what.into(), arms: Vec::new(), must }
    }

    /// Adds what one arm took in one round.
    pub fn add(&mut self, arm: &str, time: Took) {
        match self.arms.iter_mut().find(|(name, _)| name == arm) {
            Some((_, times)) => times.push(time),
            None => self.arms.push((arm.to_owned(), vec![time])),
        }
    }

    /// Prints the medians, and of each other arm the median of the rounds' ratios, with the least and the greatest.
    pub fn print(&self) -> Verdict {
        let mut missed = Vec::new();
        let Some(((ours, own), others)) = self.arms.split_first() else { return Verdict { missed } };
        println!("\n{}", self.what);
        let wall = |times: &[Took]| times.iter().map(|took| took.wall).collect::<Vec<_>>();
        let work = |times: &[Took]| times.iter().map(|took| took.work).collect::<Vec<_>>();
        let of = |one: &[Duration], other: &[Duration]| -> Vec<f64> {
            one.iter().zip(other).map(|(one, other)| other.as_secs_f64() / one.as_secs_f64()).collect()
        };
        let print = |name: &str, times: &[Took]| {
            print!(
                "  {name:<46} {:>10} (work {:>10})",
                shown(median(&wall(times))),
                shown(median(&work(times)))
            );
        };
        print(ours, own);
        println!();
        for (name, times) in others {
            let ratios = of(&wall(own), &wall(times));
            let ratio = median(&ratios);
            let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
            let most = ratios.iter().copied().fold(0.0, f64::max);
            print(name, times);
            println!(
                "  ratio {ratio:.2} [{least:.2}-{most:.2}], of work {:.2}",
                median(&of(&work(own), &work(times)))
            );
            // An arm in brackets is shown for what it is, and nothing is asked of it.
            if let Some(must) = self.must.filter(|must| ratio < *must && !name.starts_with('(')) {
                missed.push(format!("{}: {ratio:.2} of {name}, must be {must}", self.what));
            }
        }
        Verdict { missed }
    }
}

/// A time in a unit that fits.
pub fn shown(time: Duration) -> String {
    match time.as_nanos() {
        0..10_000_000 => format!("{:.1} µs", time.as_secs_f64() * 1e6),
        10_000_000..10_000_000_000 => format!("{:.1} ms", time.as_secs_f64() * 1e3),
        _ => format!("{:.2} s", time.as_secs_f64()),
    }
}

/// Processes that wanted the processor in the last minute, on average: figures taken under load say less.
pub fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("unknown").to_owned()
}
