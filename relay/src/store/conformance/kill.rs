//! SIGKILL of a process under load, round after round on one store.
//!
//! Short here; `LAPWING_KILL_ROUNDS=1000 cargo nextest run --profile long -p lapwing-relay kill_rounds` is the long run.

use super::{
    storm::{FILL, Kept, Storm, TASKS, check_left, overlapped},
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
    let (mut stored, mut unlocked, mut opened) = (0, 0, Duration::ZERO);
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
            let count = |kind| marks.lines().skip(before).filter(|line| line.starts_with(kind)).count();
            stored += count('+');
            unlocked += count('S');
        }
        let marks = Storm::marks_in(dir.path());
        assert!(overlapped(kept, &marks), "two groups were under way");
        let store = kept.open(dir.path()).unwrap();
        check_left(&*store, &marks, 1..=TASKS * 2).await.unwrap();
        store.close().await;
        println!(
            "{kept:?}: {} of {rounds} rounds, {stored} acknowledged appends",
            rounds.min(from + ROUNDS_PER_STORE)
        );
    }
    println!(
        "{kept:?}: {rounds} rounds, {stored} acknowledged appends, {unlocked} changes of an outer key, slowest opening {opened:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn fjall_keeps_what_it_acknowledged_through_kill_rounds() {
    kill_again_and_again(Kept::Fjall, rounds()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sled_keeps_what_it_acknowledged_through_kill_rounds() {
    kill_again_and_again(Kept::Sled, rounds()).await;
}

/// How long a relay may take to be there again.
const RESTART: Duration = Duration::from_secs(2);

async fn open_again_after(count: u64) -> Duration {
    let dir = tempfile::tempdir().unwrap();
    let text = count.to_string();
    let mut storm = Storm::start(Kept::Fjall, dir.path(), 0, &[(FILL, std::path::Path::new(&text))]);
    storm.wait_long("the store is full", |marks| marks.lines().any(|line| line.starts_with('f')));
    storm.kill();
    let begun = tokio::time::Instant::now();
    let store = Kept::Fjall.open(dir.path()).unwrap();
    let owner = Owner::new(7);
    let query =
        WindowQuery { mailbox: owner.id(), born: owner.born(), after: Seq::START, count: 10, bytes: 1 << 20 };
    assert_eq!(store.window(query).await.unwrap().unwrap().items.len(), 10);
    let mut change = owner.append(envelope(1, 1024));
    if let Mutation::Append { limit, .. } = &mut change {
        *limit = u64::MAX;
    }
    let (stored, _) = place(&*store, change).await.unwrap();
    assert_eq!(stored.seq.value(), count / 100 + 1);
    let took = begun.elapsed();
    store.close().await;
    println!("{count} envelopes: opened, read and written after {took:?}");
    took
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_store_is_there_again_in_two_seconds() {
    assert!(open_again_after(20_000).await < RESTART);
}

/// A gigabyte and a minute: `cargo nextest run -p lapwing-relay --run-ignored only million`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "writes more than a gigabyte"]
async fn a_million_envelopes_are_there_again_in_two_seconds() {
    assert!(open_again_after(1_000_000).await < RESTART);
}

/// Envelopes that a queue has seen before it is read.
const TAKEN: u64 = 20_000;

/// A queue that was emptied again and again must not become slower: what was taken lies before its head, and reading
/// begins at the head. Walking over it would take hundreds of times as long.
#[tokio::test(flavor = "multi_thread")]
async fn reading_does_not_walk_over_what_was_taken() {
    for kept in [Kept::Fjall, Kept::Sled] {
        let dir = tempfile::tempdir().unwrap();
        let store = kept.open(dir.path()).unwrap();
        let (old, young) = (Owner::new(1), Owner::new(2));
        for owner in [&old, &young] {
            done(&*store, owner.create(MailboxKind::Queue, Charge::Open), "created").await.unwrap();
        }
        for group in 0..TAKEN / 1000 {
            let group =
                (1..=1000).map(|number| apply(&*store, old.append(envelope(group * 1000 + number, 64)), 1));
            for outcome in together(group).await {
                assert!(matches!(outcome, Ok(Outcome::Stored { .. })));
            }
            done(&*store, old.ack(u64::MAX, &[]), "taken").await.unwrap();
        }
        for owner in [&old, &young] {
            for number in 0..10 {
                place(&*store, owner.append(envelope(1_000_000 + number, 64))).await.unwrap();
            }
        }
        let mut fastest = [Duration::MAX; 2];
        for _ in 0..50 {
            for (owner, fastest) in [&old, &young].into_iter().zip(&mut fastest) {
                let begun = tokio::time::Instant::now();
                assert_eq!(numbers(&*store, owner, 0).await.unwrap().len(), 10);
                *fastest = begun.elapsed().min(*fastest);
            }
        }
        println!("{kept:?}: after {TAKEN} taken {:?}, fresh {:?}", fastest[0], fastest[1]);
        assert!(fastest[0] < fastest[1] * 30 + Duration::from_millis(1), "{kept:?}: {fastest:?}");
        store.close().await;
    }
}
