//! Fixtures of this crate's unit tests: the same seeds give the same bytes.

use lapwing_wire::{
    address::{RelayAddress, RelayKey},
    capability::SecretKey,
    ids::MailboxId,
    time::Timestamp,
};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use std::time::{Duration, SystemTime};

use crate::{
    envelope::EnvelopeKey,
    group::{EpochKeys, MemberEntry, Role},
    route::Route,
    session::{Bundle, BundleUse, LocalIdentity},
};

pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

pub(crate) fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

pub(crate) fn relay() -> RelayAddress {
    RelayAddress::new(RelayKey::of_spki(b"the relay of these tests"), "example.org", 443).unwrap()
}

pub(crate) fn route(byte: u8) -> Route {
    Route {
        relay: relay(),
        mailbox: MailboxId::from_bytes([byte; 32]),
        write: SecretKey::from_seed([byte.wrapping_add(1); 32]),
        key: EnvelopeKey::from_bytes([byte.wrapping_add(2); 32]),
    }
}

pub(crate) fn epoch_keys(epoch: u64, seed: u64) -> EpochKeys {
    let mut rng = rng(seed);
    EpochKeys {
        epoch,
        relay: relay(),
        mailbox: MailboxId::of_admin(&SecretKey::generate(&mut rng).public()),
        read: SecretKey::generate(&mut rng),
        write: SecretKey::generate(&mut rng),
        key: EnvelopeKey::generate(&mut rng),
    }
}

pub(crate) fn person(seed: u64, name: &str) -> (LocalIdentity, MemberEntry) {
    let mut rng = rng(1_000 + seed);
    let mut local = LocalIdentity::generate(&mut rng).unwrap();
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(NOW.as_millis());
    let bundle = local.new_bundle(BundleUse::Many, now, &mut rng).unwrap();
    let entry = MemberEntry {
        identity: *local.public(),
        bundle: bundle.encode().unwrap(),
        name: name.to_owned(),
        role: Role::Member,
    };
    (local, entry)
}

pub(crate) fn one_time_bundle(local: &mut LocalIdentity, rng: &mut ChaCha20Rng) -> Bundle {
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(NOW.as_millis());
    local.new_bundle(BundleUse::Once, now, rng).unwrap()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
