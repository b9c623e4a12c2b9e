//! From two measured populations to p-values, corrected for their number, and a report.

use std::fmt::Write as _;

use entropy::math::erfc;

use crate::{
    classifier::{self, TrainingError},
    features,
    layout::Look,
    positions::{Family, largest_difference},
    sample::Sample,
};

/// The chance that a whole comparison raises an alarm although there is nothing to tell. Seeds are fixed, but a change of
/// the vault draws other random bytes from them: at this level one such change in some hundred raises a false alarm.
pub const LEVEL: f64 = 0.001;

/// One statistic or classifier of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// What was compared.
    pub name: String,
    /// Its own p-value.
    pub p: f64,
    /// Holm's correction: the smallest level at which the whole comparison would reject it.
    pub corrected: f64,
    /// What a reader may want to know: an accuracy, a deviation.
    pub note: String,
}

/// The outcome of one comparison, the most suspicious first.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// What was compared with what.
    pub name: String,
    /// All statistics and classifiers.
    pub findings: Vec<Finding>,
}

impl Comparison {
    /// Compares two populations by every statistic, every place and every classifier.
    ///
    /// # Errors
    /// [`TrainingError`].
    pub fn of(
        name: &str,
        look: &Look,
        one: &Sample,
        other: &Sample,
        seed: u64,
    ) -> Result<Self, TrainingError> {
        let mut raw = Vec::new();
        for (column, feature) in features::names(look).into_iter().enumerate() {
            let column = |sample: &Sample| sample.rows.iter().map(|row| row[column]).collect::<Vec<_>>();
            let z = rank_difference(&column(one), &column(other));
            raw.push((feature, two_sided(z), format!("z = {z:.2}")));
        }
        for family in Family::ALL {
            let (z, places) = largest_difference(look, &one.bits, &other.bits, family);
            let p = (two_sided(z) * places as f64).min(1.0);
            raw.push((family.name().to_owned(), p, format!("largest of {places}: z = {z:.2}")));
        }
        for judged in classifier::judge(&one.rows, &other.rows, seed)? {
            let note = format!("{:.1} % of {} held out", judged.accuracy * 100.0, judged.held_out);
            raw.push((judged.name.to_owned(), judged.p, note));
        }
        Ok(Self { name: name.to_owned(), findings: corrected(raw) })
    }

    /// The smallest corrected p-value.
    #[must_use]
    pub fn least(&self) -> f64 {
        self.findings.first().map_or(1.0, |finding| finding.corrected)
    }

    /// Whether anything tells the two apart.
    #[must_use]
    pub fn tells_apart(&self) -> bool {
        self.least() < LEVEL
    }

    /// Lines for a person: what was found, the most suspicious first, and every classifier.
    #[must_use]
    pub fn report(&self) -> String {
        let verdict = if self.tells_apart() { "TOLD APART" } else { "not told apart" };
        let mut out = format!(
            "{}: {verdict}; {} statistics and classifiers, least corrected p = {:.2e}\n",
            self.name,
            self.findings.len(),
            self.least()
        );
        let classifiers = |finding: &&Finding| finding.note.contains("held out");
        let first = self.findings.iter().take(3);
        let rest = self.findings.iter().skip(3).filter(classifiers);
        for Finding { name, p, corrected, note } in first.chain(rest) {
            // Writing into a string cannot fail.
            let _ = writeln!(out, "    {name}: p = {p:.2e}, corrected {corrected:.2e} ({note})");
        }
        out
    }
}

/// Holm's step-down correction. The most suspicious come first.
#[must_use]
pub fn corrected(raw: Vec<(String, f64, String)>) -> Vec<Finding> {
    let mut findings: Vec<Finding> =
        raw.into_iter().map(|(name, p, note)| Finding { name, p, corrected: p, note }).collect();
    findings.sort_by(|one, other| one.p.total_cmp(&other.p));
    let count = findings.len();
    let mut least = 0.0f64;
    for (rank, finding) in findings.iter_mut().enumerate() {
        least = least.max((finding.p * (count - rank) as f64).min(1.0));
        finding.corrected = least;
    }
    findings
}

/// The two-sided p-value of a standard normal deviation.
#[must_use]
pub fn two_sided(z: f64) -> f64 {
    erfc(z.abs() / std::f64::consts::SQRT_2)
}

/// Mann and Whitney's rank-sum statistic, normalised, with the correction for ties.
#[must_use]
pub fn rank_difference(one: &[f64], other: &[f64]) -> f64 {
    let mut all: Vec<(f64, bool)> =
        one.iter().map(|value| (*value, true)).chain(other.iter().map(|value| (*value, false))).collect();
    all.sort_by(|one, other| one.0.total_cmp(&other.0));
    let (n, m) = (one.len() as f64, other.len() as f64);
    let (mut rank_sum, mut ties, mut start) = (0.0, 0.0, 0);
    while start < all.len() {
        let end = start + all[start..].iter().take_while(|(value, _)| *value == all[start].0).count();
        let (size, rank) = ((end - start) as f64, (start + 1 + end) as f64 / 2.0);
        rank_sum += rank * all[start..end].iter().filter(|(_, first)| *first).count() as f64;
        ties += size.powi(3) - size;
        start = end;
    }
    let total = n + m;
    let variance = n * m / 12.0 * (total + 1.0 - ties / (total * (total - 1.0)));
    if variance <= 0.0 {
        return 0.0;
    }
    (rank_sum - n * (total + 1.0) / 2.0) / variance.sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_of_a_textbook_example() {
        // Every value of one is below every value of the other: U = 0, mean 12.5, variance 25 * 11 / 12.
        let z = rank_difference(&[1.0, 2.0, 3.0, 4.0, 5.0], &[6.0, 7.0, 8.0, 9.0, 10.0]);
        assert!((z + 12.5 / (275.0f64 / 12.0).sqrt()).abs() < 1e-9, "{z}");
        assert_eq!(rank_difference(&[1.0, 1.0], &[1.0, 1.0]), 0.0);
        assert!((two_sided(1.959_963_985) - 0.05).abs() < 1e-6);
    }

    #[test]
    fn holm_multiplies_by_what_is_left_and_never_falls() {
        let raw = [0.04, 0.01, 0.03].map(|p| (String::new(), p, String::new()));
        let corrected: Vec<f64> = corrected(raw.to_vec()).iter().map(|finding| finding.corrected).collect();
        assert_eq!(corrected, [0.03, 0.06, 0.06]);
    }
}
