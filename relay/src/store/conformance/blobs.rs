//! Blobs: parts, what is whole, what lies, and what they are charged.

use super::*;

pub(super) async fn check(store: &dyn MailboxStore) -> Result<(), Violation> {
    let blob: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).take(100_000).collect();
    let hash = BlobHash::of(&blob);
    let put = |offset: usize, bytes: &[u8]| Mutation::BlobPut {
        hash,
        total: 100_000,
        offset: u64::try_from(offset).unwrap_or(u64::MAX),
        bytes: bytes.to_vec(),
        charge: Charge::Open,
        limit: u64::MAX,
    };
    for (offset, part) in [(0, &blob[..40_000]), (40_000, &blob[40_000..90_000]), (90_000, &blob[90_000..])] {
        ensure(store.blob_part(hash, 0).await?.is_none(), "an unfinished blob is not there")?;
        let expected = u64::try_from(offset + part.len()).unwrap_or(0);
        for _ in 0..2 {
            let outcome = apply(store, put(offset, part), 1).await?;
            let holds = matches!(outcome, Outcome::Blob { stored, complete: false } if stored == expected);
            ensure(holds, "parts add up, and again are nothing new")?;
        }
    }
    ensure(store.blob_digest(hash).await? == Some(hash), "the digest is that of the parts")?;
    for genuine in [true, true, false] {
        let outcome = apply(store, Mutation::BlobFinish { hash, genuine }, 1).await?;
        let holds = matches!(outcome, Outcome::Blob { complete: true, stored: 100_000 });
        ensure(holds, "a genuine blob is complete, and stays it")?;
    }
    let outcome = apply(store, put(0, &blob[..40_000]), 1).await?;
    let holds = matches!(outcome, Outcome::Blob { complete: true, stored: 100_000 });
    ensure(holds, "a part that comes again finds it complete")?;
    for offset in [0u64, 39_999, 40_000, 95_000, 99_999, 100_000, u64::MAX] {
        let part = store.blob_part(hash, offset).await?.ok_or(Violation("the blob is there".into()))?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(blob.len());
        let rest = blob.get(start..).unwrap_or_default();
        ensure(rest.starts_with(&part.bytes), "a part is where it belongs")?;
        ensure(part.bytes.is_empty() == rest.is_empty(), "a part is empty at the end only")?;
    }
    let lie = BlobHash::from_bytes([9; 32]);
    let put = Mutation::BlobPut {
        hash: lie,
        total: 3,
        offset: 0,
        bytes: vec![1, 2, 3],
        charge: Charge::Open,
        limit: u64::MAX,
    };
    apply(store, put, 1).await?;
    let outcome = apply(store, Mutation::BlobFinish { hash: lie, genuine: false }, 1).await?;
    ensure(matches!(outcome, Outcome::Refused(Refusal::Conflict)), "a lie is refused")?;
    let outcome = apply(store, Mutation::BlobFinish { hash: lie, genuine: false }, 1).await?;
    ensure(matches!(outcome, Outcome::Refused(Refusal::Conflict)), "also again")?;
    ensure(store.blob_digest(lie).await?.is_none(), "a lie is dropped")?;
    quota(store).await
}

/// What the blobs of a ticket may have is bounded within its quota, and given back with each.
async fn quota(store: &dyn MailboxStore) -> Result<(), Violation> {
    let key = PublicKey::from_bytes([0xb1; 32]);
    done(store, Mutation::IssueTicket(Ticket::new(key, 1_000_000, 1, None)), "issued").await?;
    let put = |byte: u8, total: u64, limit| {
        let (hash, bytes) = (BlobHash::from_bytes([byte; 32]), vec![byte; 1000]);
        Mutation::BlobPut { hash, total, offset: 0, bytes, charge: Charge::Ticket(key), limit }
    };
    let is_begun = async |mutation| match apply(store, mutation, 1).await? {
        Outcome::Blob { stored: 1000, complete: false } => Ok(true),
        Outcome::Refused(Refusal::NoAccess) => Ok(false),
        other => Err(Violation(format!("a part is added or refused, not {other:?}"))),
    };
    let used = async || {
        let ticket = store.ticket(key).await?.ok_or(Violation("the ticket is there".into()))?;
        Ok::<_, Violation>((ticket.used_bytes, ticket.used_blob_bytes))
    };
    ensure(is_begun(put(0xc1, 200_000, 300_000)).await?, "a blob within its ticket's share is begun")?;
    ensure(!is_begun(put(0xc2, 100_001, 300_000)).await?, "one beyond it is refused")?;
    ensure(is_begun(put(0xc1, 200_000, 0)).await?, "what was begun goes on")?;
    ensure(is_begun(put(0xc3, 1000, 200_000)).await?, "a small one is begun beyond it")?;
    ensure(!is_begun(put(0xc4, 20_905, 200_000)).await?, "by an eighth; the least charge counts too")?;
    ensure(used().await? == (204_096, 204_096), "both are counted whole")?;
    let owner = Owner::new(0x72);
    done(store, owner.create(MailboxKind::Queue, Charge::Ticket(key)), "a mailbox beside them").await?;
    place(store, owner.append(envelope(1, 1024))).await?;
    ensure(used().await? == (205_120, 204_096), "an envelope is no blob")?;
    let finish = Mutation::BlobFinish { hash: BlobHash::from_bytes([0xc3; 32]), genuine: false };
    apply(store, finish, 1).await?;
    sweep(store, 9).await?;
    ensure(used().await? == (0, 0), "what goes gives back what it took")?;
    ensure(is_begun(put(0xc2, 300_000, 300_000)).await?, "which others may use")?;
    sweep(store, 9).await
}
