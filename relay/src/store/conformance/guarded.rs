//! An anchor and a tripwire under load until the process is killed or the power fails, and what must be left of them.
//!
//! ```text
//! A M 0      the anchor is there                       a M N      N guesses at it were answered
//! s M N      outer key N is about to be staged         S M N      it was committed
//! t M N      the tripwire is about to be armed, serial N          T M N      it was armed
//! g M N      another anchor is about to be made (N is odd) or taken away               G M N      it was
//! ```

use std::fs::File;

use lapwing_wire::{
    anchor::OuterKey,
    frame::{Evaluate, ProveEntry, Settle, Stage},
    limits::MAX_FAILURES,
    oprf::Blinded,
};

use super::{
    anchors::{Anchored, unlock},
    forgetting::Armed,
    storm::{TASKS, mark, press},
    *,
};
use crate::store::{AnchorChange, AnchorOutcome, KeptStore};

/// Guesses that the load makes: so few that the anchor still answers when it is looked at.
const GUESSES: u64 = 5;
/// Rounds, if nobody kills it.
const ROUNDS: u64 = 2000;

/// The key that round `n` commits.
fn outer(anchored: &Anchored, n: u64) -> OuterKey {
    if n == 0 {
        return anchored.outer.clone();
    }
    let mut bytes = *anchored.outer.expose();
    bytes[24..].copy_from_slice(&n.to_be_bytes());
    OuterKey::from_bytes(bytes)
}

/// A blinded element that is asked for once.
fn blinded(kind: u8, n: u64) -> Blinded {
    let mut bytes = [kind; 32];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    Blinded::from_bytes(bytes)
}

fn change(change: AnchorChange) -> Mutation {
    Mutation::Anchor { change, filler: [8; 32] }
}

pub(super) async fn work(store: &dyn KeptStore, marks: &File, number: u8) {
    let (owner, anchored, armed) = (Owner::new(number), Anchored::new(number), Armed::new(number));
    let id = anchored.id();
    let keys = anchored.keys(0).unwrap();
    let proof = keys.proof().clone();
    let ask = async |asked: AnchorChange| match press(store, marks, &owner, number, change(asked)).await {
        Outcome::Anchor { outcome, .. } => outcome,
        other => panic!("{other:?}"),
    };
    let make = Box::new(anchored.create().unwrap());
    assert!(matches!(ask(AnchorChange::Create { make, charge: Charge::Open }).await, AnchorOutcome::Done));
    mark(marks, format_args!("A {number} 0"));
    let mut guesses = 0;
    for n in 1..=ROUNDS {
        let asked = blinded(1, n);
        let evaluated = ask(AnchorChange::Evaluate(Evaluate { anchor: id, blinded: asked })).await;
        assert!(matches!(evaluated, AnchorOutcome::Evaluate(_)));
        let shown = ProveEntry { anchor: id, blinded: asked, proof: proof.clone() };
        let AnchorOutcome::Released(release) = ask(AnchorChange::Prove(shown)).await else {
            panic!("a right proof is released")
        };
        assert!(release.outer == outer(&anchored, n - 1));
        mark(marks, format_args!("s {number} {n}"));
        let next = outer(&anchored, n);
        let stage = next.stage();
        let laid = Box::new(Stage { anchor: id, outer: next, mark: release.mark });
        let laid = ask(AnchorChange::Stage { proof: proof.clone(), stage: laid }).await;
        assert!(matches!(laid, AnchorOutcome::Done));
        let settle = Settle { anchor: id, stage };
        let committed = ask(AnchorChange::Commit { proof: proof.clone(), settle }).await;
        assert!(matches!(committed, AnchorOutcome::Done));
        mark(marks, format_args!("S {number} {n}"));

        mark(marks, format_args!("t {number} {n}"));
        let arm = armed.arm(n, &owner, &[1; 1024], &[2; 1024]);
        assert!(matches!(press(store, marks, &owner, number, arm).await, Outcome::Done));
        mark(marks, format_args!("T {number} {n}"));

        // Each in its turn is made and taken away, so that slots are used again.
        let other = number + 1 + u8::try_from(n % u64::from(TASKS - 1)).unwrap();
        let (going, turn) = (Anchored::new(other), n.div_ceil(u64::from(TASKS - 1)));
        mark(marks, format_args!("g {other} {turn}"));
        let asked = if turn % 2 == 1 {
            let make = Box::new(going.create().unwrap());
            AnchorChange::Create { make, charge: Charge::Open }
        } else {
            AnchorChange::Remove(going.owner())
        };
        assert!(matches!(ask(asked).await, AnchorOutcome::Done));
        mark(marks, format_args!("G {other} {turn}"));

        if n % 3 == 0 && guesses < GUESSES {
            guesses += 1;
            let guess = Evaluate { anchor: id, blinded: blinded(2, n) };
            assert!(matches!(ask(AnchorChange::Evaluate(guess)).await, AnchorOutcome::Evaluate(_)));
            mark(marks, format_args!("a {number} {guesses}"));
        }
    }
}

/// The last number of each of these marks.
fn told<const N: usize>(marks: &str, number: u8, kinds: [&str; N]) -> [Option<u64>; N] {
    kinds.map(|kind| {
        let prefix = format!("{kind} {number} ");
        marks.lines().filter_map(|line| line.strip_prefix(&prefix)?.parse().ok()).next_back()
    })
}

/// Free slots go to anchors that are new, each to one, and to none that is there.
async fn check_slots(store: &dyn KeptStore) -> Result<(), Violation> {
    let fresh: Vec<Anchored> = (0..8).map(|n| Anchored::new(200 + n)).collect();
    let ask = async |asked| match apply(store, change(asked), 1).await? {
        Outcome::Anchor { outcome: AnchorOutcome::Done, .. } => Ok(()),
        other => Err(Violation(format!("an anchor comes and goes, and not {other:?}"))),
    };
    for anchored in &fresh {
        ask(AnchorChange::Create { make: Box::new(anchored.create()?), charge: Charge::Open }).await?;
    }
    for anchored in &fresh {
        let release = unlock(store, anchored, 0, 1).await?;
        ensure(
            release.is_some_and(|release| release.outer == anchored.outer),
            "a new anchor has its own keys",
        )?;
    }
    for anchored in &fresh {
        ask(AnchorChange::Remove(anchored.owner())).await?;
    }
    Ok(())
}

/// An anchor that came and went is as the marks say.
async fn check_going(store: &dyn KeptStore, marks: &str, number: u8) -> Result<(), Violation> {
    let [Some(asked), done] = told(marks, number, ["g", "G"]) else { return Ok(()) };
    let done = done.unwrap_or(0);
    let anchored = Anchored::new(number);
    let release = unlock(store, &anchored, 0, 1).await?;
    if asked == done {
        ensure(release.is_some() == (done % 2 == 1), "an anchor that was made is there, no other")?;
    }
    ensure(release.is_none_or(|release| release.outer == anchored.outer), "with its own keys")
}

/// Compares anchor and tripwire of a number with the marks. It is looked at once: then the anchor is frozen.
///
/// # Errors
/// What is missing, or was undone.
pub(super) async fn check_left(store: &dyn KeptStore, marks: &str, number: u8) -> Result<(), Violation> {
    let [made, guesses, staging, committed, arming, armed] =
        told(marks, number, ["A", "a", "s", "S", "t", "T"]);
    if made.is_none() {
        return check_going(store, marks, number).await;
    }
    check_slots(store).await?;
    let wrong = |what: String| Err(Violation(format!("anchor {number}: {what}")));
    let anchored = Anchored::new(number);
    let id = anchored.id();
    let ask = async |asked| match apply(store, change(asked), 1).await? {
        Outcome::Anchor { outcome, .. } => Ok::<_, Violation>(outcome),
        other => Err(Violation(format!("{other:?}"))),
    };
    if let Some(armed) = armed {
        let told = renewed(store, &Armed::new(number).renews).await?;
        let is_so =
            told.is_some_and(|(serial, fired)| (armed..=arming.unwrap_or(armed)).contains(&serial) && !fired);
        if !is_so {
            return wrong(format!("its tripwire is {told:?} and was armed with {armed}"));
        }
    }
    let asked = blinded(3, 0);
    match ask(AnchorChange::Evaluate(Evaluate { anchor: id, blinded: asked })).await? {
        AnchorOutcome::Evaluate(key) if key == anchored.key => {}
        AnchorOutcome::Refused(Refusal::Frozen) => return Ok(()),
        other => return wrong(format!("it is not there: {other:?}")),
    }
    let proof = anchored.keys(0)?.proof().clone();
    let shown = ProveEntry { anchor: id, blinded: asked, proof };
    let AnchorOutcome::Released(release) = ask(AnchorChange::Prove(shown)).await? else {
        return wrong("a right proof is not released".into());
    };
    let (from, to) = (committed.unwrap_or(0), staging.unwrap_or(0));
    if !(from..=to).any(|n| release.outer == outer(&anchored, n)) {
        return wrong(format!("its outer key is none of {from} to {to}"));
    }
    if release.staged != release.outer && release.staged != outer(&anchored, to) {
        return wrong("what is staged is not what was".into());
    }
    // ANC-04: what was answered is counted.
    let mut answered = 0;
    while let AnchorOutcome::Evaluate(_) =
        ask(AnchorChange::Evaluate(Evaluate { anchor: id, blinded: blinded(4, answered) })).await?
    {
        answered += 1;
    }
    if answered + guesses.unwrap_or(0) > u64::from(MAX_FAILURES) {
        return wrong(format!("{guesses:?} guesses were answered before, and {answered} after"));
    }
    Ok(())
}
