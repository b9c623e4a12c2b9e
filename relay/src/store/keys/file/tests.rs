//! Files of keys with torn, rotten and unreadable parts.

use super::*;

fn chain(byte: u8) -> Chain {
    let mut page = [byte; KEY];
    page[KEY / 2] = !byte;
    Chain::at_number(0, &[byte; KEY], &page)
}

fn read(file: &KeyFile, place: Place) -> Unit {
    file.both(place).whole().unwrap()
}

/// As programs did before copies had their count twice: into the older copy only.
fn add_as_before(file: &KeyFile, slot: Slot, chain: &Chain) {
    let (number, place) = place(slot);
    let mut unit = read(file, number);
    put(&mut unit.bytes[place..place + SLOT], chain);
    unit.bytes[AGAIN..AGAIN + COUNT].fill(0);
    unit.count += 1;
    unit.copy = 1 - unit.copy;
    unit.seal().unwrap();
    file.of(number).write_all_at(&unit.bytes, start(number.unit, unit.copy)).unwrap();
}

/// Files of which parts can be made unreadable, and how often each of these was tried.
struct Failing {
    _dir: tempfile::TempDir,
    folder: std::path::PathBuf,
}

impl Failing {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("store");
        std::fs::create_dir(&folder).unwrap();
        Self { _dir: dir, folder }
    }

    fn open(&self) -> KeyFile {
        KeyFile::open(&self.folder).unwrap().remembering(Duration::ZERO)
    }

    fn page(&self, page: u64) -> std::path::PathBuf {
        self.folder.with_extension("unreadable").join(format!("{NAME}.{page}"))
    }

    fn spoil(&self, page: u64) {
        std::fs::create_dir_all(self.page(page)).unwrap();
    }

    fn mend(&self, page: u64) {
        std::fs::remove_dir_all(self.page(page)).unwrap();
    }

    fn tries(&self, page: u64) -> usize {
        std::fs::read_dir(self.page(page)).unwrap().count()
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(self.folder.join(NAME)).unwrap()
    }

    fn holds(&self, byte: u8) -> bool {
        self.bytes().windows(KEY).any(|window| window == [byte; KEY])
    }
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

/// In every other test, too: whoever writes a copy looks whether the other one is on the disk.
#[test]
fn the_second_copy_is_written_when_the_first_is_on_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let file = KeyFile::open(dir.path()).unwrap();
    let slots = [Slot(0), Slot(60), Slot::of_anchor(3).unwrap()];
    file.add(&slots.into_iter().map(|slot| (slot, chain(1))).collect()).unwrap();
    file.forget(&slots.into_iter().map(|slot| (slot, 2)).collect()).unwrap();
    assert!(file.unflushed.lock().unwrap().is_empty(), "so is the second when it returns");
    assert_eq!(std::fs::metadata(dir.path().join(NAME)).unwrap().len(), 4 * UNIT as u64);
}

#[test]
fn a_torn_copy_leaves_the_other_and_two_torn_ones_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = KeyFile::open(dir.path()).unwrap();
    file.add(&BTreeMap::from([(Slot(0), chain(1))])).unwrap();
    file.add(&BTreeMap::from([(Slot(1), chain(2))])).unwrap();
    let whole = std::fs::read(dir.path().join(NAME)).unwrap();
    for copy in 0..2 {
        file.file.write_all_at(&[0x55; 512], start(0, copy) + 512).unwrap();
        assert_eq!(file.load(Slot(0)), Ok(Some(chain(1))));
        assert_eq!(file.load(Slot(1)), Ok(Some(chain(2))), "each copy has all that is durable");
        file.file.write_all_at(&whole, 0).unwrap();
    }
    // A power cut while a third one is added tears the first copy that is written.
    let mut unit = read(&file, place(Slot(2)).0);
    put(&mut unit.bytes[COUNT + 2 * SLOT..COUNT + 3 * SLOT], &chain(3));
    file.write(&mut BTreeMap::from([(place(Slot(2)).0, unit)])).unwrap();
    file.file.write_all_at(&[0x55; 512], start(0, 0) + 512).unwrap();
    assert_eq!(file.load(Slot(1)), Ok(Some(chain(2))));
    assert_eq!(file.load(Slot(2)), Ok(None), "the state before the torn write");
    file.add(&BTreeMap::from([(Slot(2), chain(4))])).unwrap();
    for copy in 0..2 {
        let bytes = &std::fs::read(dir.path().join(NAME)).unwrap()[copy * UNIT..][..UNIT];
        assert_eq!(chain_in(&bytes[COUNT + 2 * SLOT..COUNT + 3 * SLOT]), Ok(Some(chain(4))));
    }
    for copy in 0..2 {
        file.file.write_all_at(&[0x55; 512], start(0, copy) + 512).unwrap();
    }
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
    let [is_whole, mut unit] = [false, true].map(|_| read(&file, place(Slot(7)).0));
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
    let disk = Failing::new();
    let file = disk.open();
    file.add(&BTreeMap::from([(Slot(0), chain(1)), (Slot(60), chain(61))])).unwrap();
    for (page, slot, byte) in [(0, 0, 1), (1, 1, 2), (0, 1, 2), (1, 0, 1)] {
        // Who came last has no other copy than the others have.
        file.add(&BTreeMap::from([(Slot(0), chain(1))])).unwrap();
        file.add(&BTreeMap::from([(Slot(1), chain(2))])).unwrap();
        disk.spoil(page);
        assert_eq!(file.load(Slot(0)), Ok(Some(chain(1))), "{page}");
        assert_eq!(file.load(Slot(1)), Ok(Some(chain(2))), "{page}");
        assert_eq!(file.load(Slot(2)), Ok(None), "{page}");
        assert_eq!(file.load(Slot(60)), Ok(Some(chain(61))));
        assert!(!file.takes(Slot(5)), "what is new is not put at risk");
        assert_eq!(file.add(&BTreeMap::from([(Slot(5), chain(6))])), Err(StoreError::Damaged));
        assert_eq!(KeyFile::inspect(&disk.folder), [Err(StoreError::Disk), Ok(())], "the doctor tells");
        // Though what it wrote cannot be read either.
        let due = BTreeMap::from([(Slot(slot), u64::MAX)]);
        assert_eq!(file.forget(&due), Ok(BTreeSet::new()));
        disk.mend(page);
        assert!(!disk.holds(byte), "{page}");
        let other = 1 - slot;
        assert_eq!(file.load(Slot(other)), Ok(Some(chain(u8::try_from(other).unwrap() + 1))));
        assert_eq!(KeyFile::inspect(&disk.folder), [Ok(()), Ok(())]);
    }
    for page in 0..2 {
        disk.spoil(page);
    }
    assert_eq!(file.load(Slot(0)), Err(StoreError::Damaged));
    let due = BTreeMap::from([(Slot(0), u64::MAX), (Slot(60), u64::MAX)]);
    assert_eq!(file.forget(&due), Ok(BTreeSet::from([Slot(0)])), "it may still be there");
    assert_eq!(file.load(Slot(60)), Ok(None));
    assert_eq!(file.told.lock().unwrap().len(), 3, "each is told once");
}

/// Programs of before wrote who was added into one copy. Where that is the one that cannot be read, nobody takes the other one for
/// all there is.
#[test]
fn where_a_program_of_before_wrote_the_copy_that_cannot_be_read_nobodys_keys_are_overwritten() {
    let disk = Failing::new();
    let file = disk.open();
    // All before the last one lie in both.
    for n in 0..4 {
        add_as_before(&file, Slot(n), &chain(u8::try_from(n).unwrap() + 1));
    }
    let before = disk.bytes();
    disk.spoil(1);
    assert_eq!(file.load(Slot(0)), Ok(Some(chain(1))));
    assert_eq!(file.load(Slot(3)), Err(StoreError::Damaged), "not: it has none");
    let due = BTreeMap::from([(Slot(0), u64::MAX), (Slot(1), 3)]);
    for _ in 0..2 {
        assert_eq!(file.forget(&due), Ok(BTreeSet::from([Slot(0), Slot(1)])), "they are due still");
        assert_eq!(disk.bytes()[UNIT..], before[UNIT..], "what cannot be read stays");
        assert_eq!(file.load(Slot(0)), Err(StoreError::Damaged), "in the other it is gone");
    }
    let mut later = chain(2);
    assert!(later.advance(3));
    assert_eq!(file.load(Slot(1)), Ok(Some(later.clone())));
    assert_eq!(file.load(Slot(2)), Ok(Some(chain(3))));
    assert!(!disk.bytes()[..UNIT].windows(KEY).any(|window| window == [1; KEY]));
    // The next start may read it again.
    disk.mend(1);
    assert_eq!(file.load(Slot(3)), Ok(Some(chain(4))));
    assert_eq!(file.forget(&due), Ok(BTreeSet::new()));
    assert!(!disk.holds(1) && !disk.holds(2));
    // From now on its copies are alike.
    for page in 0..2 {
        disk.spoil(page);
        assert_eq!(file.load(Slot(0)), Ok(None));
        assert_eq!(file.load(Slot(1)), Ok(Some(later.clone())));
        assert_eq!(file.load(Slot(3)), Ok(Some(chain(4))));
        disk.mend(page);
    }
}

#[test]
fn adding_makes_the_copies_alike_that_a_program_of_before_left() {
    let disk = Failing::new();
    let file = disk.open();
    add_as_before(&file, Slot(0), &chain(1));
    add_as_before(&file, Slot(1), &chain(2));
    add_as_before(&file, Slot(2), &chain(3));
    file.add(&BTreeMap::from([(Slot(3), chain(4))])).unwrap();
    for page in 0..2 {
        disk.spoil(page);
        for n in 0..4 {
            assert_eq!(file.load(Slot(n)), Ok(Some(chain(u8::try_from(n).unwrap() + 1))), "{n} {page}");
        }
        disk.mend(page);
    }
}

/// A disk may take tens of seconds for each.
#[test]
fn what_cannot_be_read_is_not_read_again_for_a_time() {
    let disk = Failing::new();
    let file = disk.open();
    let slots: Vec<Slot> = (0..56).map(Slot).collect();
    file.add(&slots.iter().map(|slot| (*slot, chain(1))).collect()).unwrap();
    let file = file.remembering(REMEMBERED);
    disk.spoil(0);
    let ask = || {
        for slot in &slots {
            assert_eq!(file.load(*slot), Ok(Some(chain(1))));
            assert!(!file.takes(*slot));
        }
    };
    ask();
    assert_eq!(disk.tries(0), 2, "with the other one, and by itself");
    disk.spoil(1);
    for slot in &slots {
        assert_eq!(file.load(*slot), Err(StoreError::Damaged));
        assert!(!file.takes(*slot));
        let due = BTreeMap::from([(*slot, u64::MAX)]);
        assert_eq!(file.forget(&due), Ok(BTreeSet::from([*slot])));
    }
    assert_eq!([0, 1].map(|page| disk.tries(page)), [2, 1]);
    let file = file.remembering(Duration::ZERO);
    assert_eq!(file.load(Slot(0)), Err(StoreError::Damaged));
    assert!(disk.tries(0) > 2 && disk.tries(1) > 1, "when the time is over it is");
    for page in 0..2 {
        disk.mend(page);
    }
    assert_eq!(file.load(Slot(0)), Ok(Some(chain(1))));
}
