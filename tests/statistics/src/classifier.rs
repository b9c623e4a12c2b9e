//! Classifiers of a library, trained on one part of two populations and judged on the rest.

use entropy::math::ln_gamma;
use smartcore::{
    ensemble::random_forest_classifier::{RandomForestClassifier, RandomForestClassifierParameters},
    linalg::basic::matrix::DenseMatrix,
    linear::logistic_regression::{LogisticRegression, LogisticRegressionParameters},
};

/// Of each five containers, this many are trained on.
const TRAINED_OF_FIVE: usize = 3;
/// Weight that keeps the regression from learning its training set by heart.
const REGULARISATION: f64 = 1.0;
/// Trees of the forest, and how deep they may be.
const TREES: (u16, u16) = (40, 8);

/// How a classifier did on what it had not seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// Which classifier.
    pub name: &'static str,
    /// The share of held-out containers that it told right.
    pub accuracy: f64,
    /// Held-out containers.
    pub held_out: usize,
    /// The share of all shufflings of the labels that do as well.
    pub p: f64,
}

/// A classifier cannot be trained on this.
#[derive(Debug, thiserror::Error)]
#[error("a classifier could not be trained: {0}")]
pub struct TrainingError(String);

struct Split {
    rows: Vec<Vec<f64>>,
    labels: Vec<u32>,
}

/// Trains on three fifths of both populations and judges on two.
///
/// # Errors
/// [`TrainingError`] of the library.
pub fn judge(one: &[Vec<f64>], other: &[Vec<f64>], seed: u64) -> Result<Vec<Judgement>, TrainingError> {
    let mut trained = Split { rows: Vec::new(), labels: Vec::new() };
    let mut held_out = Split { rows: Vec::new(), labels: Vec::new() };
    for (label, rows) in [(0, one), (1, other)] {
        for (number, row) in rows.iter().enumerate() {
            // By fours, so that containers of every kind and history are in both parts.
            let side = if number / 4 % 5 < TRAINED_OF_FIVE { &mut trained } else { &mut held_out };
            side.rows.push(row.clone());
            side.labels.push(label);
        }
    }
    standardise(&mut trained.rows, &mut held_out.rows);
    let failed = |error: smartcore::error::Failed| TrainingError(error.to_string());
    let x = DenseMatrix::from_2d_vec(&trained.rows).map_err(failed)?;
    let unseen = DenseMatrix::from_2d_vec(&held_out.rows).map_err(failed)?;

    let parameters = LogisticRegressionParameters::default().with_alpha(REGULARISATION);
    let regression = LogisticRegression::fit(&x, &trained.labels, parameters).map_err(failed)?;
    let told = regression.predict(&unseen).map_err(failed)?;
    let regression = judgement("logistic regression", &told, &held_out.labels);

    let parameters = RandomForestClassifierParameters::default()
        .with_n_trees(TREES.0)
        .with_max_depth(TREES.1)
        .with_seed(seed);
    let forest = RandomForestClassifier::fit(&x, &trained.labels, parameters).map_err(failed)?;
    let told: Vec<u32> = forest.predict(&unseen).map_err(failed)?;
    let forest = judgement("random forest", &told, &held_out.labels);
    Ok(vec![regression, forest])
}

/// Mean 0 and deviation 1, both of the trained part only: nothing of the held-out part is used in training.
fn standardise(trained: &mut [Vec<f64>], held_out: &mut [Vec<f64>]) {
    let Some(columns) = trained.first().map(Vec::len) else { return };
    for column in 0..columns {
        let count = trained.len() as f64;
        let mean = trained.iter().map(|row| row[column]).sum::<f64>() / count;
        let variance = trained.iter().map(|row| (row[column] - mean).powi(2)).sum::<f64>() / count;
        let deviation = if variance > 0.0 { variance.sqrt() } else { 1.0 };
        for row in trained.iter_mut().chain(held_out.iter_mut()) {
            row[column] = (row[column] - mean) / deviation;
        }
    }
}

/// A permutation test over **all** shufflings of the held-out labels: that part took no part in training, so if nothing
/// can be told its labels are exchangeable, and the number of right answers is distributed hypergeometrically.
fn judgement(name: &'static str, told: &[u32], labels: &[u32]) -> Judgement {
    let right = told.iter().zip(labels).filter(|(told, label)| told == label).count();
    let ones = |all: &[u32]| all.iter().filter(|one| **one == 1).count();
    Judgement {
        name,
        accuracy: right as f64 / labels.len().max(1) as f64,
        held_out: labels.len(),
        p: at_least(right, labels.len(), ones(labels), ones(told)),
    }
}

/// The share of all shufflings of `all` labels, `ones` of them 1, for which answers of which `told` are 1 are right at
/// least `right` times.
fn at_least(right: usize, all: usize, ones: usize, told: usize) -> f64 {
    let choose = |n: usize, k: usize| {
        let gamma = |n: usize| ln_gamma(n as f64 + 1.0);
        gamma(n) - gamma(k) - gamma(n - k)
    };
    // Of `both`, the answers 1 that are right, the number of right answers follows.
    let possible = (ones + told).saturating_sub(all)..=ones.min(told);
    let share =
        |both: usize| (choose(ones, both) + choose(all - ones, told - both) - choose(all, told)).exp();
    let counts = possible.filter(|both| all + 2 * both - ones - told >= right);
    counts.map(share).sum::<f64>().min(1.0)
}

#[cfg(test)]
mod tests {
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
    use rand_core::RngCore;

    use super::*;

    #[test]
    fn all_shufflings_are_counted() {
        // Of two ones among four, both told right: one of six shufflings. Right twice or more: all but the opposite.
        assert!((at_least(4, 4, 2, 2) - 1.0 / 6.0).abs() < 1e-9);
        assert!((at_least(2, 4, 2, 2) - 5.0 / 6.0).abs() < 1e-9);
        assert!((at_least(0, 4, 2, 2) - 1.0).abs() < 1e-9);
        // Who always says the same is right as often as there are such labels, whatever is shuffled.
        assert!((at_least(3, 5, 2, 0) - 1.0).abs() < 1e-9 && at_least(4, 5, 2, 0) < 1e-9);
    }

    fn rows(count: usize, shift: f64, seed: u64) -> Vec<Vec<f64>> {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let uniform = |rng: &mut ChaCha20Rng| f64::from(rng.next_u32()) / f64::from(u32::MAX);
        (0..count).map(|_| vec![uniform(&mut rng) + shift, uniform(&mut rng), 3.0]).collect()
    }

    #[test]
    fn what_differs_is_told_and_what_does_not_is_not() {
        for judged in judge(&rows(200, 0.0, 1), &rows(200, 0.5, 2), 3).unwrap() {
            assert!(judged.accuracy > 0.6 && judged.p < 1e-3, "{judged:?}");
            assert_eq!(judged.held_out, 160);
        }
        for judged in judge(&rows(200, 0.0, 4), &rows(200, 0.0, 5), 3).unwrap() {
            assert!(judged.p > 0.01, "{judged:?}");
        }
    }
}
