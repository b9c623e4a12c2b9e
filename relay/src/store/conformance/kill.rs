//! SIGKILL of a process under load, round after round on one store.
//!
//! Short here; `LAPWING_KILL_ROUNDS=1000 cargo nextest run -p lapwing-relay kill_rounds` is the long run.

use super::{
    storm::{Kept, Storm, TASKS, check_left},
    *,
};

/// Rounds in continuous integration.
const ROUNDS: usize = 3;
/// Owners are told apart by a byte, so one store serves so many rounds.
const ROUNDS_PER_STORE: usize = 24;

fn rounds() -> usize {
    std::env::var("LAPWING_KILL_ROUNDS").ok().map_or(ROUNDS, |text| text.parse().unwrap())
}

async fn kill_again_and_again(kept: Kept, rounds: usize) {
    let mut rng = StdRng::seed_from_u64(1);
    let (mut stored, mut opened) = (0, Duration::ZERO);
    for from in (0..rounds).step_by(ROUNDS_PER_STORE) {
        let dir = tempfile::tempdir().unwrap();
        for round in from..rounds.min(from + ROUNDS_PER_STORE) {
            let first = 1 + TASKS * u8::try_from(round % ROUNDS_PER_STORE).unwrap();
            let before = Storm::count(dir.path());
            let more = rng.random_range(20..600);
            let mut storm = Storm::start(kept, dir.path(), first, &[]);
            storm.wait("some changes", |marks| marks.lines().count() > before + more);
            let marks = storm.kill();
            let begun = tokio::time::Instant::now();
            let store = kept.open(dir.path()).unwrap();
            opened = opened.max(begun.elapsed());
            check_left(&*store, &marks, first..first + TASKS).await.unwrap();
            store.close().await;
            stored += marks.lines().skip(before).filter(|line| line.starts_with('+')).count();
        }
        let marks = Storm::marks_in(dir.path());
        let store = kept.open(dir.path()).unwrap();
        check_left(&*store, &marks, 1..=TASKS * 2).await.unwrap();
        store.close().await;
    }
    println!("{kept:?}: {rounds} rounds, {stored} acknowledged appends, slowest opening {opened:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn fjall_keeps_what_it_acknowledged_through_kill_rounds() {
    kill_again_and_again(Kept::Fjall, rounds()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sled_keeps_what_it_acknowledged_through_kill_rounds() {
    kill_again_and_again(Kept::Sled, rounds()).await;
}
