//! Arms in turns, medians, a table.

use std::time::{Duration, Instant};

/// The time of `work`, and what it gave.
pub fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let begin = Instant::now();
    let out = work();
    (begin.elapsed(), out)
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
    arms: Vec<(String, Vec<Duration>)>,
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
    pub fn add(&mut self, arm: &str, time: Duration) {
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
        println!("  {ours:<44} {:>12}", shown(median(own)));
        for (name, times) in others {
            let ratios: Vec<f64> =
                own.iter().zip(times).map(|(own, other)| other.as_secs_f64() / own.as_secs_f64()).collect();
            let ratio = median(&ratios);
            let (least, most) = (
                ratios.iter().copied().fold(f64::INFINITY, f64::min),
                ratios.iter().copied().fold(0.0, f64::max),
            );
            println!("  {name:<44} {:>12}   ratio {ratio:.2} [{least:.2}-{most:.2}]", shown(median(times)));
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
