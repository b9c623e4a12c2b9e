//! Tables with the writes of a group over them that is on its way to the disk.

use std::{ops::Bound::Included, sync::Arc};

use super::{
    StoreError,
    record::Seal,
    tables::{Entry, Scan, Space, Tables, Value, Visit, Writes},
};

/// The writes of one group, sealed.
pub(super) struct Layer {
    pub(super) bulk: Writes,
    pub(super) state: Writes,
}

impl Layer {
    fn writes(&self, space: Space) -> &Writes {
        match space {
            Space::Bulk => &self.bulk,
            Space::State => &self.state,
        }
    }
}

/// What tables will show once the group over them is durable; whether it is by now makes no difference.
pub(super) struct Layered<T> {
    base: T,
    over: Option<Arc<Layer>>,
}

impl<T> Layered<T> {
    pub(super) fn new(base: T, over: Option<Arc<Layer>>) -> Self {
        Self { base, over }
    }
}

impl<T: Tables> Tables for Layered<T> {
    fn load(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.over.as_ref().and_then(|over| over.writes(space).get(key)) {
            Some(written) => Ok(written.clone()),
            None => self.base.load(space, key),
        }
    }

    fn has(&self, space: Space, key: &[u8]) -> Result<bool, StoreError> {
        match self.over.as_ref().and_then(|over| over.writes(space).get(key)) {
            Some(written) => Ok(written.is_some()),
            None => self.base.has(space, key),
        }
    }

    fn scan(&self, space: Space, first: &[u8], last: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let Some(over) = self.over.as_ref().filter(|_| first <= last) else {
            return self.base.scan(space, first, last, visit);
        };
        let mut written = over.writes(space).range::<[u8], _>((Included(first), Included(last))).peekable();
        let mut next = Scan::More;
        self.base.scan(space, first, last, &mut |key, value| {
            while let Some((name, value)) = written.next_if(|(name, _)| name.as_slice() < key) {
                if let Some(value) = value
                    && visit(name, &Value::Whole(value))? == Scan::Stop
                {
                    next = Scan::Stop;
                    return Ok(next);
                }
            }
            next = match written.next_if(|(name, _)| name.as_slice() == key) {
                Some((name, Some(value))) => visit(name, &Value::Whole(value))?,
                Some((_, None)) => Scan::More,
                None => visit(key, value)?,
            };
            Ok(next)
        })?;
        for (name, value) in written {
            if next == Scan::Stop {
                break;
            }
            if let Some(value) = value {
                next = visit(name, &Value::Whole(value))?;
            }
        }
        Ok(())
    }

    fn last(&self, space: Space, first: &[u8], last: &[u8]) -> Result<Option<Entry>, StoreError> {
        let Some(over) = self.over.as_ref().filter(|_| first <= last) else {
            return self.base.last(space, first, last);
        };
        let mut upto = last.to_vec();
        loop {
            let below = self.base.last(space, first, &upto)?;
            let written =
                over.writes(space).range::<[u8], _>((Included(first), Included(upto.as_slice()))).next_back();
            match (below, written) {
                (below, None) => return Ok(below),
                (Some((key, value)), Some((name, _))) if key > *name => return Ok(Some((key, value))),
                (_, Some((name, Some(value)))) => return Ok(Some((name.clone(), value.clone()))),
                // Deleted: the next below it.
                (_, Some((name, None))) => match before(name) {
                    Some(name) if name.as_slice() >= first => upto = name,
                    _ => return Ok(None),
                },
            }
        }
    }

    fn unseal(&self, seal: &Seal, bytes: &mut [u8]) -> Result<bool, StoreError> {
        self.base.unseal(seal, bytes)
    }
}

/// The greatest key of the same length below one; keys of one kind have one length.
fn before(key: &[u8]) -> Option<Vec<u8>> {
    let mut key = key.to_vec();
    for byte in key.iter_mut().rev() {
        match byte.checked_sub(1) {
            Some(less) => {
                *byte = less;
                return Some(key);
            }
            None => *byte = u8::MAX,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::*;

    /// A map of each space.
    #[derive(Clone, Default)]
    struct Maps([std::collections::BTreeMap<Vec<u8>, Vec<u8>>; 2]);

    impl Maps {
        fn of(&self, space: Space) -> &std::collections::BTreeMap<Vec<u8>, Vec<u8>> {
            &self.0[usize::from(space == Space::State)]
        }

        fn write(&mut self, layer: &Layer) {
            for (map, writes) in self.0.iter_mut().zip([&layer.bulk, &layer.state]) {
                for (key, value) in writes {
                    match value {
                        Some(value) => map.insert(key.clone(), value.clone()),
                        None => map.remove(key),
                    };
                }
            }
        }
    }

    impl Tables for Maps {
        fn load(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
            Ok(self.of(space).get(key).cloned())
        }

        fn scan(
            &self,
            space: Space,
            first: &[u8],
            last: &[u8],
            visit: &mut Visit<'_>,
        ) -> Result<(), StoreError> {
            for (key, value) in self.of(space).range(first.to_vec()..=last.to_vec()) {
                if visit(key, &Value::Whole(value))? == Scan::Stop {
                    break;
                }
            }
            Ok(())
        }

        fn last(&self, space: Space, first: &[u8], last: &[u8]) -> Result<Option<Entry>, StoreError> {
            let found = self.of(space).range(first.to_vec()..=last.to_vec()).next_back();
            Ok(found.map(|(key, value)| (key.clone(), value.clone())))
        }
    }

    fn rows(tables: &impl Tables, space: Space, first: &[u8], last: &[u8], most: usize) -> Vec<Entry> {
        let mut rows = Vec::new();
        tables
            .scan(space, first, last, &mut |key, value| {
                rows.push((key.to_vec(), value.whole()?.into_owned()));
                Ok(if rows.len() < most { Scan::More } else { Scan::Stop })
            })
            .unwrap();
        rows
    }

    #[test]
    fn a_group_on_its_way_looks_as_it_will_when_it_has_arrived() {
        for seed in 0..50 {
            let mut chance = StdRng::seed_from_u64(seed);
            let mut key = || vec![0, chance.random_range(0..3u8), chance.random_range(0..40u8)];
            let mut base = Maps::default();
            let mut layer = Layer { bulk: Writes::new(), state: Writes::new() };
            for n in 0..30u8 {
                base.0[0].insert(key(), vec![n]);
                base.0[1].insert(key(), vec![n]);
                layer.bulk.insert(key(), (n % 2 == 0).then(|| vec![n, n]));
                layer.state.insert(key(), (n % 3 == 0).then(|| vec![n, n]));
            }
            let mut after = base.clone();
            after.write(&layer);
            let over = Arc::new(layer);
            // Before the engine has the group, and after.
            for base in [base, after.clone()] {
                let layered = Layered::new(base, Some(Arc::clone(&over)));
                for space in [Space::Bulk, Space::State] {
                    for _ in 0..40 {
                        let (one, other) = (key(), key());
                        let (first, last) = (one.clone().min(other.clone()), one.clone().max(other));
                        assert_eq!(layered.load(space, &one), after.load(space, &one), "seed {seed}");
                        assert_eq!(layered.last(space, &first, &last), after.last(space, &first, &last));
                        for most in [1, 3, usize::MAX] {
                            assert_eq!(
                                rows(&layered, space, &first, &last, most),
                                rows(&after, space, &first, &last, most),
                                "seed {seed}"
                            );
                        }
                    }
                }
            }
        }
    }
}
