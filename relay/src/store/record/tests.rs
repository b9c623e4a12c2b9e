//! Records round trip, and the clock of retention.

use super::*;

#[test]
fn mailbox_records_round_trip_and_refuse_every_other_length() {
    for (access, beyond) in [(None, 0), (Some(PublicKey::from_bytes([7; 32])), 12)] {
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
            beyond,
            access,
            slot: Slot(11),
        };
        let (fixed, moving) = (mailbox.encode_fixed(), mailbox.encode_moving());
        assert_eq!(Mailbox::decode(&fixed, &moving).unwrap(), mailbox);
        assert_eq!(Mailbox::born_in(&fixed), Ok(mailbox.born));
        for cut in 0..fixed.len() {
            assert_eq!(Mailbox::decode(&fixed[..cut], &moving), Err(StoreError::Damaged));
        }
        let without = moving.len() - if beyond > 0 { 4 } else { 0 };
        let earlier = Mailbox::decode(&fixed, &moving[..without]).unwrap();
        assert_eq!(
            earlier,
            Mailbox { beyond: 0, ..mailbox },
            "as it was written before there was such a number"
        );
        for cut in (0..moving.len()).filter(|cut| *cut != without) {
            assert_eq!(Mailbox::decode(&fixed, &moving[..cut]), Err(StoreError::Damaged));
        }
        assert_eq!(Mailbox::decode(&fixed, &[&moving[..], &[0]].concat()), Err(StoreError::Damaged));
        let long = [&fixed[..], &[0]].concat();
        assert_eq!(Mailbox::decode(&long, &moving), Err(StoreError::Damaged));
    }
}

#[test]
fn a_ticket_that_was_written_before_places_were_counted_is_read() {
    #[derive(Serialize)]
    struct Earlier {
        key: PublicKey<Access>,
        quota_bytes: u64,
        quota_mailboxes: u64,
        expires: Option<Timestamp>,
        revoked: bool,
        used_bytes: u64,
        used_mailboxes: u64,
    }
    let key = PublicKey::from_bytes([1; 32]);
    let mut ticket = Ticket { used_bytes: 5, used_mailboxes: 1, ..Ticket::new(key, 9, 2, None) };
    let Ticket { quota_bytes, quota_mailboxes, expires, revoked, used_bytes, used_mailboxes, .. } = ticket;
    let earlier = Earlier { key, quota_bytes, quota_mailboxes, expires, revoked, used_bytes, used_mailboxes };
    assert_eq!(decode::<Ticket>(&codec::encode(&earlier)).unwrap(), ticket);
    assert_eq!(codec::encode(&earlier), codec::encode(&ticket), "nothing is added while there is nothing");
    ticket.remembered.count(Day(3));
    assert_eq!(decode::<Ticket>(&codec::encode(&ticket)).unwrap(), ticket);
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

#[test]
fn retention_rounds_up() {
    assert_eq!(Day(40).minus(Duration::from_secs(1)), Day(39));
    assert_eq!(Day(40).minus(Duration::from_secs(30 * 24 * 3600)), Day(10));
    assert_eq!(Day(4).minus(Duration::MAX), Day(0));
}
