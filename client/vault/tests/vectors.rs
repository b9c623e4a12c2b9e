//! Frozen bytes of format 1. A change here is a change of the format: it needs a new version, and the old one
//! must stay readable.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod world;

use data_encoding::HEXLOWER;
use lapwing_vault::{testing, *};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use world::*;

const FROZEN: &str = include_str!("vectors/format-1.json");

fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

/// Everything a second implementation needs to find its first mistake.
fn vector() -> Value {
    let mut world = World { backend: MemoryBackend::new(), rng: ChaCha20Rng::seed_from_u64(1) };
    let mut session = world.create("lapwing nest");
    session.set_application(b"application", &mut world.rng).unwrap();
    drop(session);
    let image = world.backend.image();
    let derived = testing::derive(&image, &Passphrase::new("lapwing nest"), TINY).unwrap();
    let [slot, other_slot] = derived.slots;
    let stored_slot = 4096 + 4096 + usize::from(slot) * 4096;
    let region_len = (image.len() - 143_360) / 4 / 4096 * 4096;
    let units = 143_360 + usize::from(derived.region) * region_len;
    let stored_box = 4096 + usize::from(slot) * 72;
    json!({
        "passphrase": "lapwing nest",
        "argon2id": {"memory_kib": TINY.memory_kib, "passes": TINY.passes, "lanes": TINY.lanes},
        "image_sha256": hex(&Sha256::digest(&image)),
        "salt": hex(&image[..32]),
        "root": hex(&derived.root),
        "slots": [slot, other_slot],
        "opener": hex(&derived.opener),
        "slot_key": hex(&derived.slot_key),
        "copy_a": {
            "box": hex(&image[stored_box..stored_box + 72]),
            "outer_key": hex(&derived.outer_key),
            "generation": derived.generation,
            "mac": hex(&image[4096 + 1752..4096 + 1784]),
            "offline_and_nonce_and_64_bytes_of_slot": hex(&image[stored_slot..stored_slot + 600]),
            "slot_sha256": hex(&Sha256::digest(&image[stored_slot..stored_slot + 4096])),
        },
        "payload_cbor": hex(&derived.payload),
        "volume": {
            "region": derived.region,
            "key": hex(&derived.volume_key),
            "id": hex(derived.volume.as_bytes()),
            "allocation_units_first_64_bytes":
                [hex(&image[units..units + 64]), hex(&image[units + 8192..units + 8256])],
            "allocation_key": hex(&derived.allocation_key),
            "key_table_key": hex(&derived.key_table_key),
            "superblock_key": hex(&derived.superblock_key),
            "unit_key": hex(&derived.unit_key),
        },
        "header_keys": {
            "mac": hex(&derived.mac_key),
            "ring": hex(&derived.ring_key),
            "generation": hex(&derived.generation_key),
        },
    })
}

#[test]
fn format_1_is_frozen() {
    let frozen: Value = serde_json::from_str(FROZEN).unwrap();
    let now = vector();
    assert_eq!(now, frozen, "{}", serde_json::to_string_pretty(&now).unwrap());
}
