//! Wall time of unlocks, measured and compared as `dudect` does: many rounds in random order, and a test whether two
//! kinds differ by more than two halves of one kind do.
//!
//! A measurement, not a test: a shared computer's clock proves nothing in either direction within a run of the tests.

use std::time::{Duration, Instant};

use lapwing_vault::{Container, ContainerSize, MemoryBackend, Others, Passphrase, Spec};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use rand_core::RngCore;
use serde::Serialize;

use crate::CHEAP;

/// Share of the slowest rounds that is left out: those that something else interrupted.
const CROPPED: f64 = 0.1;

/// Distance in standard errors from which `dudect` calls two samples different.
pub const FAR: f64 = 4.5;

/// One kind of unlock, compared with the first.
#[derive(Debug, Clone, Serialize)]
pub struct Timed {
    /// Which.
    pub kind: &'static str,
    /// Median, in microseconds.
    pub median_us: f64,
    /// Distance of its mean from the first kind's, in standard errors.
    pub distance: f64,
}

/// Unlocks a container in memory `rounds` times with each passphrase. The derivation is one that costs nothing, so
/// what is compared is everything else. `None` if the container cannot be made.
///
/// The first kind is there twice: how far it is from itself shows what the computer's unrest amounts to.
#[must_use]
pub fn unlocks(rounds: usize) -> Option<Vec<Timed>> {
    let mut rng = ChaCha20Rng::seed_from_u64(9);
    let backend = MemoryBackend::new();
    let image = {
        let (real, keep) = (Passphrase::new("real"), backend.another_handle());
        let mut session =
            Container::create(backend, ContainerSize::MIN, &real, CHEAP, &mut rng, &mut |_, _| {}).ok()?;
        let first = *session.volumes().first()?;
        let shown = session.create_volume(first, b"shown", &mut rng).ok()?;
        for (name, others) in [("hides", Others::Keep), ("destroys", Others::Refresh)] {
            let spec = Spec {
                volumes: &[shown],
                others,
                spare: &[],
                application: &[],
                label: name.as_bytes(),
                home: first,
            };
            session.add_passphrase(&Passphrase::new(name), &spec, &mut rng).ok()?;
        }
        drop(session);
        keep.image()
    };
    let kinds = [
        ("real", "real"),
        ("real again", "real"),
        ("hides", "hides"),
        ("destroys", "destroys"),
        ("opens nothing", "x"),
    ];
    let mut times: Vec<Vec<f64>> = vec![Vec::with_capacity(rounds); kinds.len()];
    while times.iter().any(|times| times.len() < rounds) {
        let kind = usize::try_from(rng.next_u32()).ok()? % kinds.len();
        if times[kind].len() < rounds {
            let locked = Container::open(MemoryBackend::with_image(image.clone())).ok()?;
            let passphrase = Passphrase::new(kinds[kind].1);
            let begun = now();
            let session = locked.unlock(&passphrase, CHEAP, &mut rng, Duration::ZERO);
            times[kind].push(begun.elapsed().as_secs_f64() * 1e6);
            drop(session);
        }
    }
    times.iter_mut().for_each(crop);
    let first = times.first()?.clone();
    let timed = kinds.iter().zip(&times).map(|((kind, _), times)| Timed {
        kind,
        median_us: times[times.len() / 2],
        distance: distance(&first, times),
    });
    Some(timed.collect())
}

/// Sorts, and leaves the slowest out.
fn crop(times: &mut Vec<f64>) {
    times.sort_by(f64::total_cmp);
    let kept = times.len() as f64 * (1.0 - CROPPED);
    let mut left = 0.0;
    times.retain(|_| {
        left += 1.0;
        left <= kept
    });
}

/// Distance of two means in standard errors (Welch).
fn distance(one: &[f64], other: &[f64]) -> f64 {
    let moments = |values: &[f64]| {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        (mean, values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0) / n)
    };
    let ((one, one_error), (other, other_error)) = (moments(one), moments(other));
    (one - other).abs() / (one_error + other_error).max(1e-12).sqrt()
}

#[expect(clippy::disallowed_methods, reason = "this is where wall time is what is measured")]
fn now() -> Instant {
    Instant::now()
}
