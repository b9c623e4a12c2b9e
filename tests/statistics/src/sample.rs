//! A population, measured.

use crate::{
    features,
    layout::Look,
    leak::Leak,
    population::{MakeError, make, noise, recipe},
    positions::BitCounts,
};

/// Which containers a sample has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Without a second passphrase.
    Without,
    /// With one.
    With,
    /// Plain random bytes.
    Noise,
}

/// The containers of one group: a row of numbers for each, and the counts of all their bits.
#[derive(Debug)]
pub struct Sample {
    /// One row for each container, in the order of their numbers.
    pub rows: Vec<Vec<f64>>,
    /// Counts of bits.
    pub bits: BitCounts,
}

impl Sample {
    /// Nothing measured yet.
    #[must_use]
    pub fn empty(look: &Look) -> Self {
        Self { rows: Vec::new(), bits: BitCounts::new(look) }
    }

    /// Measures one container that was made elsewhere.
    pub fn add(&mut self, look: &Look, image: &[u8]) {
        let taken = look.taken(image);
        self.rows.push(features::measure(look, &taken));
        self.bits.add(&taken);
    }

    /// Makes `count` containers from `seed` on and measures them, on `threads` threads. A leak is planted in each of
    /// `leaks` copies: the first sample is clean, then comes one for each leak.
    ///
    /// # Errors
    /// [`MakeError`].
    pub fn make(
        look: &Look,
        group: Group,
        count: usize,
        seed: u64,
        leaks: &[Leak],
        threads: usize,
    ) -> Result<Vec<Self>, MakeError> {
        let parts: Vec<Result<Vec<Part>, MakeError>> = std::thread::scope(|scope| {
            let work = |thread: usize| {
                let mine = (thread..count).step_by(threads);
                move || part(look, group, mine, seed, leaks)
            };
            let handles: Vec<_> = (0..threads).map(|thread| scope.spawn(work(thread))).collect();
            handles.into_iter().filter_map(|handle| handle.join().ok()).collect()
        });
        let mut samples: Vec<Part> = (0..=leaks.len()).map(|_| Part::new(look)).collect();
        for part in parts {
            for (sample, part) in samples.iter_mut().zip(part?) {
                sample.rows.extend(part.rows);
                sample.bits.merge(part.bits);
            }
        }
        Ok(samples.into_iter().map(Part::finished).collect())
    }
}

/// What one thread has measured: containers with their numbers.
struct Part {
    rows: Vec<(usize, Vec<f64>)>,
    bits: BitCounts,
}

impl Part {
    fn new(look: &Look) -> Self {
        Self { rows: Vec::new(), bits: BitCounts::new(look) }
    }

    fn add(&mut self, look: &Look, number: usize, taken: &[u8]) {
        self.rows.push((number, features::measure(look, taken)));
        self.bits.add(taken);
    }

    fn finished(mut self) -> Sample {
        self.rows.sort_by_key(|(number, _)| *number);
        Sample { rows: self.rows.into_iter().map(|(_, row)| row).collect(), bits: self.bits }
    }
}

fn part(
    look: &Look,
    group: Group,
    numbers: impl Iterator<Item = usize>,
    seed: u64,
    leaks: &[Leak],
) -> Result<Vec<Part>, MakeError> {
    let mut parts: Vec<Part> = (0..=leaks.len()).map(|_| Part::new(look)).collect();
    for number in numbers {
        let recipe = match group {
            Group::Without => recipe(false, number, seed),
            Group::With => recipe(true, number, seed),
            Group::Noise => {
                // Only what is looked at: nothing else of random bytes differs.
                parts[0].add(look, number, &noise(look.len(), seed.wrapping_add(number as u64)));
                continue;
            }
        };
        let image = make(recipe)?;
        let (clean, leaking) = parts.split_at_mut(1);
        clean[0].add(look, number, &look.taken(&image));
        for (part, leak) in leaking.iter_mut().zip(leaks) {
            let mut image = image.clone();
            leak.plant(&mut image, recipe.seed ^ 0x1eaf);
            part.add(look, number, &look.taken(&image));
        }
    }
    Ok(parts)
}
