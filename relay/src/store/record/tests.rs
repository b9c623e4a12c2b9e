//! Records round trip, and the clock of retention.

use super::*;

#[test]
fn mailbox_records_round_trip_and_refuse_every_other_length() {
    for access in [None, Some(PublicKey::from_bytes([7; 32]))] {
        let mailbox = Mailbox {
            keys: MailboxKeys {
                admin: PublicKey::from_bytes([1; 32]),
                read: PublicKey::from_bytes([2; 32]),
                write: PublicKey::from_bytes([3; 32]),
            },
            kind: MailboxKind::Log,
            sink: true,
            born: Born(4),
            head: Seq::new(5),
            newest: Seq::new(6),
            hash: RunningHash::from_bytes([8; 32]),
            bytes: 9,
            reserved: 10,
            taken: 12,
            access,
            slot: Slot(11),
        };
        let (fixed, moving) = (mailbox.encode_fixed(), mailbox.encode_moving());
        assert_eq!(Mailbox::decode(&fixed, &moving).unwrap(), mailbox);
        assert_eq!(Mailbox::born_in(&fixed), Ok(mailbox.born));
        for cut in 0..fixed.len() {
            assert_eq!(Mailbox::decode(&fixed[..cut], &moving), Err(StoreError::Damaged));
        }
        // Formats before 8 end before the last number.
        let before = Mailbox { taken: 0, ..mailbox.clone() };
        assert_eq!(Mailbox::decode(&fixed, &moving[..64]), Ok(before));
        for cut in (0..moving.len()).filter(|cut| *cut != 64) {
            assert_eq!(Mailbox::decode(&fixed, &moving[..cut]), Err(StoreError::Damaged));
        }
        let long = [&fixed[..], &[0]].concat();
        assert_eq!(Mailbox::decode(&long, &moving), Err(StoreError::Damaged));
    }
}

#[test]
fn a_jumping_clock_expires_little() {
    let day = Duration::from_millis(DAY_MS);
    let start = Timestamp::from_millis(1_000 * DAY_MS);
    let clock = RetentionClock::start(start);
    assert_eq!(clock.tick(start.plus(day)).day(), Day(2));
    assert_eq!(clock.tick(start.plus(day * 4000)).day(), Day(1 + MAX_TICK_DAYS));
    let back = clock.tick(start.minus(day * 900));
    assert_eq!(back.day(), Day(1));
    assert_eq!(back.tick(start).day(), Day(1), "it was only wrong for a while");
    // One that ran ahead and was set right is believed after some days.
    let mut clock = clock.tick(start.plus(day * 900));
    let before = clock.day();
    for _ in 0..=MAX_BEHIND {
        clock = clock.tick(start);
    }
    assert_eq!(clock.day(), before);
    assert_eq!(clock.tick(start.plus(day)).day(), Day(before.value() + 1));
}

/// A board that stands in 1970 at each start and is started again before it has come further than it was.
#[test]
fn a_clock_that_never_comes_further_keeps_things_longer_and_not_for_ever() {
    let hour = |hour: u64| Timestamp::from_millis(hour * 3_600_000);
    let mut clock = RetentionClock::start(hour(0));
    for _ in 0..1000 {
        for looks in 0..30 {
            clock = clock.tick(hour(looks));
        }
    }
    let days = clock.day().value();
    assert!((100..=1250).contains(&days), "{days} days in 1,250");
}

#[test]
fn retention_rounds_up() {
    assert_eq!(Day(40).minus(Duration::from_secs(1)), Day(39));
    assert_eq!(Day(40).minus(Duration::from_secs(30 * 24 * 3600)), Day(10));
    assert_eq!(Day(4).minus(Duration::MAX), Day(0));
}
