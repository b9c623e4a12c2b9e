//! What is measured of one container: some hundred numbers, each with a name.

use std::io::Write as _;

use flate2::{Compression, write::DeflateEncoder};

use crate::layout::{Look, Part, SLOT, SLOTS};

/// Bytes of a block whose own histogram is judged.
const BLOCK: usize = 4096;
/// Bytes of each part that go through the compressor: it is the slowest of all.
const COMPRESSED: usize = 64 << 10;

/// Names of the numbers of [`measure`], in their order.
#[must_use]
pub fn names(look: &Look) -> Vec<String> {
    let mut names = Vec::new();
    let empty = vec![0; look.len()];
    collect(look, &empty, &mut |name, _| names.push(name));
    names
}

/// The numbers of one container, of which `taken` was looked at.
#[must_use]
pub fn measure(look: &Look, taken: &[u8]) -> Vec<f64> {
    let mut values = Vec::with_capacity(160);
    collect(look, taken, &mut |_, value| values.push(value));
    values
}

fn collect(look: &Look, taken: &[u8], tell: &mut dyn FnMut(String, f64)) {
    for part in Part::all() {
        of_part(&part.name(), &taken[look.range(part)], tell);
    }
    let whole = histogram(taken);
    tell("entropy of all".to_owned(), entropy(&whole, taken.len()));
    tell("rarest byte of all".to_owned(), whole.iter().min().map_or(0.0, |count| f64::from(*count)));
    tell("commonest byte of all".to_owned(), whole.iter().max().map_or(0.0, |count| f64::from(*count)));
    tell("longest run of one byte".to_owned(), longest_run(taken));
    tell("zero 32-bit words".to_owned(), zero_words(taken));
    tell("repeated 64-bit words".to_owned(), repeated_words(taken));
    for part in [Part::CopyHead(0), Part::Slots(0), Part::RegionHead(0), Part::Units(0), Part::Units(3)] {
        let bytes = &taken[look.range(part)];
        let length = compressed(&bytes[..bytes.len().min(COMPRESSED)]);
        tell(format!("compressed {}", part.name()), length);
    }
    between_copies(look, taken, tell);
    between_slots(look, taken, tell);
    between_regions(look, taken, tell);
}

fn of_part(name: &str, bytes: &[u8], tell: &mut dyn FnMut(String, f64)) {
    let mut whole = [0u32; 256];
    let (mut least, mut most, mut fours) = (f64::INFINITY, 0.0f64, 0.0);
    for block in bytes.chunks_exact(BLOCK) {
        let counts = histogram(block);
        let chi = chi_square(&counts, block.len());
        least = least.min(chi);
        most = most.max(chi);
        fours += chi * chi;
        whole.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }
    let blocks = bytes.len() / BLOCK;
    tell(format!("byte histogram, {name}"), chi_square(&whole, blocks * BLOCK));
    tell(format!("most even block, {name}"), least);
    tell(format!("least even block, {name}"), most);
    tell(format!("spread of blocks, {name}"), fours / blocks.max(1) as f64);
    let ones: u64 = bytes.iter().map(|byte| u64::from(byte.count_ones())).sum();
    tell(format!("bits that are one, {name}"), ones as f64);
    tell(format!("correlation of neighbours, {name}"), correlation(bytes, 1));
    tell(format!("correlation over 16 bytes, {name}"), correlation(bytes, 16));
}

/// Copies of the header, byte for byte: equal inner layers, nonces or keys would show here.
fn between_copies(look: &Look, taken: &[u8], tell: &mut dyn FnMut(String, f64)) {
    for (name, part) in [("heads", Part::CopyHead as fn(usize) -> Part), ("slots", Part::Slots)] {
        let (one, other) = (&taken[look.range(part(0))], &taken[look.range(part(1))]);
        tell(format!("equal bytes in {name} of both headers"), equal(one, other));
        tell(format!("bits of both headers that differ, {name}"), differing_bits(one, other));
    }
}

fn between_slots(look: &Look, taken: &[u8], tell: &mut dyn FnMut(String, f64)) {
    for copy in 0..2 {
        let slots = &taken[look.range(Part::Slots(copy))];
        let slot = |number: usize| &slots[number * SLOT..(number + 1) * SLOT];
        let (mut sum, mut most) = (0.0, 0.0f64);
        for one in 0..SLOTS {
            for other in 0..one {
                let same = equal(slot(one), slot(other));
                sum += same;
                most = most.max(same);
            }
        }
        let name = ["A", "B"][copy];
        tell(format!("equal bytes in slots of header {name}"), sum);
        tell(format!("most equal pair of slots in header {name}"), most);
    }
}

fn between_regions(look: &Look, taken: &[u8], tell: &mut dyn FnMut(String, f64)) {
    for (name, part) in [("heads", Part::RegionHead as fn(usize) -> Part), ("units", Part::Units)] {
        let (mut sum, mut most) = (0.0, 0.0f64);
        for one in 0..4 {
            for other in 0..one {
                let same = equal(&taken[look.range(part(one))], &taken[look.range(part(other))]);
                sum += same;
                most = most.max(same);
            }
        }
        tell(format!("equal bytes in {name} of regions"), sum);
        tell(format!("most equal pair of {name} of regions"), most);
    }
}

pub(crate) fn histogram(bytes: &[u8]) -> [u32; 256] {
    // Four tables, so that equal neighbours do not wait for each other.
    let mut tables = [[0u32; 256]; 4];
    let chunks = bytes.chunks_exact(4);
    for byte in chunks.remainder() {
        tables[0][usize::from(*byte)] += 1;
    }
    for chunk in chunks {
        for (table, byte) in tables.iter_mut().zip(chunk) {
            table[usize::from(*byte)] += 1;
        }
    }
    std::array::from_fn(|byte| tables.iter().map(|table| table[byte]).sum())
}

pub(crate) fn chi_square(counts: &[u32; 256], total: usize) -> f64 {
    let expected = total.max(1) as f64 / 256.0;
    counts.iter().map(|count| (f64::from(*count) - expected).powi(2) / expected).sum()
}

fn entropy(counts: &[u32; 256], total: usize) -> f64 {
    let shares = counts.iter().filter(|count| **count > 0).map(|count| f64::from(*count) / total as f64);
    -shares.map(|share| share * share.log2()).sum::<f64>()
}

fn correlation(bytes: &[u8], lag: usize) -> f64 {
    if bytes.len() <= lag {
        return 0.0;
    }
    let products = bytes
        .iter()
        .zip(&bytes[lag..])
        .map(|(one, other)| (i64::from(*one) * 2 - 255) * (i64::from(*other) * 2 - 255));
    products.sum::<i64>() as f64
}

fn longest_run(bytes: &[u8]) -> f64 {
    let (mut longest, mut run) = (1u32, 1u32);
    for pair in bytes.windows(2) {
        run = if pair[0] == pair[1] { run + 1 } else { 1 };
        longest = longest.max(run);
    }
    f64::from(longest)
}

fn zero_words(bytes: &[u8]) -> f64 {
    bytes.chunks_exact(4).filter(|word| **word == [0; 4]).count() as f64
}

/// How many aligned words stand somewhere else too. Of random ones: none.
fn repeated_words(bytes: &[u8]) -> f64 {
    let word = |chunk: &[u8]| chunk.first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
    // A quarter of them finds every repetition of 32 bytes or more.
    let mut words: Vec<u64> = bytes.chunks_exact(8).step_by(4).map(word).collect();
    let all = words.len();
    words.sort_unstable();
    words.dedup();
    (all - words.len()) as f64
}

fn compressed(bytes: &[u8]) -> f64 {
    let mut encoder = DeflateEncoder::new(Vec::with_capacity(bytes.len() + 1024), Compression::fast());
    // A vector takes every write.
    let written = encoder.write_all(bytes).and_then(|()| encoder.finish());
    written.map_or(0.0, |out| out.len() as f64)
}

fn equal(one: &[u8], other: &[u8]) -> f64 {
    one.iter().zip(other).filter(|(one, other)| one == other).count() as f64
}

fn differing_bits(one: &[u8], other: &[u8]) -> f64 {
    one.iter().zip(other).map(|(one, other)| u64::from((one ^ other).count_ones())).sum::<u64>() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Scope;

    #[test]
    fn known_values() {
        assert_eq!(longest_run(&[1, 2, 2, 2, 3, 3]), 3.0);
        assert_eq!(repeated_words(&[7; 64]), 1.0);
        assert_eq!(entropy(&histogram(&[0, 255, 0, 255]), 4), 1.0);
        assert_eq!(chi_square(&histogram(&(0..=255).collect::<Vec<u8>>()), 256), 0.0);
        assert_eq!(correlation(&[0, 0, 255], 1), f64::from(255 * 255 - 255 * 255));
        let look = Look::new(Scope::Chosen(2), 0);
        assert_eq!(names(&look).len(), measure(&look, &vec![1; look.len()]).len());
    }
}
