//! The second half of erasing: keys of bodies that a commit has doomed are destroyed.
//!
//! The table of keys is no part of the database, so no commit covers both. A doomed key is therefore a record first
//! (ERA-01), and its destruction follows; whatever a crash left is found by the next session.

use super::{
    base::{Base, BodyKeyName, StoreError},
    rows::DoomedKeyRow,
    unit::Unit,
};

/// Destroys the keys that committed records doom. What they sealed is unreadable when this returns.
///
/// # Errors
/// [`StoreError`]; it can be repeated.
pub fn destroy_doomed_keys(base: &dyn Base) -> Result<(), StoreError> {
    let mut unit = Unit::new(base);
    let names: Vec<BodyKeyName> =
        unit.scan::<DoomedKeyRow>(&[])?.into_iter().map(|(name, DoomedKeyRow {})| name).collect();
    if names.is_empty() {
        return Ok(());
    }
    base.destroy_body_keys(&names)?;
    for name in &names {
        unit.delete::<DoomedKeyRow>(name);
    }
    base.commit(unit.into_changes())
}

#[cfg(test)]
mod tests {
    use super::{super::MemoryBase, *};

    #[test]
    fn doomed_keys_die_once_and_others_stay() {
        let base = MemoryBase::default();
        for name in [[1; 16], [2; 16]] {
            base.make_body_key(&name).unwrap();
        }
        let mut unit = Unit::new(&base);
        unit.put(&[1; 16], &DoomedKeyRow {});
        // One that a crashed try had destroyed before its record went.
        unit.put(&[3; 16], &DoomedKeyRow {});
        base.commit(unit.into_changes()).unwrap();
        destroy_doomed_keys(&base).unwrap();
        assert!(base.body_key(&[1; 16]).unwrap().is_none());
        assert!(base.body_key(&[2; 16]).unwrap().is_some());
        assert!(Unit::new(&base).scan::<DoomedKeyRow>(&[]).unwrap().is_empty());
        destroy_doomed_keys(&base).unwrap();
    }
}
