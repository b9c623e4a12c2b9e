//! What an SOS passphrase opens, read by somebody with a program of his own, field by field: nothing in it that the only
//! passphrase of an ordinary vault would not open too.
//!
//! | what is read | in an ordinary vault | in a cover |
//! | --- | --- | --- |
//! | name, header key, volume key | random | random, other ones |
//! | volumes | one | as many as it shows: one here |
//! | region of the volume, own slots | anywhere | anywhere |
//! | slots kept besides its own | none | none |
//! | others refreshed at an unlock | a coin toss | `hide`: no; `destroy`: yes |
//! | the program's field | each relay with a random token | the same |
//! | padding, fields that the format does not know | zeros, none | zeros, none |
//! | records of the volume's allocation units, in every version | none | none |
//! | rows of the database: table, lengths of key and value | as its history made them | the same |

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use lapwing::client::PayloadRelays;
use lapwing_tests::{
    CHEAP,
    examiner::{Blocks, Opened, examine, payload::Payload},
    scenario::{Folder, Relay},
    trace::{Subject, sweep::probe},
};
use lapwing_vault::{
    Container, MemoryBackend, Passphrase,
    redb::{ReadableTable, TableDefinition, TableHandle},
};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

const REAL: &str = "heron orbit velvet candle of bo";
const COVER: &str = "seven quiet penguins ride north";

/// Vaults of each kind.
const EACH: usize = 8;

/// Chi-square of two samples over four classes (three degrees of freedom) that is no chance: one in a million.
const FAR: f64 = 31.0;

/// Rows of a database: by table and length of the key, the lengths of the values, in order.
type Rows = BTreeMap<(u8, usize), Vec<usize>>;

/// Bytes by which two values of one kind may differ: random numbers in them take one to five bytes each.
const VARIES: usize = 16;

/// Whether two databases have the same rows.
fn alike(one: &Rows, other: &Rows) -> bool {
    let near = |(one, other): (&usize, &usize)| one.abs_diff(*other) <= VARIES;
    one.keys().eq(other.keys())
        && one
            .values()
            .zip(other.values())
            .all(|(one, other)| one.len() == other.len() && one.iter().zip(other).all(near))
}

struct Seen {
    payload: Payload,
    opened: Opened,
    rows: Rows,
}

fn does(subject: &Subject, words: &[&str], more: &str) {
    let (code, told) = probe(subject, words, more);
    assert_eq!(code, Some(0), "{words:?}: {told}");
}

/// A vault that shows `main` with one relay and one open invitation to this passphrase.
fn seen(subject: &Subject, passphrase: &str) -> Seen {
    does(&subject.typing(passphrase), &["--offline", "invite", "granny"], "");
    let image = fs::read(&subject.vault).unwrap();
    let blocks = Blocks::of_image(&image).unwrap();
    let (_, opened) = examine(&blocks, &[passphrase.as_bytes().to_vec()], CHEAP, &[], &[]);
    let payload = opened.payloads[0].clone();
    assert!(
        opened.payloads.iter().all(|other| *other == payload),
        "both slots and both copies hold the same"
    );
    Seen { payload, rows: rows(image, passphrase), opened }
}

fn rows(image: Vec<u8>, passphrase: &str) -> Rows {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let locked = Container::open(MemoryBackend::with_image(image)).unwrap();
    let session = locked.unlock(&Passphrase::new(passphrase), CHEAP, &mut rng, Duration::ZERO).unwrap();
    let volumes = session.volumes();
    assert_eq!(volumes.len(), 1);
    let volume = session.open_volume(volumes[0], &mut rng).unwrap();
    let read = volume.begin_read().unwrap();
    let mut rows = Rows::new();
    for table in read.list_tables().unwrap() {
        let definition = TableDefinition::<&[u8], &[u8]>::new(table.name());
        for row in read.open_table(definition).unwrap().iter().unwrap() {
            let (key, value) = row.unwrap();
            rows.entry((key.value()[0], key.value().len())).or_default().push(value.value().len());
        }
    }
    rows.values_mut().for_each(|lengths| lengths.sort_unstable());
    rows
}

/// An ordinary vault, opened as often as a cover's was.
fn ordinary(program: &Path, relay: &Relay) -> Seen {
    let folder = Folder::new();
    let eve = Subject::new(program, &folder.join("vault"), REAL);
    does(&eve, &["init", "--size", "8MiB"], "");
    does(&eve, &["relay", "add", &relay.access], "");
    // As often at its relay, too: each session leaves a mark there (CPY-06).
    does(&eve, &["sync"], "");
    seen(&eve, REAL)
}

fn cover(program: &Path, relay: &Relay, action: &str) -> Seen {
    let folder = Folder::new();
    let bo = Subject::new(program, &folder.join("vault"), REAL);
    does(&bo, &["init", "--size", "8MiB"], "");
    does(&bo, &["compartment", "rename", "main", "private"], "");
    does(&bo, &["relay", "add", &relay.access], "");
    does(&bo, &["compartment", "create", "main"], "");
    does(&bo, &["relay", "add", &relay.access, "--compartment", "main"], "");
    let words = ["sos", "add", "--name", "plan", "--show", "main", "--do", action, "--no-alert", "--yes"];
    does(&bo, &[&words[..], &["--new-passphrase-fd", "0"]].concat(), &format!("{COVER}\n"));
    seen(&bo, COVER)
}

/// Chi-square of two samples of four classes.
fn distance(one: &[u8], other: &[u8]) -> f64 {
    let count = |sample: &[u8], class: u8| sample.iter().filter(|value| **value == class).count() as f64;
    let (all_one, all_other) = (one.len() as f64, other.len() as f64);
    let class = |class: u8| {
        let (a, b) = (count(one, class), count(other, class));
        let share = (a + b) / (all_one + all_other);
        let term = |seen: f64, all: f64| {
            if share == 0.0 { 0.0 } else { (seen - share * all).powi(2) / (share * all) }
        };
        term(a, all_one) + term(b, all_other)
    };
    (0..4).map(class).sum()
}

#[test]
fn the_payload_of_a_cover_holds_nothing_that_an_ordinary_one_does_not() {
    let program = Path::new(env!("CARGO_BIN_EXE_lapwing-cheap"));
    let folder = Folder::new();
    let relay = Relay::start(&folder.join("relay"));
    let ordinary: Vec<Seen> = (0..2 * EACH).map(|_| ordinary(program, &relay)).collect();
    let covers: Vec<(bool, Seen)> = (0..2 * EACH)
        .map(|number| number % 2 == 0)
        .map(|destroys| (destroys, cover(program, &relay, if destroys { "destroy" } else { "hide" })))
        .collect();

    for (destroys, one) in
        ordinary.iter().map(|one| (None, one)).chain(covers.iter().map(|(d, one)| (Some(*d), one)))
    {
        let Payload { id, header_key: _, volumes, slots, keep, refresh, application, unknown, zero_padded } =
            &one.payload;
        assert_eq!((id.len(), volumes.len(), *keep, unknown.len(), *zero_padded), (16, 1, 0, 0, true));
        assert!(slots[0] != slots[1] && slots.iter().all(|slot| *slot < 16));
        assert_eq!(application.len(), ordinary[0].payload.application.len());
        assert_eq!(
            PayloadRelays::decode(application).unwrap().encode(),
            *application,
            "nothing stands in it unseen"
        );
        assert!(destroys.is_none_or(|destroys| destroys == *refresh));
        let records =
            one.opened.records.iter().map(|(_, records)| (records.payloads.len(), records.volumes.len()));
        assert_eq!(records.max(), Some((0, 0)), "no version of its allocation units names anything");
        assert_eq!(one.opened.volumes.len(), 1);
        assert!(alike(&one.rows, &ordinary[0].rows), "{:?} and {:?}", one.rows, ordinary[0].rows);
    }
    // What a cover's payload asks for, ordinary ones ask for too, by a coin toss.
    let tosses: Vec<bool> = ordinary.iter().map(|one| one.payload.refresh).collect();
    assert!(tosses.contains(&true) && tosses.contains(&false), "{tosses:?}");
    let regions = |all: &[&Seen]| all.iter().map(|one| one.payload.volumes[0].0).collect::<Vec<u8>>();
    let quarters = |all: &[&Seen]| {
        all.iter().flat_map(|one| one.payload.slots).map(|slot| slot / 4).collect::<Vec<u8>>()
    };
    let (ordinary, covers): (Vec<&Seen>, Vec<&Seen>) =
        (ordinary.iter().collect(), covers.iter().map(|(_, one)| one).collect());
    let apart = [
        distance(&regions(&ordinary), &regions(&covers)),
        distance(&quarters(&ordinary), &quarters(&covers)),
    ];
    assert!(apart.iter().all(|apart| *apart < FAR), "{apart:?}");
    // Every random field is another one in every vault.
    let fields = |one: &&Seen| {
        [one.payload.id.clone(), one.payload.header_key.to_vec(), one.payload.volumes[0].1.to_vec()]
    };
    let mut all: Vec<Vec<u8>> = ordinary.iter().chain(&covers).flat_map(fields).collect();
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), count);
}

#[test]
fn the_distance_of_samples_grows_with_their_difference() {
    assert!(distance(&[0, 1, 2, 3].repeat(8), &[3, 2, 1, 0].repeat(8)) < 1e-9);
    assert!(distance(&[0; 24], &[1; 24]) > FAR);
}
