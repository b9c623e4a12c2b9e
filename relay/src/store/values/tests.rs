use std::ops::Range;

use super::{super::tables::Space, *};

struct Log {
    dir: tempfile::TempDir,
    log: ValueLog,
}

/// What the rows of a replay say, and their serials.
type Seen = Vec<(u64, Vec<u8>)>;

impl Log {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = ValueLog::create(dir.path(), 4096).unwrap();
        Self { dir, log }
    }

    fn write(&self, numbers: Range<u8>) -> Vec<Body> {
        numbers
            .map(|number| {
                let mut draft = self.log.draft().unwrap();
                let body = draft.body(&[number; 1000]).unwrap();
                draft.row(Row { space: Space::Bulk, key: &[number], value: Some(&[number; 40]) }).unwrap();
                self.log.write(&self.log.finish(draft).unwrap()).unwrap();
                body
            })
            .collect()
    }

    fn again(self) -> (Self, Result<Seen, StoreError>) {
        let Self { dir, log } = self;
        drop(log);
        let log = ValueLog::open(dir.path(), 4096).unwrap();
        let mut seen = Seen::new();
        let done = log.replay(&mut |rows, serial| {
            for row in rows.iter() {
                seen.push((serial, row?.key.to_vec()));
            }
            Ok(())
        });
        (Self { dir, log }, done.map(|()| seen))
    }

    fn segment(&self, number: u32) -> PathBuf {
        path_of(&folder_in(self.dir.path()), number)
    }

    fn bytes(&self, number: u32) -> Vec<u8> {
        std::fs::read(self.segment(number)).unwrap()
    }

    #[expect(clippy::disallowed_methods, reason = "damages a file of a test")]
    fn set_bytes(&self, number: u32, bytes: &[u8]) {
        std::fs::write(self.segment(number), bytes).unwrap();
    }
}

fn seen(serials: Range<u8>) -> Seen {
    serials.map(|serial| (u64::from(serial) + 1, vec![serial])).collect()
}

#[test]
fn what_was_written_is_shown_again_from_the_checkpoint_on_and_bodies_are_read() {
    let log = Log::new();
    let bodies = log.write(0..20);
    assert!(log.log.files().len() > 3, "several segments");
    let (log, again) = log.again();
    assert_eq!(again, Ok(seen(0..20)));
    for (number, body) in (0..).zip(&bodies) {
        let value = log.log.read(&Files::new(), *body, vec![1]).unwrap();
        assert_eq!(value, [&[1][..], &[number; 1000]].concat());
    }
    log.log.checkpoint(log.log.end()).unwrap();
    let (log, again) = log.again();
    assert_eq!(again, Ok(Vec::new()));
    log.write(20..23);
    let (_, again) = log.again();
    assert_eq!(again, Ok(seen(20..23)));
}

#[test]
fn a_torn_end_is_cut_off_wherever_it_is_torn() {
    for cut in [1, 31, 32, 500, 1031, 1050] {
        for is_zeroed in [false, true] {
            let log = Log::new();
            log.write(0..6);
            let last = log.log.end().place;
            let mut bytes = log.bytes(last.segment);
            let end = bytes.len() - cut;
            if is_zeroed {
                bytes[end..].fill(0);
            } else {
                bytes.truncate(end);
            }
            log.set_bytes(last.segment, &bytes);
            let (log, again) = log.again();
            assert_eq!(again, Ok(seen(0..5)), "{cut}");
            log.log.checkpoint_and_forget(log.log.end()).unwrap();
            // The serial comes again, under another key.
            log.write(5..8);
            let (_, again) = log.again();
            assert_eq!(again, Ok(seen(5..8)), "{cut}");
        }
    }
}

#[test]
fn what_is_damaged_before_the_end_is_told_and_nothing_is_cut() {
    let log = Log::new();
    let bodies = log.write(0..12);
    let last = log.log.end().place.segment;
    // In the segment before the last, and in the last before its last record.
    for number in [last - 1, last] {
        let before = log.bytes(number);
        let mut bytes = before.clone();
        let first = bodies.iter().find(|body| body.place.segment == number).unwrap();
        bytes[usize::try_from(first.place.offset).unwrap() + 7] ^= 1;
        log.set_bytes(number, &bytes);
        let opened = ValueLog::open(log.dir.path(), 4096).unwrap();
        assert_eq!(opened.replay(&mut |_, _| Ok(())), Err(StoreError::Damaged), "{number}");
        assert_eq!(log.bytes(number), bytes);
        assert_eq!(log.log.read(&log.log.files(), *first, Vec::new()), Err(StoreError::Damaged));
        log.set_bytes(number, &before);
    }
    std::fs::remove_file(log.segment(last - 1)).unwrap();
    let opened = ValueLog::open(log.dir.path(), 4096).unwrap();
    assert_eq!(opened.replay(&mut |_, _| Ok(())), Err(StoreError::Damaged));
}

#[test]
fn a_segment_that_was_being_begun_is_begun_again() {
    for left in [0, 10, 31] {
        let log = Log::new();
        log.write(0..4);
        let Place { segment, offset } = log.log.end().place;
        assert_eq!(segment, 1);
        assert!(offset > 4096, "full");
        log.set_bytes(2, &[&MAGIC[..], &[0; 23]].concat()[..left]);
        let (log, again) = log.again();
        assert_eq!(again, Ok(seen(0..4)));
        log.log.checkpoint(log.log.end()).unwrap();
        log.write(4..6);
        assert_eq!(log.log.end().place.segment, 2);
        let (_, again) = log.again();
        assert_eq!(again, Ok(seen(4..6)));
    }
}

#[test]
fn segments_of_which_nothing_is_needed_go_with_the_checkpoint_and_readers_finish() {
    let log = Log::new();
    let bodies = log.write(0..20);
    let files = log.log.files();
    let last = log.log.end().place.segment;
    log.log.drop_segments(&|_| false).unwrap();
    assert_eq!(log.log.files().len(), files.len(), "the checkpoint is in the first");
    log.log.checkpoint(log.log.end()).unwrap();
    log.log.drop_segments(&|number| number == 2).unwrap();
    let left: Vec<u32> = log.log.files().keys().copied().collect();
    assert_eq!(left, [2, last]);
    assert!(!log.segment(1).exists());
    assert!(log.log.read(&files, bodies[0], Vec::new()).is_ok());
    assert_eq!(log.log.read(&Files::new(), bodies[0], Vec::new()), Err(StoreError::Damaged));
    let (_, again) = log.again();
    assert_eq!(again, Ok(Vec::new()));
}

#[test]
fn a_record_that_was_not_written_stops_the_log() {
    let log = Log::new();
    log.write(0..1);
    let first = log.log.finish(log.log.draft().unwrap()).unwrap();
    log.log.write(&first).unwrap();
    // Put together for the place where the first lies now.
    assert_eq!(log.log.write(&first), Err(StoreError::Disk));
    let next = log.log.finish(log.log.draft().unwrap()).unwrap();
    assert_eq!(log.log.write(&next), Err(StoreError::Disk));
}
