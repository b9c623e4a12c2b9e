//! Opens everything that a passphrase leads to, in every version of every block.
//!
//! The program reads the newest whole header copy, the newest units, the pages that its database leads to. This reads
//! all of them: headers that were overwritten, slots that no longer count, records and keys that were taken back, pages
//! that are free. What one block gives away is used on all others, until nothing new turns up.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use lapwing_vault::{Cost, primitives};

use super::{
    blocks::{Blocks, Place},
    payload::{Payload, Records, table_keys},
};

/// Slots of a header.
const SLOTS: usize = 16;
/// Copy marker of what exists once.
const SINGLE: u8 = 255;
/// Bytes of a nonce, and of nonce and tag.
const NONCE: usize = 24;
const OVERHEAD: usize = 40;

/// A volume: its region and its key.
pub type Volume = (u8, [u8; 32]);

/// Everything that was opened.
#[derive(Debug, Default)]
pub struct Opened {
    /// Payloads, each once for every version.
    pub payloads: Vec<Payload>,
    /// Volumes, by whatever way they were found.
    pub volumes: BTreeSet<Volume>,
    /// Records of allocation units, each version of each.
    pub records: Vec<(Volume, Records)>,
    /// Keys of key tables, every one that any version held.
    pub body_keys: BTreeMap<Volume, BTreeSet<[u8; 32]>>,
    /// Headers of which the slots could be seen without their outer layers.
    pub headers: usize,
    /// Versions of data units and superblocks that opened.
    pub pages: usize,
    /// Sealed texts that were tried in them.
    pub bodies: usize,
}

/// What `reader` tells: where something was opened, and its bytes.
pub type Visit<'a> = dyn FnMut(&str, &[u8]) + 'a;

/// Opens what these passphrases lead to, and shows every opened byte to `visit`.
pub fn open_everything(
    blocks: &Blocks,
    passphrases: &[Vec<u8>],
    cost: Cost,
    visit: &mut Visit<'_>,
) -> Opened {
    let mut reader =
        Reader { blocks, opened: Opened::default(), slot_keys: BTreeSet::new(), outer: BTreeMap::new() };
    for (salt, passphrase) in
        blocks.at(Place::Salt).iter().flat_map(|salt| passphrases.iter().map(move |one| (salt, one)))
    {
        let Some(salt) = salt.first_chunk::<32>() else { continue };
        let Some(trials) = primitives::trials(passphrase, salt, cost) else { continue };
        reader.slot_keys.extend(trials.slots.iter().enumerate().map(|(slot, key)| (slot, *key)));
        reader.open_boxes(&trials.openers);
    }
    reader.until_nothing_is_new(visit);
    reader.read_volumes(visit);
    reader.opened
}

struct Reader<'a> {
    blocks: &'a Blocks,
    opened: Opened,
    /// Slot, key.
    slot_keys: BTreeSet<(usize, [u8; 32])>,
    /// Outer key of each version of each copy that has one known.
    outer: BTreeMap<(u8, usize), [u8; 32]>,
}

/// Inner layers of slots, each once: most are carried over unchanged from header to header.
#[derive(Default)]
struct Inners {
    all: Vec<(usize, Vec<u8>)>,
    known: HashSet<(usize, Vec<u8>)>,
}

impl Inners {
    /// Those of a header copy.
    fn add(&mut self, copy: &[u8], outer: &[u8; 32]) {
        for (slot, stored) in copy[4096..].chunks_exact(4096).enumerate() {
            let mut inner = stored[536..].to_vec();
            let Some(nonce) = stored[512..].first_chunk::<NONCE>() else { continue };
            primitives::outer_layer(outer, nonce, &mut inner);
            if self.known.insert((slot, inner.clone())) {
                self.all.push((slot, inner));
            }
        }
    }
}

impl Reader<'_> {
    fn headers(&self) -> Vec<(u8, usize, &[u8])> {
        let copy = |copy: u8| {
            let versions = self.blocks.at(Place::Header(copy)).iter().enumerate();
            versions.map(move |(number, bytes)| (copy, number, bytes.as_slice()))
        };
        copy(0).chain(copy(1)).collect()
    }

    /// The outer keys that these openers unlock, in every header there ever was.
    fn open_boxes(&mut self, openers: &[[u8; 32]]) {
        let mut found = Vec::new();
        for (copy, number, bytes) in self.headers() {
            let boxes = bytes.chunks_exact(72).take(SLOTS).zip(openers).enumerate();
            let outer = boxes
                .filter_map(|(slot, (stored, opener))| primitives::open(opener, slot as u64, copy, stored))
                .find_map(|key| key.as_slice().try_into().ok());
            found.extend(outer.map(|key: [u8; 32]| ((copy, number), key)));
        }
        self.outer.extend(found);
    }

    fn until_nothing_is_new(&mut self, visit: &mut Visit<'_>) {
        let mut inners = Inners::default();
        let mut tried: HashSet<(usize, [u8; 32])> = HashSet::new();
        let mut shown: HashSet<Vec<u8>> = HashSet::new();
        loop {
            let before =
                (self.slot_keys.len(), self.outer.len(), self.opened.volumes.len(), inners.all.len());
            for (copy, number, bytes) in self.headers() {
                if let Some(outer) = self.outer.get(&(copy, number)) {
                    inners.add(bytes, outer);
                }
            }
            let mut payloads = Vec::new();
            for (at, (slot, inner)) in inners.all.iter().enumerate() {
                for (_, key) in self.slot_keys.iter().filter(|(of, _)| of == slot) {
                    if !tried.insert((at, *key)) {
                        continue;
                    }
                    let Some(plain) = primitives::open(key, *slot as u64, SINGLE, inner) else { continue };
                    if shown.insert(plain.to_vec()) {
                        visit(&format!("payload in slot {slot}"), &plain);
                        payloads.extend(Payload::read(&plain));
                    }
                }
            }
            for payload in payloads {
                self.opened.volumes.extend(payload.volumes.iter().copied());
                let [_, ring, _] = primitives::header_keys(&payload.header_key);
                self.open_rings(&ring);
                self.opened.payloads.push(payload);
            }
            self.read_records(&mut shown, visit);
            let after = (self.slot_keys.len(), self.outer.len(), self.opened.volumes.len(), inners.all.len());
            if before == after {
                break;
            }
        }
        self.opened.headers = self.outer.len();
    }

    /// With the header key all openers of all headers are known, and with them every outer key.
    fn open_rings(&mut self, ring: &[u8; 32]) {
        let rings: Vec<Vec<[u8; 32]>> = self
            .headers()
            .into_iter()
            .filter_map(|(copy, _, bytes)| primitives::open(ring, 0, copy, &bytes[1152..1704]))
            .map(|plain| plain.as_chunks::<32>().0.to_vec())
            .collect();
        let distinct: BTreeSet<Vec<[u8; 32]>> = rings.into_iter().collect();
        for openers in distinct {
            self.open_boxes(&openers);
        }
    }

    /// Keys in every version of the allocation units of every known volume.
    fn read_records(&mut self, shown: &mut HashSet<Vec<u8>>, visit: &mut Visit<'_>) {
        let mut left: Vec<Volume> = self.opened.volumes.iter().copied().collect();
        while let Some(volume) = left.pop() {
            let (region, key) = volume;
            let [allocation, ..] = primitives::volume_keys(&key);
            for copy in 0..2 {
                for stored in self.blocks.at(Place::Allocation(region, copy)) {
                    let Some(plain) = primitives::open(&allocation, region.into(), copy, stored) else {
                        continue;
                    };
                    if !shown.insert(plain.to_vec()) {
                        continue;
                    }
                    visit(&format!("allocation unit of region {region}"), &plain);
                    let Some(records) = Records::read(&plain) else { continue };
                    for record in &records.payloads {
                        let (slots, keys) = (&record.slots, &record.keys);
                        self.slot_keys
                            .extend(slots.iter().zip(keys).map(|(slot, key)| (usize::from(*slot), *key)));
                    }
                    for (region, key, _) in &records.volumes {
                        if self.opened.volumes.insert((*region, *key)) {
                            left.push((*region, *key));
                        }
                    }
                    self.opened.records.push((volume, records));
                }
            }
        }
    }

    /// Every version of every page and of every table of keys; then the sealed texts in the pages, under every key that
    /// any table ever held.
    fn read_volumes(&mut self, visit: &mut Visit<'_>) {
        for volume in self.opened.volumes.clone() {
            let (region, key) = volume;
            let [_, table, superblock, unit] = primitives::volume_keys(&key);
            let mut pages = Vec::new();
            for (place, versions) in self.blocks.all() {
                let (key, index, copy) = match place {
                    Place::KeyTable(of, number, copy) if of == region => (&table, number, copy),
                    Place::Superblock(of, copy) if of == region => (&superblock, u64::from(of), copy),
                    Place::Unit(of, number) if of == region => (&unit, number, SINGLE),
                    _ => continue,
                };
                for stored in versions {
                    let Some(plain) = primitives::open(key, index, copy, stored) else { continue };
                    if matches!(place, Place::KeyTable(..)) {
                        self.opened.body_keys.entry(volume).or_default().extend(table_keys(&plain));
                    } else {
                        self.opened.pages += 1;
                    }
                    if plain.iter().any(|byte| *byte != 0) {
                        visit(&format!("{place:?}"), &plain);
                        pages.push((place, plain));
                    }
                }
            }
            let keys = self.opened.body_keys.get(&volume).cloned().unwrap_or_default();
            for (place, page) in pages.iter().filter(|(place, _)| matches!(place, Place::Unit(..))) {
                for body in byte_strings(page) {
                    for key in &keys {
                        let Some((nonce, sealed)) = body.split_first_chunk::<NONCE>() else { continue };
                        self.opened.bodies += 1;
                        visit(
                            &format!("a text sealed in {place:?}"),
                            &primitives::unauthenticated(key, nonce, sealed),
                        );
                    }
                }
            }
        }
    }
}

/// Everything in a page that may be a sealed text: CBOR byte strings of that length, the last up to the page's end.
fn byte_strings(page: &[u8]) -> impl Iterator<Item = &[u8]> {
    (0..page.len()).filter_map(|at| {
        let (start, len) = match page[at] {
            0x58 => (at + 2, usize::from(*page.get(at + 1)?)),
            0x59 => (at + 3, usize::from(u16::from_be_bytes([*page.get(at + 1)?, *page.get(at + 2)?]))),
            _ => return None,
        };
        (len > OVERHEAD)
            .then(|| page.get(start..(start + len).min(page.len())))?
            .filter(|body| body.len() > OVERHEAD)
    })
}
