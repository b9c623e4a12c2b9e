//! Nobody without a passphrase can tell whether there is a second one, nor that the file is a container at all.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    missing_docs,
    reason = "a test that cannot go on has failed"
)]

use lapwing_statistics::{
    layout::{Look, Scope},
    leak::Leak,
    sample::{Group, Sample},
    verdict::Comparison,
};

/// Where everything random comes from. Another one is another run, with figures of its own.
const SEED: u64 = 0x6c61_7077_696e_6701;

/// Size of a run.
struct Run {
    containers: usize,
    controls: usize,
    scope: Scope,
}

impl Run {
    /// What continuous integration can afford; `LAPWING_STATISTICS=long` for several times as much.
    fn wanted() -> Self {
        if std::env::var_os("LAPWING_STATISTICS").is_some_and(|value| value == "long") {
            return Self { containers: 4_000, controls: 2_000, scope: Scope::Whole };
        }
        Self { containers: 1_000, controls: 300, scope: Scope::Chosen(24) }
    }
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn one(look: &Look, group: Group, count: usize, seed: u64) -> Sample {
    Sample::make(look, group, count, seed, &[], threads()).unwrap().remove(0)
}

#[test]
fn containers_with_and_without_a_second_passphrase_cannot_be_told_apart_nor_from_noise() {
    let Run { containers, scope, .. } = Run::wanted();
    let look = Look::new(scope, SEED);
    let without = one(&look, Group::Without, containers, SEED);
    let with = one(&look, Group::With, containers, SEED + 1_000_000);
    let noise = one(&look, Group::Noise, containers, SEED + 2_000_000);
    let compared = [
        ("with and without a second passphrase", &with, &without),
        ("with a second passphrase, and random bytes", &with, &noise),
        ("without a second passphrase, and random bytes", &without, &noise),
    ]
    .map(|(name, one, other)| Comparison::of(name, &look, one, other, SEED).unwrap());
    let report: String = compared.iter().map(Comparison::report).collect();
    eprintln!("{containers} containers each, {} bytes of each looked at\n{report}", look.len());
    assert!(compared.iter().all(|comparison| !comparison.tells_apart()), "{report}");
}

#[test]
fn controls_that_leak_are_caught_by_the_same_statistics() {
    let Run { controls, scope, .. } = Run::wanted();
    let look = Look::new(scope, SEED);
    let without = one(&look, Group::Without, controls, SEED + 3_000_000);
    let mut with =
        Sample::make(&look, Group::With, controls, SEED + 4_000_000, &Leak::ALL, threads()).unwrap();
    let clean = with.remove(0);
    let clean = Comparison::of("no leak", &look, &clean, &without, SEED).unwrap();
    let mut report = clean.report();
    let mut missed = Vec::new();
    for (leak, sample) in Leak::ALL.into_iter().zip(&with) {
        let comparison = Comparison::of(&leak.name(), &look, sample, &without, SEED).unwrap();
        report += &comparison.report();
        if leak.must_be_caught(controls) && !comparison.tells_apart() {
            missed.push(leak);
        }
    }
    eprintln!("{controls} containers each, {} bytes of each looked at\n{report}", look.len());
    assert!(!clean.tells_apart(), "{report}");
    assert!(missed.is_empty(), "{missed:?} of\n{report}");
}
