//! Which units name the volumes of a payload.
//!
//! Invariants: a session that made all its volumes itself finds each but the first recorded in the units of
//! one that it had before. Every payload that a session writes for somebody else finds the same (VLT-46), or
//! it would list volumes that somebody else must have made. Nobody reaches a volume through such a record
//! who does not reach it anyway (VLT-43), and none has a label.

use zeroize::Zeroizing;

use super::{
    Session,
    records::{RecordPlan, RegionSet},
};
use crate::{
    allocation::VolumeRecord,
    error::ChangeError,
    geometry::{REGION_COUNT, RegionIndex},
    payload::{Grant, Payload},
};

/// `links[from][to]`: the units of region `from` record the volume of region `to`.
type Links = [RegionSet; REGION_COUNT];

impl Session {
    /// Adds to `plan` the records by which `payload`, about to be written, and every other known payload
    /// find their volumes. `payload` gets another first volume if no such records are possible with its own.
    /// Returns the other payloads that need another first volume, which the same header write must seal.
    ///
    /// # Errors
    ///
    /// [`ChangeError::WouldExpose`]: whatever volume comes first, some other payload would learn of a volume.
    pub(super) fn name_volumes(
        &self,
        plan: &mut RecordPlan,
        payload: &mut Payload,
    ) -> Result<Vec<Payload>, ChangeError> {
        let others = self.entries.iter().map(|entry| &entry.payload).filter(|other| other.id != payload.id);
        let mut all: Vec<Payload> = others.map(Payload::duplicate).collect();
        all.push(payload.duplicate());

        let mut links = self.links(plan);
        let reaches: Vec<RegionSet> =
            all.iter().map(|payload| reach(self.regions_of(payload), &links)).collect();
        let mut reordered = Vec::new();
        for payload in &mut all {
            let known: Vec<RegionIndex> = payload
                .volumes
                .iter()
                .filter(|grant| self.region_of(grant.key.id()) == Some(grant.region))
                .map(|grant| grant.region)
                .collect();
            let (first, missing) = (0..known.len())
                .find_map(|first| Some((first, missing_links(&known, first, &links, &reaches)?)))
                .ok_or(ChangeError::WouldExpose)?;
            for (from, to) in missing {
                links[from.as_usize()][to.as_usize()] = true;
                self.add_volume_record(plan, from, to)?;
            }
            if first > 0 {
                let at = payload.volumes.iter().position(|grant| grant.region == known[first]);
                payload.volumes[..=at.unwrap_or(0)].rotate_right(1);
                reordered.push(payload.duplicate());
            }
        }
        if let Some(last) = all.pop() {
            reordered.retain(|other| other.id != last.id);
            *payload = last;
        }
        Ok(reordered)
    }

    /// What the units will record once `plan` is written.
    fn links(&self, plan: &RecordPlan) -> Links {
        let mut links = Links::default();
        for units in self.regions.iter().flatten() {
            let from = units.grant.region;
            let content = plan.content(from).unwrap_or(&units.content);
            for record in content.volumes.iter().filter(|record| self.is_current(record)) {
                links[from.as_usize()][record.grant.region.as_usize()] = true;
            }
        }
        links
    }

    fn add_volume_record(
        &self,
        plan: &mut RecordPlan,
        from: RegionIndex,
        to: RegionIndex,
    ) -> Result<(), ChangeError> {
        let named = self.regions[to.as_usize()].as_ref().ok_or(ChangeError::UnknownVolume)?;
        let grant: Grant = named.grant.duplicate();
        let units = self.regions[from.as_usize()].as_ref().ok_or(ChangeError::UnknownVolume)?;
        let content = plan.content_mut(from, || {
            let mut content = units.content.duplicate();
            content.volumes.retain(|record| self.is_current(record));
            content
        });
        content.volumes.push(VolumeRecord { grant, label: Zeroizing::new(Vec::new()) });
        Ok(())
    }
}

/// Everything that `links` lead to from `set`, `set` included.
fn reach(mut set: RegionSet, links: &Links) -> RegionSet {
    // Each round but the last adds a region.
    for _ in 0..REGION_COUNT {
        for from in 0..REGION_COUNT {
            if set[from] {
                for to in 0..REGION_COUNT {
                    set[to] |= links[from][to];
                }
            }
        }
    }
    set
}

/// The links to add so that all of `volumes` are found from `volumes[first]` through each other, if there
/// are such: a link may start only where everybody who reads it reaches its end already.
fn missing_links(
    volumes: &[RegionIndex],
    first: usize,
    links: &Links,
    reaches: &[RegionSet],
) -> Option<Vec<(RegionIndex, RegionIndex)>> {
    let mut found = vec![*volumes.get(first)?];
    let mut missing = Vec::new();
    let allowed = |from: RegionIndex, to: RegionIndex| {
        reaches.iter().all(|reach| !reach[from.as_usize()] || reach[to.as_usize()])
    };
    while found.len() < volumes.len() {
        let pairs = || {
            let wanted = volumes.iter().filter(|volume| !found.contains(volume));
            wanted.flat_map(|to| found.iter().map(move |from| (*from, *to)))
        };
        let next = pairs().find(|(from, to)| links[from.as_usize()][to.as_usize()]);
        let (_, to) = match next {
            Some(link) => link,
            None => {
                let link = pairs().find(|(from, to)| allowed(*from, *to))?;
                missing.push(link);
                link
            }
        };
        found.push(to);
    }
    Some(missing)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

    use super::*;
    use crate::{
        Container, ContainerSize, Cost, MemoryBackend, Others, Passphrase, Spec,
        payload::{PayloadId, VolumeId},
    };

    const TINY: Cost = Cost { memory_kib: 8, passes: 1, lanes: 1 };

    struct Owner {
        backend: MemoryBackend,
        rng: ChaCha20Rng,
        session: Session,
        /// Where the records are: a volume that no cover opens.
        private: VolumeId,
        /// Volumes to show, of which the first is that of the creation.
        shown: Vec<VolumeId>,
    }

    impl Owner {
        fn new(seed: u64, shown: usize) -> Self {
            let backend = MemoryBackend::new();
            let mut rng = ChaCha20Rng::seed_from_u64(seed);
            let real = Passphrase::new("real");
            let file = backend.another_handle();
            let mut session =
                Container::create(file, ContainerSize::MIN, &real, TINY, &mut rng, &mut |_, _| {}).unwrap();
            let mut volumes = session.volumes();
            let private = session.create_volume(volumes[0], b"", &mut rng).unwrap();
            for _ in 1..shown {
                volumes.push(session.create_volume(private, b"the owner's word", &mut rng).unwrap());
            }
            Self { backend, rng, session, private, shown: volumes }
        }

        fn spec<'a>(&self, volumes: &'a [VolumeId]) -> Spec<'a> {
            let (application, label, home) = (&[][..], &b"plan"[..], self.private);
            Spec { volumes, others: Others::Keep, spare: &[], application, label, home }
        }

        fn add(&mut self, passphrase: &str, shown: &[usize]) -> Result<PayloadId, ChangeError> {
            let volumes: Vec<VolumeId> = shown.iter().map(|shown| self.shown[*shown]).collect();
            let spec = self.spec(&volumes);
            self.session.add_passphrase(&Passphrase::new(passphrase), &spec, &mut self.rng)
        }

        /// Unlocks an image of now, as an examiner would, beside the owner's session.
        fn examine(&mut self, passphrase: &str) -> Session {
            let image = MemoryBackend::with_image(self.backend.image());
            let locked = Container::open(image).unwrap();
            locked.unlock(&Passphrase::new(passphrase), TINY, &mut self.rng, Duration::ZERO).unwrap()
        }

        /// VLT-46 and VLT-43 for a cover: it opens these, finds each but the first through one before, and
        /// reads nothing else.
        fn check(&mut self, passphrase: &str, shown: &[usize]) {
            let session = self.examine(passphrase);
            let mut expected: Vec<VolumeId> = shown.iter().map(|shown| self.shown[*shown]).collect();
            let mut listed = session.volumes();
            expected.sort_unstable();
            listed.sort_unstable();
            assert_eq!(listed, expected);
            assert!(session.found_volumes().is_empty() && session.entries().is_empty());
            let mut found = vec![session.payload.volumes[0].region];
            while found.len() < listed.len() {
                let step = found.iter().find_map(|from| {
                    let units = session.regions[from.as_usize()].as_ref().unwrap();
                    let mut ends = units.content.volumes.iter().map(|record| record.grant.region);
                    ends.find(|to| !found.contains(to))
                });
                found.push(step.expect("a volume that no unit names"));
            }
            for units in session.regions.iter().flatten() {
                for record in &units.content.volumes {
                    assert!(session.is_current(record) && record.label.is_empty());
                    assert_ne!(record.grant.region, units.grant.region);
                }
            }
        }
    }

    #[test]
    fn vlt_46_cover_looks_like_who_made_its_volumes() {
        let mut owner = Owner::new(1, 2);
        owner.add("cover", &[0, 1]).unwrap();
        owner.check("cover", &[0, 1]);
        let cover = owner.examine("cover");

        // Its records are those of a container with one passphrase, which created a second volume.
        let (mut rng, ordinary) = (ChaCha20Rng::seed_from_u64(2), MemoryBackend::new());
        let only = Passphrase::new("only");
        let mut session =
            Container::create(ordinary, ContainerSize::MIN, &only, TINY, &mut rng, &mut |_, _| {}).unwrap();
        session.create_volume(session.volumes()[0], b"", &mut rng).unwrap();
        let shape = |session: &Session| -> Vec<(usize, Vec<usize>)> {
            let content = |grant: &Grant| {
                let content = &session.regions[grant.region.as_usize()].as_ref().unwrap().content;
                let ends = content.volumes.iter().map(|record| {
                    let end = |grant: &Grant| grant.region == record.grant.region;
                    session.payload.volumes.iter().position(end).unwrap()
                });
                (content.payloads.len(), ends.collect())
            };
            session.payload.volumes.iter().map(content).collect()
        };
        assert_eq!(shape(&cover), shape(&session));
        assert_eq!(shape(&cover), [(0, vec![1]), (0, vec![])]);

        // The owner's label stays where only the owner reads it.
        let second = owner.shown[1];
        assert!(cover.volume_label(second).unwrap().is_empty());
        assert_eq!(owner.examine("real").volume_label(second).unwrap(), b"the owner's word");
    }

    #[test]
    fn vlt_46_passphrase_for_less_moves_the_record_and_the_order_of_the_other() {
        let mut owner = Owner::new(3, 2);
        owner.add("both", &[0, 1]).unwrap();
        assert_eq!(owner.examine("both").volumes(), [owner.shown[0], owner.shown[1]]);
        owner.add("first only", &[0]).unwrap();
        owner.check("first only", &[0]);
        owner.check("both", &[0, 1]);
        assert_eq!(owner.examine("both").volumes(), [owner.shown[1], owner.shown[0]]);
        owner.check("both", &[0, 1]);
        // What the owner knows followed.
        assert_eq!(owner.session.entries()[0].volumes(), [owner.shown[1], owner.shown[0]]);
    }

    #[test]
    fn vlt_46_holds_for_a_payload_that_is_sealed_again() {
        let mut owner = Owner::new(4, 3);
        let entry = owner.add("cover", &[2]).unwrap();
        let volumes = owner.shown.clone();
        let spec = owner.spec(&volumes);
        owner.session.reseal(entry, &spec, &mut owner.rng).unwrap();
        owner.check("cover", &[0, 1, 2]);
        // Again, and again: records do not pile up.
        for _ in 0..10 {
            let spec = owner.spec(&volumes);
            owner.session.reseal(entry, &spec, &mut owner.rng).unwrap();
        }
        let cover = owner.examine("cover");
        let records = cover.regions.iter().flatten().map(|units| units.content.volumes.len());
        assert_eq!(records.sum::<usize>(), 2);
    }

    #[test]
    fn vlt_46_what_no_order_can_hide_is_refused_and_nothing_is_written() {
        let mut owner = Owner::new(5, 3);
        owner.add("one", &[0, 1]).unwrap();
        owner.add("two", &[1, 2]).unwrap();
        let before = owner.backend.image();
        assert!(matches!(owner.add("three", &[2, 0]), Err(ChangeError::WouldExpose)));
        assert!(owner.backend.image() == before);
        owner.check("one", &[0, 1]);
        owner.check("two", &[1, 2]);
        assert!(matches!(owner.add("four", &[0, 1, 2]), Err(ChangeError::WouldExpose)));
        owner.add("five", &[1]).unwrap();
        owner.check("five", &[1]);
        owner.check("one", &[0, 1]);
        owner.check("two", &[1, 2]);
    }

    #[test]
    fn volume_that_names_another_for_a_cover_can_be_deleted_after_it() {
        let mut owner = Owner::new(6, 2);
        let entry = owner.add("cover", &[1, 0]).unwrap();
        owner.check("cover", &[0, 1]);
        owner.session.remove_entry(entry, &mut owner.rng).unwrap();
        owner.session.delete_volume(owner.shown[1], &mut owner.rng).unwrap();
        assert_eq!(owner.examine("real").volumes(), [owner.shown[0], owner.private]);
    }
}
