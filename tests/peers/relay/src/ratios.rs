//! Arms in turns, medians, a table, and what is missed.

use std::time::Duration;

/// What one arm did in one round.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// What is compared: messages a second, or microseconds, or KiB.
    pub value: f64,
    /// Processor time of the server for one message, in microseconds.
    pub server: f64,
    /// Processor time of the clients for one message, in microseconds.
    pub clients: f64,
    /// Microseconds until the answer or the delivery: of half of them, and of 99 of 100.
    pub waits: Option<(f64, f64)>,
}

/// Which way is better.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Better {
    /// A rate.
    More,
    /// A time or a size.
    Less,
}

/// One comparison: the first arm is ours.
pub struct Comparison {
    what: String,
    unit: &'static str,
    better: Better,
    arms: Vec<Arm>,
}

struct Arm {
    name: String,
    /// What this one does not do, or does besides.
    note: &'static str,
    /// Bound of the ratio of our value to this arm's.
    must: Option<f64>,
    runs: Vec<Run>,
}

impl Comparison {
    /// Of `what`, measured in `unit`.
    pub fn new(what: String, unit: &'static str, better: Better) -> Self {
        Self { what, unit, better, arms: Vec::new() }
    }

    /// Adds what an arm did in one round.
    pub fn add(&mut self, name: &str, note: &'static str, must: Option<f64>, run: Run) {
        match self.arms.iter_mut().find(|arm| arm.name == name) {
            Some(arm) => arm.runs.push(run),
            None => self.arms.push(Arm { name: name.to_owned(), note, must, runs: vec![run] }),
        }
    }

    /// Prints the medians, and of each other arm the median of the rounds' ratios of our value to its, with the least
    /// and the greatest. Answers what is missed.
    pub fn print(&self) -> Vec<String> {
        let mut missed = Vec::new();
        let Some((ours, others)) = self.arms.split_first() else { return missed };
        self.print_head(ours);
        ours.print();
        for arm in others {
            arm.print();
            let ratio = ours.print_against(arm, "    ours to it");
            println!("; {}", arm.note);
            let is_met = |must: f64| match self.better {
                Better::More => ratio >= must,
                Better::Less => ratio <= must,
            };
            if let Some(must) = arm.must.filter(|must| !is_met(*must)) {
                missed.push(format!("{}: {ratio:.2} of {}, must be {must}", self.what, arm.name));
            }
        }
        missed
    }

    /// Prints the ratios of one arm's value to those of all others but ours. Nothing is asked of them.
    pub fn print_against_others(&self, name: &str) {
        let Some(one) = self.arms.iter().find(|arm| arm.name == name) else { return };
        for other in self.arms.iter().skip(1).filter(|arm| arm.name != name) {
            one.print_against(other, &format!("{name} / {:<22}", other.name));
            println!();
        }
    }

    /// Prints the medians of what is all ours.
    pub fn print_values(&self) {
        let Some(first) = self.arms.first() else { return };
        self.print_head(first);
        self.arms.iter().for_each(Arm::print);
    }

    fn print_head(&self, arm: &Arm) {
        println!(
            "\n{}; {} rounds, in {}; load {}",
            self.what,
            arm.runs.len(),
            self.unit,
            crate::process::load()
        );
    }

    /// The median of our own value.
    pub fn ours(&self) -> f64 {
        self.arms.first().map_or(f64::NAN, |arm| median(&arm.of(|run| run.value)))
    }
}

impl Arm {
    fn print(&self) {
        let values = self.of(|run| run.value);
        let (middle, least, most) = (median(&values), least(&values), most(&values));
        print!("  {:<34} {:>9} [{}-{}]", self.name, shown(middle), shown(least), shown(most));
        if let Some(wait) = self.runs.first().and_then(|run| run.waits) {
            let of = |which: fn((f64, f64)) -> f64| median(&self.of(|run| which(run.waits.unwrap_or(wait))));
            print!(", p50/p99 {}/{} µs", shown(of(|waits| waits.0)), shown(of(|waits| waits.1)));
        }
        if self.has_work() {
            let (server, clients) = (median(&self.of(|run| run.server)), median(&self.of(|run| run.clients)));
            print!(", processor µs: server {}, clients {}", shown(server), shown(clients));
        }
        println!();
    }

    fn has_work(&self) -> bool {
        self.runs.iter().any(|run| run.server > 0.0)
    }

    fn of(&self, which: impl Fn(&Run) -> f64) -> Vec<f64> {
        self.runs.iter().map(which).collect()
    }

    /// Begins a line with the median of the rounds' ratios, which is the answer, the least and the greatest.
    fn print_against(&self, other: &Self, label: &str) -> f64 {
        let ratios = self.against(other, |run| run.value);
        let ratio = median(&ratios);
        print!("  {label:<34} {ratio:.2} [{:.2}-{:.2}]", least(&ratios), most(&ratios));
        if other.has_work() {
            print!(", of the server's processor time {:.2}", median(&self.against(other, |run| run.server)));
        }
        ratio
    }

    fn against(&self, other: &Self, which: impl Fn(&Run) -> f64) -> Vec<f64> {
        self.of(&which).iter().zip(other.of(&which)).map(|(own, other)| own / other).collect()
    }
}

/// The middle one.
pub fn median(values: &[f64]) -> f64 {
    quantile(&mut values.to_vec(), 0.5)
}

/// The value below which this part of all lies.
pub fn quantile(values: &mut [f64], part: f64) -> f64 {
    assert!(!values.is_empty(), "nothing was measured");
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * part).round() as usize]
}

/// Of half, and of 99 of 100, in microseconds.
pub fn waits(times: &[Duration]) -> (f64, f64) {
    let mut micros: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e6).collect();
    (quantile(&mut micros, 0.5), quantile(&mut micros, 0.99))
}

fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

fn most(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

fn shown(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}
