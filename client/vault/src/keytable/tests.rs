use proptest::prelude::*;

use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

use super::{
    unit::{ENTRY_LEN, NAME_LEN, PLAIN_LEN},
    *,
};
use crate::{
    backend::MemoryBackend, generation::GENERATION_LEN, geometry::ContainerSize, payload::VolumeKey,
};

#[test]
fn vlt_45_units_of_new_tables_start_anywhere_each() {
    let geometry = Geometry::new(ContainerSize::MIN);
    let mut rng = ChaCha20Rng::seed_from_u64(8);
    let backend = MemoryBackend::with_image(vec![0; 8 << 20]);
    let grant = Grant { region: RegionIndex::all()[1], key: VolumeKey(Secret::random(&mut rng)) };
    KeyTable::create(&backend, &geometry, &grant, &mut rng).unwrap();
    let fill = FillRng::seeded(&mut rng);
    let table = KeyTable::new(Arc::new(backend), geometry, &grant, fill);
    table.hold().complete().unwrap();
    let state = table.state();
    assert_eq!(state.known().count(), geometry.table_units());
    assert!(state.known().all(|unit| unit.newest_copy == 1));
    let starts: Vec<_> = state.known().map(|unit| unit.generation.to_bytes()).collect();
    assert!((0..GENERATION_LEN).all(|byte| starts.iter().any(|start| start[byte] != starts[0][byte])));
}

fn content(count: u8) -> UnitContent {
    (0..count).fold(UnitContent::default(), |content, i| {
        content.with(KeyName([i; 16]), &Secret::filled(|out: &mut [u8; 32]| out.fill(i)))
    })
}

#[test]
fn entries_are_found_whatever_their_order_and_a_name_twice_is_refused() {
    let mut bytes = content(0).encode(Generation::from_bytes([1; 8]));
    for (place, name) in [7, 3, 9, 1].into_iter().enumerate() {
        let at = GENERATION_LEN + place * ENTRY_LEN;
        bytes[at] = 1;
        bytes[at + 1..at + 1 + NAME_LEN].fill(name);
        bytes[at + 1 + NAME_LEN..at + ENTRY_LEN].fill(name + 1);
    }
    let (_, decoded) = UnitContent::decode(&bytes).unwrap();
    assert_eq!(decoded.len(), 4);
    for name in 0..12 {
        let key = decoded.key(KeyName([name; 16]));
        let expected = [7, 3, 9, 1].contains(&name).then_some([name + 1; 32]);
        assert_eq!(key.map(|key| *key.expose()), expected);
    }
    let again = GENERATION_LEN + 4 * ENTRY_LEN;
    bytes.copy_within(GENERATION_LEN..GENERATION_LEN + ENTRY_LEN, again);
    assert!(UnitContent::decode(&bytes).is_none());
}

#[test]
fn the_table_answers_like_a_map_through_every_change_and_after_opening_again() {
    let geometry = Geometry::new(ContainerSize::DEFAULT);
    let mut rng = ChaCha20Rng::seed_from_u64(9);
    let image = vec![0; usize::try_from(ContainerSize::DEFAULT.bytes()).unwrap()];
    let backend: Arc<dyn Backend> = Arc::new(MemoryBackend::with_image(image));
    let grant = Grant { region: RegionIndex::all()[2], key: VolumeKey(Secret::random(&mut rng)) };
    KeyTable::create(&*backend, &geometry, &grant, &mut rng).unwrap();
    let mut known: std::collections::BTreeMap<u8, [u8; 32]> = std::collections::BTreeMap::new();
    for round in 0..4_u8 {
        let fill = FillRng::seeded(&mut rng);
        let table = KeyTable::new(Arc::clone(&backend), geometry, &grant, fill);
        for name in (round * 30..round * 30 + 90).rev() {
            let key = *table.get_or_create(KeyName([name; 16])).unwrap().expose();
            assert_eq!(*known.entry(name).or_insert(key), key);
        }
        let gone: Vec<u8> = known.keys().copied().filter(|name| name % 7 == round).collect();
        table.destroy(&gone.iter().map(|name| KeyName([*name; 16])).collect::<Vec<_>>()).unwrap();
        known.retain(|name, _| !gone.contains(name));
        assert_eq!(table.len().unwrap(), known.len());
        for name in 0..=u8::MAX {
            let key = table.get(KeyName([name; 16])).unwrap().map(|key| *key.expose());
            assert_eq!(key, known.get(&name).copied());
        }
    }
}

proptest! {
    #[test]
    fn round_trip(count in 0u8..=82, generation: u64) {
        let generation = Generation::from_bytes(generation.to_le_bytes());
        let bytes = content(count).encode(generation);
        prop_assert_eq!(bytes.len(), PLAIN_LEN);
        let (back_generation, back) = UnitContent::decode(&bytes).unwrap();
        prop_assert_eq!(back_generation, generation);
        prop_assert_eq!(back.encode(generation), bytes);
    }

    #[test]
    fn mutated_unit_never_panics(at in 0usize..PLAIN_LEN, byte: u8) {
        let mut bytes = content(40).encode(Generation::from_bytes([1; 8])).to_vec();
        bytes[at] = byte;
        let _decoded = UnitContent::decode(&bytes);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..=PLAIN_LEN)) {
        let _decoded = UnitContent::decode(&bytes);
    }
}
