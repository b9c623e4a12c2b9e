//! How far beyond what waits first something can be taken, and where the head goes.

use lapwing_wire::limits::MAX_SELECTIVE_REACH;

use super::*;

pub(super) async fn check(store: &dyn MailboxStore) -> Result<(), Violation> {
    let owner = Owner::new(0x71);
    let head = async || Ok::<_, Violation>(store.mailbox(owner.id()).await?.map(|there| there.head.value()));
    done(store, owner.create(MailboxKind::Queue, Charge::Open), "created").await?;
    let last = 4 + MAX_SELECTIVE_REACH;
    remembered::append(store, &owner, 1..=last).await?;
    done(store, owner.ack(0, &[2, 1 + MAX_SELECTIVE_REACH]), "taken at the end of the reach").await?;
    ensure(head().await? == Some(1), "the head is what waits first")?;
    let before = store.mailbox(owner.id()).await?;
    for (upto, also) in [
        (0, vec![3, 2 + MAX_SELECTIVE_REACH]),
        (0, vec![1, 2 + MAX_SELECTIVE_REACH]),
        (0, vec![last, u64::MAX]),
        (2, vec![last]),
    ] {
        let refused = apply(store, owner.ack(upto, &also), 1).await?;
        ensure(matches!(refused, Outcome::Refused(Refusal::TooLarge)), "what lies further is refused")?;
        ensure(store.mailbox(owner.id()).await? == before, "nothing of what is refused is done")?;
    }
    let there = numbers(store, &owner, 0).await?;
    ensure(there.len() == usize::try_from(last - 2).unwrap_or(0), "what was not taken is there")?;
    done(store, owner.ack(0, &[1, u64::MAX]), "what is not given yet is not meant").await?;
    ensure(head().await? == Some(3), "the head goes over what was taken before")?;
    done(store, owner.ack(3, &[last]), "the reach begins at what waits behind the rest").await?;
    ensure(head().await? == Some(4), "taking all to a number moves the head")?;
    let others: Vec<u64> = (4..last).collect();
    done(store, owner.ack(0, &others), "all of them").await?;
    ensure(head().await? == Some(last + 1), "the head comes behind the newest")?;
    let there = store.mailbox(owner.id()).await?;
    ensure(there.is_some_and(|there| there.bytes == 0), "what was taken is not charged")?;
    place(store, owner.append(envelope(last + 1, 64))).await?;
    ensure(numbers(store, &owner, 0).await? == [last + 1], "what comes then is there")
}
