//! Files of keys with torn, rotten and unreadable parts.

use super::*;

fn chain(byte: u8) -> Chain {
    let mut page = [byte; KEY];
    page[KEY / 2] = !byte;
    Chain::at_number(0, &[byte; KEY], &page)
}

#[test]
fn forgotten_keys_are_in_no_byte_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = KeyFile::open(dir.path()).unwrap();
    let new: BTreeMap<_, _> = (0..200u8).map(|n| (Slot(n.into()), chain(n + 1))).collect();
    file.add(&new).unwrap();
    file.add(&BTreeMap::from([(Slot(5), chain(250))])).unwrap();
    let mut later = chain(8);
    assert!(later.advance(3));
    let due = BTreeMap::from([(Slot(5), u64::MAX), (Slot(6), u64::MAX), (Slot(7), 3)]);
    assert_eq!(file.forget(&due), Ok(BTreeSet::new()));
    let bytes = std::fs::read(dir.path().join(NAME)).unwrap();
    let has = |key: &[u8]| bytes.windows(KEY).any(|window| window == key);
    for gone in [6, 250, 7, 8] {
        assert!(!has(&[gone; KEY]), "{gone}");
    }
    assert!(has(&[9; KEY]) && has(&later.keys.chain));
    let file = KeyFile::open(dir.path()).unwrap();
    assert_eq!(file.load(Slot(5)), Ok(None));
    assert_eq!(file.load(Slot(7)), Ok(Some(later)));
    assert_eq!(file.load(Slot(199)), Ok(Some(chain(200))));
    assert_eq!(file.load(Slot(9999)), Ok(None));
}

#[test]
fn a_torn_copy_leaves_the_other_and_two_torn_ones_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = KeyFile::open(dir.path()).unwrap();
    file.add(&BTreeMap::from([(Slot(0), chain(1))])).unwrap();
    file.add(&BTreeMap::from([(Slot(1), chain(2))])).unwrap();
    // The second copy is the newer one.
    file.file.write_all_at(&[0x55; 512], start(0, 1) + 512).unwrap();
    assert_eq!(file.load(Slot(0)), Ok(Some(chain(1))));
    assert_eq!(file.load(Slot(1)), Ok(None), "the state before the torn write");
    file.file.write_all_at(&[0x55; 512], start(0, 0) + 512).unwrap();
    assert_eq!(file.load(Slot(0)), Err(StoreError::Damaged));
}

/// A process was killed between the two flushes of a forgetting: the older copy still has what the newer has not.
#[test]
fn a_forgetting_that_was_cut_between_its_two_copies_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    let file = KeyFile::open(dir.path()).unwrap();
    file.add(&BTreeMap::from([(Slot(7), chain(8)), (Slot(8), chain(9))])).unwrap();
    file.add(&BTreeMap::from([(Slot(9), chain(10))])).unwrap();
    let mut later = chain(8);
    assert!(later.advance(3));
    let [is_whole, mut unit] = [false, true].map(|_| file.read(place(Slot(7)).0).unwrap());
    put(&mut unit.bytes[COUNT + 7 * SLOT..COUNT + 8 * SLOT], &later);
    unit.bytes[COUNT + 8 * SLOT..COUNT + 9 * SLOT].fill(0);
    file.write(&mut BTreeMap::from([(place(Slot(7)).0, unit)])).unwrap();
    let held = |key: u8| {
        let bytes = std::fs::read(dir.path().join(NAME)).unwrap();
        bytes.windows(KEY).any(|window| window == [key; KEY])
    };
    assert!(is_whole.count > 0 && held(8) && held(9));
    assert_eq!(file.held(&BTreeSet::from([Slot(8)])), BTreeSet::from([Slot(8)]), "in the older copy");
    file.forget(&BTreeMap::from([(Slot(7), 3)])).unwrap();
    assert!(!held(8) && !held(9));
    assert_eq!(file.load(Slot(7)), Ok(Some(later)));
    assert_eq!(file.load(Slot(9)), Ok(Some(chain(10))));
}

/// What was forgotten does not lie in it, and what was not is what it was.
#[test]
fn in_a_part_without_a_whole_copy_only_what_is_due_changes() {
    let dir = tempfile::tempdir().unwrap();
    let file = KeyFile::open(dir.path()).unwrap();
    let new: BTreeMap<_, _> = (0..100u8).map(|n| (Slot(n.into()), chain(n + 1))).collect();
    file.add(&new).unwrap();
    file.forget(&BTreeMap::from([(Slot(50), u64::MAX), (Slot(90), u64::MAX)])).unwrap();
    // A number that has become greater than any, and a key.
    for copy in 0..2 {
        let at = |slot: u64, byte: u64| start(0, copy) + COUNT as u64 + slot * SLOT as u64 + byte;
        file.file.write_all_at(&[1], at(11, 7)).unwrap();
        file.file.write_all_at(&[0], at(12, 8)).unwrap();
    }
    let before = std::fs::read(dir.path().join(NAME)).unwrap();
    assert_eq!(file.load(Slot(0)), Err(StoreError::Damaged));
    assert!(!file.takes(Slot(50)) && file.takes(Slot(90)));
    assert_eq!(
        file.add(&BTreeMap::from([(Slot(50), chain(200)), (Slot(90), chain(200))])),
        Err(StoreError::Damaged)
    );
    assert_eq!(std::fs::read(dir.path().join(NAME)).unwrap(), before, "nothing is written");
    let due = [(9, u64::MAX), (10, 3), (11, 3), (12, 3), (50, 3), (60, u64::MAX)];
    let due = BTreeMap::from(due.map(|(slot, before)| (Slot(slot), before)));
    for _ in 0..2 {
        // Again, as after a kill.
        assert_eq!(file.forget(&due), Ok(BTreeSet::new()));
        let after = std::fs::read(dir.path().join(NAME)).unwrap();
        let mut moved = chain(11);
        assert!(moved.advance(3));
        for copy in 0..2 {
            let unit = |bytes: &[u8]| bytes[copy * UNIT..][..UNIT].to_vec();
            let (before, after) = (unit(&before), unit(&after));
            for slot in 0..56 {
                let of = |unit: &[u8]| unit[COUNT + slot * SLOT..][..SLOT].to_vec();
                match slot {
                    9 | 11 => assert_eq!(of(&after), [0; SLOT], "{slot}"),
                    10 => assert!(chain_in(&of(&after)).unwrap() == Some(moved.clone())),
                    12 => assert!(
                        of(&after)[8..40] != of(&before)[8..40]
                            && of(&after)[..8] == [3, 0, 0, 0, 0, 0, 0, 0]
                    ),
                    _ => assert_eq!(of(&after), of(&before), "{slot}"),
                }
            }
            assert_eq!(after[SUM..], before[SUM..], "it stays what it is");
        }
    }
    assert_eq!(file.load(Slot(60)), Ok(None));
    assert_eq!(file.load(Slot(61)), Ok(Some(chain(62))));
    assert_eq!(KeyFile::inspect(dir.path()), [Err(StoreError::Damaged), Ok(())]);
}

#[test]
fn a_copy_that_cannot_be_read_is_as_good_as_torn() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("store");
    std::fs::create_dir(&folder).unwrap();
    let file = KeyFile::open(&folder).unwrap();
    let bad = |page: u64| folder.with_extension("unreadable").join(format!("{NAME}.{page}"));
    file.add(&BTreeMap::from([(Slot(0), chain(1)), (Slot(60), chain(61))])).unwrap();
    std::fs::create_dir_all(bad(0)).unwrap();
    assert_eq!(file.load(Slot(0)), Err(StoreError::Damaged), "its only copy, which may have been whole");
    assert_eq!(file.load(Slot(60)), Ok(Some(chain(61))));
    std::fs::remove_dir(bad(0)).unwrap();
    file.add(&BTreeMap::from([(Slot(1), chain(2))])).unwrap();
    for (page, slot, byte) in [(0, 0, 1), (1, 1, 2)] {
        std::fs::create_dir_all(bad(page)).unwrap();
        assert_eq!(file.load(Slot(0)), Ok(Some(chain(1))), "{page}");
        assert!(!file.takes(Slot(5)), "what is new is not put at risk");
        assert_eq!(file.add(&BTreeMap::from([(Slot(5), chain(6))])), Err(StoreError::Damaged));
        assert_eq!(KeyFile::inspect(&folder), [Err(StoreError::Disk), Ok(())], "the doctor tells");
        // Though what it wrote cannot be read either.
        let due = BTreeMap::from([(Slot(slot), u64::MAX)]);
        assert_eq!(file.forget(&due), Ok(BTreeSet::new()));
        std::fs::remove_dir(bad(page)).unwrap();
        let bytes = std::fs::read(folder.join(NAME)).unwrap();
        assert!(!bytes.windows(KEY).any(|window| window == [byte; KEY]), "{page}");
        file.add(&BTreeMap::from([(Slot(0), chain(1)), (Slot(1), chain(2))])).unwrap();
        file.forget(&BTreeMap::from([(Slot(2), u64::MAX)])).unwrap();
    }
    for page in 0..2 {
        std::fs::create_dir_all(bad(page)).unwrap();
    }
    assert_eq!(file.load(Slot(0)), Err(StoreError::Damaged));
    let due = BTreeMap::from([(Slot(0), u64::MAX), (Slot(60), u64::MAX)]);
    assert_eq!(file.forget(&due), Ok(BTreeSet::from([Slot(0)])), "it may still be there");
    assert_eq!(file.load(Slot(60)), Ok(None));
    assert_eq!(file.told.lock().unwrap().len(), 3, "each is told once");
}
