//! What somebody finds who knows everything but the owner's passphrase.
//!
//! The examiner has the source and the format, every version of every block that the disk ever held ([`blocks`]: images
//! of whatever moments, and logs of every write), and some passphrases. It opens whatever these lead to, in blocks that
//! count and in blocks that do not ([`reader`]), and looks for planted words and keys ([`canary`]) in all of it, in the
//! raw blocks, and in whatever else it is given: memory of processes, terminals, home folders, logs.
//!
//! It shares the ciphers with the program and nothing else: layout, records and search are its own.
//!
//! | module | what |
//! | --- | --- |
//! | [`blocks`] | every version of every block |
//! | [`reader`] | opens them |
//! | [`desk`] | a person at a terminal, of whom everything is kept |
//! | [`payload`] | what stands in opened bytes |
//! | [`canary`] | what is looked for |
//! | [`report`] | what is told |
//! | [`record`] | logs of writes, as files |
//! | [`snapshots`] | which parts changed between several images |
//! | [`story`] | a story on real processes, to be examined |
//! | [`timing`] | wall time of unlocks, measured and compared |

pub mod blocks;
pub mod canary;
#[expect(clippy::expect_used, reason = "a desk that cannot be sat at is a failed test")]
pub mod desk;
pub mod payload;
pub mod reader;
pub mod record;
pub mod report;
pub mod snapshots;
#[expect(clippy::expect_used, clippy::panic, reason = "a story that cannot be told is a failed test")]
pub mod story;
pub mod timing;

use lapwing_vault::Cost;

pub use blocks::Blocks;
pub use canary::{Canary, Search};
pub use reader::Opened;
pub use report::{Found, Report, Searched};

/// Examines a container, and whatever else was found with it: names and bytes.
#[must_use]
pub fn examine(
    blocks: &Blocks,
    passphrases: &[Vec<u8>],
    cost: Cost,
    canaries: &[Canary],
    more: &[(String, Vec<u8>)],
) -> (Report, Opened) {
    let search = Search::new(canaries);
    let mut found = Vec::new();
    let mut note = |place: &str, bytes: &[u8]| {
        for hit in search.hits(bytes) {
            let canary = canaries.get(hit.canary).map_or("", Canary::name).to_owned();
            found.push(Found { canary, form: hit.form.to_owned(), place: place.to_owned() });
        }
    };
    for (place, versions) in blocks.all() {
        for bytes in versions {
            note(&format!("{place:?} as it lies on the disk"), bytes);
        }
    }
    // Between the blocks too: what no place of the format covers.
    note("the container as it was last", blocks.last());
    for (name, bytes) in more {
        note(name, bytes);
    }
    let mut opened_bytes = 0;
    let opened = reader::open_everything(blocks, passphrases, cost, &mut |place, bytes| {
        opened_bytes += bytes.len() as u64;
        note(&format!("{place}, opened"), bytes);
    });
    found.sort();
    found.dedup();
    let searched =
        |(name, bytes): &(String, Vec<u8>)| Searched { what: name.clone(), bytes: bytes.len() as u64 };
    let report = Report {
        images: blocks.images,
        writes: blocks.writes,
        blocks: blocks.len(),
        passphrases: passphrases.len(),
        headers: opened.headers,
        payloads: opened.payloads.iter().map(payload::Payload::shown).collect(),
        volumes: opened.volumes.len(),
        pages: opened.pages,
        texts: opened.bodies,
        opened_bytes,
        searched: more.iter().map(searched).collect(),
        canaries: canaries.len(),
        found,
    };
    (report, opened)
}
