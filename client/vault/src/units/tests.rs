//! What the walk of this package finds, against what the database itself reads; what a scrub leaves; how often the
//! disk is touched.

use proptest::prelude::*;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use redb::{Database, StorageBackend, TableDefinition};

use super::*;
use crate::{
    backend::MemoryBackend,
    btree::Source,
    geometry::{ContainerSize, RegionIndex},
    memory::Secret,
    payload::VolumeKey,
};

const TEXTS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("texts");
const NUMBERS: TableDefinition<'static, u64, u64> = TableDefinition::new("numbers");
const MIXED: TableDefinition<'static, u64, &str> = TableDefinition::new("mixed");

/// The storage, and which units the database read through it.
#[derive(Debug, Clone)]
struct Watched {
    inner: SharedUnits,
    read: Arc<Mutex<PageSet>>,
}

impl StorageBackend for Watched {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        for page in offset / PAGE..(offset + out.len() as u64).div_ceil(PAGE) {
            if page > 0 {
                self.read.lock().unwrap().insert(page - 1);
            }
        }
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write(offset, data)
    }
}

struct Region {
    backend: Arc<dyn Backend>,
    geometry: Geometry,
    grant: Grant,
    rng: ChaCha20Rng,
}

impl Region {
    fn new(seed: u64) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let geometry = Geometry::new(ContainerSize::MIN);
        let backend: Arc<dyn Backend> = Arc::new(MemoryBackend::with_image(vec![0; 8 << 20]));
        let grant = Grant { region: RegionIndex::all()[2], key: VolumeKey(Secret::random(&mut rng)) };
        Units::create(&backend, geometry, &grant, &mut rng, &mut |_| {}).unwrap();
        let region = Self { backend, geometry, grant, rng };
        let mut made = region;
        let traces = Some(Traces::none(&made.geometry));
        let (database, units) = made.open_with(traces);
        close(database, &units);
        made
    }

    fn open_with(&mut self, traces: Option<Traces>) -> (Database, Arc<Units>) {
        let rng = FillRng::seeded(&mut self.rng);
        let grant = self.grant.duplicate();
        let units = Units::open(Arc::clone(&self.backend), self.geometry, grant, rng, traces, &mut || Ok(()));
        let units = Arc::new(units.unwrap().unwrap());
        let database = Database::builder().create_with_backend(SharedUnits(Arc::clone(&units))).unwrap();
        (database, units)
    }

    fn open(&mut self) -> (Database, Arc<Units>) {
        self.open_with(None)
    }

    /// Units that the database reads when it checks all of itself, and its units now.
    fn read_by_database(&mut self) -> (PageSet, PageSet, PageSet) {
        let rng = FillRng::seeded(&mut self.rng);
        let units = Units::open(
            Arc::clone(&self.backend),
            self.geometry,
            self.grant.duplicate(),
            rng,
            None,
            &mut || Ok(()),
        );
        let units = Arc::new(units.unwrap().unwrap());
        let walked = |leaves| {
            let state = units.state();
            units.walk(&state, &state.opened, leaves).unwrap()
        };
        let (even, any) = (walked(Leaves::Skip), walked(Leaves::Read));
        let read = Arc::new(Mutex::new(PageSet::empty(self.geometry.unit_count())));
        let watched = Watched { inner: SharedUnits(Arc::clone(&units)), read: Arc::clone(&read) };
        let mut database = Database::builder().create_with_backend(watched).unwrap();
        assert!(database.check_integrity().unwrap());
        let read = read.lock().unwrap().clone();
        units.begin_close();
        database.close().unwrap();
        (read, even, any)
    }

    /// Units that do not hold zeros.
    fn filled(&self) -> PageSet {
        let disk = SealedUnits::new(Arc::clone(&self.backend), self.geometry, self.grant.duplicate());
        let mut filled = PageSet::empty(self.geometry.unit_count());
        for unit in 0..self.geometry.unit_count() {
            let mut page = [0; PAGE_LEN];
            disk.read(unit, &mut page).unwrap();
            filled.set(unit, page.iter().any(|byte| *byte != 0));
        }
        filled
    }
}

fn close(database: Database, units: &Units) {
    units.begin_close();
    database.close().unwrap();
    assert!(!units.has_failed());
    units.finish_close().unwrap();
}

/// One change, drawn by the property test.
#[derive(Debug, Clone)]
enum Change {
    Text { key: u8, len: usize },
    RemoveText { key: u8 },
    Number { key: u16 },
    Numbers { from: u16 },
    Mixed { key: u8, len: usize },
    RemoveMixed { below: u8 },
    DropTexts,
    Commit,
    Abort,
    Reopen,
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => (any::<u8>(), 0usize..1500).prop_map(|(key, len)| Change::Text { key, len }),
        1 => (any::<u8>(), 3000usize..30_000).prop_map(|(key, len)| Change::Text { key, len }),
        3 => any::<u8>().prop_map(|key| Change::RemoveText { key }),
        2 => any::<u16>().prop_map(|key| Change::Number { key }),
        1 => any::<u16>().prop_map(|from| Change::Numbers { from }),
        3 => (any::<u8>(), 0usize..900).prop_map(|(key, len)| Change::Mixed { key, len }),
        1 => any::<u8>().prop_map(|below| Change::RemoveMixed { below }),
        1 => Just(Change::DropTexts),
        4 => Just(Change::Commit),
        1 => Just(Change::Abort),
        1 => Just(Change::Reopen),
    ]
}

fn apply(change: &Change, write: &redb::WriteTransaction) {
    let mut texts = write.open_table(TEXTS).unwrap();
    let mut numbers = write.open_table(NUMBERS).unwrap();
    let mut mixed = write.open_table(MIXED).unwrap();
    match change {
        Change::Text { key, len } => {
            let key = [*key; 24];
            texts.insert(&key[..], vec![7; *len].as_slice()).unwrap();
        }
        Change::RemoveText { key } => {
            texts.remove(&[*key; 24][..]).unwrap();
        }
        Change::Number { key } => {
            numbers.insert(u64::from(*key), 9).unwrap();
        }
        Change::Numbers { from } => {
            for key in 0..300 {
                numbers.insert(u64::from(*from) + key, key).unwrap();
            }
        }
        Change::Mixed { key, len } => {
            mixed.insert(u64::from(*key), "x".repeat(*len).as_str()).unwrap();
        }
        Change::RemoveMixed { below } => {
            mixed.retain(|key, _| key >= u64::from(*below)).unwrap();
        }
        Change::DropTexts => {
            drop(texts);
            write.delete_table(TEXTS).unwrap();
        }
        Change::Commit | Change::Abort | Change::Reopen => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn vlt_57_walk_finds_what_the_database_reads_and_a_scrub_leaves_nothing_else(
        changes in prop::collection::vec(change(), 1..160),
        seed: u64,
    ) {
        let mut region = Region::new(seed);
        let (mut database, mut units) = region.open();
        let begin = |database: &Database| {
            let mut write = database.begin_write().unwrap();
            write.set_two_phase_commit(true);
            write
        };
        let mut write = begin(&database);
        for change in &changes {
            apply(change, &write);
            match change {
                Change::Commit => write.commit().unwrap(),
                Change::Abort => write.abort().unwrap(),
                Change::Reopen => {
                    write.commit().unwrap();
                    close(database, &units);
                    (database, units) = region.open();
                }
                _ => continue,
            }
            write = begin(&database);
        }
        write.commit().unwrap();
        close(database, &units);
        let mut filled = region.filled();
        let (read, even, any) = region.read_by_database();
        prop_assert_eq!(&even, &any);
        // The end of a page of several units may hold zeros.
        filled.remove(&even);
        prop_assert_eq!(filled.count(), 0, "left: {:?}", filled);
        let mut missed = read;
        missed.remove(&even);
        prop_assert_eq!(missed.count(), 0, "the walk missed {:?}", missed);
    }

    #[test]
    fn arbitrary_pages_never_panic_the_walk(
        page0 in prop::collection::vec(any::<u8>(), PAGE_LEN),
        pages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 1..5),
    ) {
        struct Few(Vec<Vec<u8>>);
        impl Source for Few {
            fn read(&mut self, page: PageRef) -> io::Result<Wiped> {
                let at = usize::try_from(page.first).unwrap() % self.0.len();
                let mut bytes = self.0[at].clone();
                bytes.resize(PAGE_LEN, 0);
                bytes[0] %= 4;
                bytes[3] = 0;
                Ok(bytes.as_slice().into())
            }
        }
        impl Unsettled for Few {
            fn is_new(&self, page: PageRef) -> bool {
                page.first.is_multiple_of(2)
            }
            fn edit(
                &mut self,
                page: PageRef,
                edit: &mut dyn FnMut(&mut [u8]) -> Result<bool, Malformed>,
            ) -> io::Result<()> {
                edit(&mut Source::read(self, page)?)?;
                Ok(())
            }
        }
        let mut page0: Box<[u8; PAGE_LEN]> = page0.try_into().unwrap();
        page0[..9].copy_from_slice(b"redb\x1a\x0a\xa9\x0d\x0a");
        page0[64] = 3;
        for number in [72, 104] {
            // A page of the first redb region, of a small order.
            page0[number + 2] &= 0x0f;
            page0[number + 3..number + 7].fill(0);
            page0[number + 7] &= 0x10;
        }
        page0[9] &= 0xfe;
        if let Ok(roots) = HeaderPage(&page0).primary() {
            for leaves in [Leaves::Skip, Leaves::Read] {
                let mut live = PageSet::empty(1 << 20);
                let _walked = btree::mark_live(roots, &mut Few(pages.clone()), leaves, &|_| false, &mut live);
            }
            let _cleared = btree::clear_unused(roots, &mut Few(pages));
        }
    }
}

#[test]
fn tree_that_is_less_even_than_assumed_is_noticed_and_read_in_full() {
    let mut region = Region::new(3);
    let (database, units) = region.open();
    let write = database.begin_write().unwrap();
    for key in 0..2000u64 {
        write.open_table(MIXED).unwrap().insert(key, "y".repeat(60).as_str()).unwrap();
    }
    write.commit().unwrap();
    let mut state = units.state();
    let page = state.superblocks.current.page.clone();
    let even = units.walk(&state, &page, Leaves::Skip).unwrap();
    // As if a page that the walk takes for a leaf had been written as a branch.
    let all = even.iter().filter(|unit| !state.branches.contains(*unit)).collect::<Vec<_>>();
    all.iter().for_each(|unit| state.branches.set(*unit, true));
    assert!(units.walk(&state, &page, Leaves::Skip).is_err());
    assert_eq!(units.live(&state, &page).unwrap(), even);
}

/// Earlier programs said scrubbed of a database that was not closed, after a session that did not end.
#[test]
fn vlt_57_what_says_scrubbed_and_not_closed_says_closed_from_the_next_opening_on() {
    let mut region = Region::new(4);
    let Region { backend, geometry, grant, rng } = &mut region;
    let limit = capacity(geometry);
    let mut pair = SuperblockPair::open(&**backend, geometry, grant, limit).unwrap().unwrap();
    pair.edit_page(|page| {
        page[9] |= 2;
        Ok::<_, io::Error>(())
    })
    .unwrap();
    assert!(pair.write(&**backend, geometry, rng).unwrap());
    for _ in 0..2 {
        let (database, units) = region.open();
        close(database, &units);
        let Region { backend, geometry, grant, rng: _ } = &region;
        let found = SuperblockPair::open(&**backend, geometry, grant, limit).unwrap().unwrap().current;
        assert!(found.scrubbed && HeaderPage(&found.page).is_closed());
        // One write, at the first opening.
        assert_eq!(found.generation, pair.current.generation.next().next());
    }
}
