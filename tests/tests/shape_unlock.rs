//! Every passphrase that opens something is opened in one way: the real program under the tracer, call by call.
//!
//! What is compared with what:
//!
//! - **unlocking** itself, up to the first block of a volume: the owner's passphrase, one that hides, one that destroys,
//!   and the only passphrase of an ordinary vault. All of one size and order. One thing is left out: every key that a
//!   session knows lies in guarded memory, and who knows more keys makes more calls for that.
//! - **the whole command**, to its end: the two SOS passphrases and the ordinary vault, which show the same and have
//!   been opened as often. The owner's is left out: it shows more, and who has it sees that anyway.
//! - **packets**: their number and bytes vary with the computer's load; the four must vary alike. With `--offline` all
//!   of them, from the first to the last. Otherwise those until a volume is opened, and that nothing is owed then: what
//!   comes after depends on what is in it.
//!
//! Calls whose number depends on the scheduler (waiting, waking, the allocator's heap) are left out; see
//! [`is_steady`]. Forty rounds in every run of the tests; `LAPWING_ROUNDS=500` for a long run.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io::Write,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use lapwing_tests::{
    examiner::blocks::Geometry,
    scenario::{Folder, Relay},
    trace::{Call, End, Subject, Target, Trace},
};

// Of one length: how much was typed is read from standard input in one piece.
const REAL: &str = "heron orbit velvet candle of bo";
const HIDE: &str = "seven quiet penguins ride north";
const DESTROY: &str = "granny bakes plum cake in april";

/// Rounds in a run of all tests.
const ROUNDS: usize = 40;

/// Difference of two means, in standard errors, that is no chance: one in a million.
const FAR: f64 = 5.0;

/// A relay; `bo`, whose vault has a private compartment, a shown one and two SOS passphrases; `eve`, whose vault is
/// like what bo's covers show.
struct Vaults {
    _relay: Relay,
    bo: Subject,
    bo_image: Vec<u8>,
    eve: Subject,
    eve_image: Vec<u8>,
    _folder: Folder,
}

impl Vaults {
    fn new() -> Self {
        let folder = Folder::new();
        let relay = Relay::start(&folder.join("relay"));
        let cheap = Path::new(env!("CARGO_BIN_EXE_lapwing-cheap"));
        let (bo, eve) =
            (Subject::new(cheap, &folder.join("bo"), REAL), Subject::new(cheap, &folder.join("eve"), REAL));
        bo.does(&["init", "--size", "8MiB"], "");
        bo.does(&["compartment", "rename", "main", "private"], "");
        bo.does(&["relay", "add", &relay.access], "");
        bo.does(&["compartment", "create", "main"], "");
        bo.does(&["relay", "add", &relay.access, "--compartment", "main"], "");
        for (name, action, passphrase) in [("border", "hide", HIDE), ("arrest", "destroy", DESTROY)] {
            let words = ["sos", "add", "--name", name, "--show", "main", "--do", action];
            let words = [&words[..], &["--no-alert", "--yes", "--new-passphrase-fd", "0"]].concat();
            bo.does(&words, &format!("{passphrase}\n"));
        }
        eve.does(&["init", "--size", "8MiB"], "");
        eve.does(&["relay", "add", &relay.access], "");
        // Bo opened it twice more, to set up his plans.
        for _ in 0..2 {
            eve.does(&["status"], "");
        }
        for one in [&bo.typing(HIDE), &eve] {
            one.does(&["invite", "granny"], "");
        }
        let [bo_image, eve_image] = [&bo, &eve].map(|one| std::fs::read(&one.vault).unwrap());
        Self { _relay: relay, bo, bo_image, eve, eve_image, _folder: folder }
    }

    /// A command on a fresh copy of the vault that this class of passphrases opens.
    fn traced(&self, class: &str, words: &[&str]) -> Trace {
        let (subject, image) = match class {
            "real" => (self.bo.clone(), &self.bo_image),
            "hide" => (self.bo.typing(HIDE), &self.bo_image),
            "destroy" => (self.bo.typing(DESTROY), &self.bo_image),
            "ordinary" => (self.eve.clone(), &self.eve_image),
            _ => (self.bo.typing("nothing is opened by this whole"), &self.bo_image),
        };
        put(&subject.vault, image);
        let before = outside(&subject.vault);
        let trace = subject.trace(words).unwrap();
        assert_eq!(outside(&subject.vault), before, "{class}");
        assert!(trace.succeeded() || class == "wrong", "{class}: {}", trace.told());
        trace
    }
}

/// What the file system says of the vault without reading it: place, size, blocks, mode, links, attributes, and what
/// lies in its folder. Its time is "now" after every unlock that opens something.
fn outside(vault: &Path) -> (Vec<u64>, Vec<String>) {
    let meta = vault.metadata().unwrap();
    let numbers = vec![meta.ino(), meta.len(), meta.blocks(), u64::from(meta.mode()), meta.nlink()];
    let mut names: Vec<String> =
        xattr::list(vault).unwrap().map(|name| name.to_string_lossy().into_owned()).collect();
    let folder = std::fs::read_dir(vault.parent().unwrap()).unwrap();
    names.extend(folder.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()));
    names.sort();
    (numbers, names)
}

fn put(path: &PathBuf, bytes: &[u8]) {
    OpenOptions::new().write(true).truncate(true).open(path).unwrap().write_all(bytes).unwrap();
}

/// Calls of which number, order and sizes depend on what the program does and on nothing else.
fn is_steady(call: &Call) -> bool {
    let by_name =
        ["getrandom", "mlock", "munlock", "mprotect", "socket", "bind", "setsockopt", "prctl", "mlockall"];
    call.thread == 0
        && (matches!(call.target, Target::File(_) | Target::Standard(_))
            || by_name.contains(&call.name.as_str()))
}

/// One line per steady call: the vault by a name that all have, offsets in a region from its start.
fn shape(trace: &Trace, vault: &Path, size: u64) -> Vec<String> {
    let geometry = Geometry::of(size).unwrap();
    let line = |call: &Call| {
        let mut call = call.clone();
        // What stands beside a vault is named after it.
        let beside =
            call.file().and_then(|file| file.to_str()?.strip_prefix(vault.to_str()?).map(str::to_owned));
        if let Some(ending) = beside.filter(|ending| !ending.is_empty()) {
            call.target = Target::File(format!("vault{ending}").into());
        }
        if call.file().is_some_and(|file| file == vault) {
            call.target = Target::File("vault".into());
            if let Some((_, start)) = call.offset.and_then(|offset| geometry.region_of(offset)) {
                // The units of all four regions are read one after the other, whatever opens.
                let at_start = call.length == Some(16_384);
                let region = if at_start { "each region".to_owned() } else { "its region".to_owned() };
                call.offset = call.offset.map(|offset| offset - start);
                return format!("{call} of {region}");
            }
        }
        call.to_string()
    };
    trace.calls.iter().filter(|call| is_steady(call)).map(line).collect()
}

/// Up to the first block of a volume, its key table; without the guarding of memory, of which each known key needs some.
fn unlocking(shape: &[String]) -> Vec<String> {
    let guards = |line: &&String| {
        !["0 mprotect", "0 mlock len", "0 munlock"].iter().any(|call| line.starts_with(call))
    };
    shape.iter().take_while(|line| !line.contains("its region")).filter(guards).cloned().collect()
}

/// Whether a packet was sent or received.
fn is_packet(call: &Call) -> bool {
    call.target == Target::Socket
        && call.result >= 0
        && (call.name.starts_with("send") || call.name.starts_with("recv"))
}

/// What is counted of packets.
const COUNTED: [&str; 4] = ["packets sent", "bytes sent", "packets received", "bytes received"];

/// Sent and received: packets, bytes; see [`COUNTED`].
fn packets(calls: &[Call]) -> [f64; 4] {
    let of = |prefix: &str| {
        let calls = calls.iter().filter(|call| is_packet(call) && call.name.starts_with(prefix));
        let lengths: Vec<u32> = calls.filter_map(|call| u32::try_from(call.length?).ok()).collect();
        (f64::from(u32::try_from(lengths.len()).unwrap()), f64::from(lengths.iter().sum::<u32>()))
    };
    let ((sent, sent_bytes), (received, received_bytes)) = (of("send"), of("recv"));
    [sent, sent_bytes, received, received_bytes]
}

/// Calls up to the first block of a volume.
fn before_volumes<'a>(trace: &'a Trace, vault: &Path, size: u64) -> &'a [Call] {
    let geometry = Geometry::of(size).unwrap();
    let opens = |call: &Call| {
        call.file().is_some_and(|file| file == vault)
            && call.length != Some(16_384)
            && call.offset.is_some_and(|offset| geometry.region_of(offset).is_some())
    };
    let end = trace.calls.iter().position(opens).unwrap();
    &trace.calls[..end]
}

/// By class, one row of [`COUNTED`] for each run of a command.
type Rows<'a> = BTreeMap<&'a str, Vec<[f64; 4]>>;

fn column(rows: &[[f64; 4]], number: usize) -> Vec<f64> {
    rows.iter().map(|row| row[number]).collect()
}

/// Every class varies as every other one does.
fn must_vary_alike(what: &str, rows: &Rows<'_>) {
    let mut far = false;
    let mut told = String::new();
    for (number, counted) in COUNTED.iter().enumerate() {
        for (class, of_class) in rows {
            let values = column(of_class, number);
            let distances = rows.values().map(|other| distance(&column(other, number), &values));
            let furthest = distances.fold(0.0, f64::max);
            far |= furthest >= FAR;
            let mut spread: BTreeMap<u64, usize> = BTreeMap::new();
            for value in &values {
                *spread.entry(value.to_bits()).or_default() += 1;
            }
            // Counts are not negative: their bits are in their order.
            let spread: Vec<String> =
                spread.iter().map(|(bits, times)| format!("{}: {times}", f64::from_bits(*bits))).collect();
            let (mean, count) = (values.iter().sum::<f64>(), f64::from(u32::try_from(values.len()).unwrap()));
            told += &format!(
                "{what}, {counted}, {class}: mean {:.2}, at most {furthest:.2} standard errors from another; {}\n",
                mean / count,
                spread.join(", ")
            );
        }
    }
    #[expect(clippy::print_stderr, reason = "the figures of a long run are for whoever started it")]
    {
        eprintln!("{told}");
    }
    assert!(!far, "more than {FAR} standard errors apart:\n{told}");
}

/// Distance of two means in standard errors.
fn distance(one: &[f64], other: &[f64]) -> f64 {
    let moments = |values: &[f64]| {
        let n = f64::from(u32::try_from(values.len()).unwrap());
        let mean = values.iter().sum::<f64>() / n;
        (mean, values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0) / n)
    };
    let ((one, one_error), (other, other_error)) = (moments(one), moments(other));
    (one - other).abs() / (one_error + other_error).max(1e-9).sqrt()
}

fn must_be_equal(what: &str, (one_name, one): (&str, &[String]), (other_name, other): (&str, &[String])) {
    if one == other {
        return;
    }
    let at =
        one.iter().zip(other).position(|(one, other)| one != other).unwrap_or(one.len().min(other.len()));
    let around = |lines: &[String]| lines[at.saturating_sub(3)..(at + 5).min(lines.len())].join("\n  ");
    panic!(
        "{what}: {one_name} ({} calls) and {other_name} ({}) differ at call {at}:\n  {}\nand\n  {}",
        one.len(),
        other.len(),
        around(one),
        around(other)
    );
}

/// Ten at least: fewer say nothing of how much two unlocks of one kind differ.
fn rounds() -> usize {
    let asked = std::env::var("LAPWING_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    asked.unwrap_or(ROUNDS).max(10)
}

#[test]
fn every_unlock_makes_the_same_system_calls_and_sends_the_same_packets() {
    let vaults = Vaults::new();
    let words = ["compartment", "list", "--offline"];
    let classes = ["real", "hide", "destroy", "ordinary"];
    let mut first: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut sent = Rows::new();
    for _ in 0..rounds() {
        for class in classes {
            let trace = vaults.traced(class, &words);
            let vault = if class == "ordinary" { &vaults.eve.vault } else { &vaults.bo.vault };
            let shape = shape(&trace, vault, vaults.bo_image.len() as u64);
            sent.entry(class).or_default().push(packets(&trace.calls));
            let known = first.entry(class).or_insert_with(|| shape.clone());
            must_be_equal("the same passphrase twice", (class, known), (class, &shape));
        }
    }
    let (real, hide) = (&first["real"], &first["hide"]);
    for (class, shape) in &first {
        must_be_equal("unlocking", ("real", &unlocking(real)), (class, &unlocking(shape)));
        if *class != "real" {
            must_be_equal("the whole command", ("hide", hide), (class, shape));
        }
    }
    // It saw what it was to compare: two writes of the header, each with its sync.
    let header = |lines: &[String]| lines.iter().filter(|line| line.contains("pwrite vault")).count();
    assert_eq!(header(&unlocking(real)), 2);
    assert!(real.len() > hide.len(), "the real one opens more volumes");

    must_vary_alike("offline", &sent);
}

#[test]
fn before_a_volume_is_opened_all_passphrases_send_the_same_and_owe_nothing() {
    let vaults = Vaults::new();
    let words = ["status"];
    let rounds = rounds().div_ceil(2);
    let mut first = Rows::new();
    let mut rested = 0;
    for _ in 0..rounds {
        for class in ["real", "hide", "destroy", "ordinary"] {
            let trace = vaults.traced(class, &words);
            let vault = if class == "ordinary" { &vaults.eve.vault } else { &vaults.bo.vault };
            let before = before_volumes(&trace, vault, vaults.bo_image.len() as u64);
            let last = before.iter().rfind(|call| is_packet(call)).unwrap();
            rested += usize::from(last.name.starts_with("send"));
            first.entry(class).or_default().push(packets(before));
        }
    }
    must_vary_alike("until a volume is opened", &first);
    // The last packet is the acknowledgement of what came, which else leaves with what follows, or before it.
    assert!(rested * 10 > rounds * 4 * 8, "{rested} of {}", rounds * 4);

    // A control that must be caught: whoever asks the relay for messages, and who does not.
    let of = |words: &[&str]| {
        let mut packets = |_| packets(&vaults.traced("hide", words).calls)[0];
        (0..24).map(&mut packets).collect::<Vec<f64>>()
    };
    let (more, less) = (of(&words), of(&["status", "--offline"]));
    assert!(distance(&more, &less) > FAR, "{more:?} and {less:?}");
}

#[test]
fn a_wrong_passphrase_makes_the_same_calls_every_time_and_writes_nothing() {
    let vaults = Vaults::new();
    let words = ["compartment", "list", "--offline"];
    let right = shape(&vaults.traced("real", &words), &vaults.bo.vault, vaults.bo_image.len() as u64);
    let mut first: Option<Vec<String>> = None;
    for _ in 0..rounds().div_ceil(5) {
        let trace = vaults.traced("wrong", &words);
        assert_eq!(trace.end, End::Exited(3), "{}", trace.told());
        assert_eq!((trace.changes().count(), trace.writes.len()), (0, 0));
        assert_eq!(packets(&trace.calls), [0.0; 4], "nothing is sent either");
        let shape = shape(&trace, &vaults.bo.vault, vaults.bo_image.len() as u64);
        let known = first.get_or_insert_with(|| shape.clone());
        must_be_equal("a wrong passphrase twice", ("one", known), ("the next", &shape));
    }
    // Up to the answer it is what a right one does: the derivation, the reads of the header.
    let wrong = first.unwrap();
    let reads = |lines: &[String]| {
        let vault = lines.iter().filter(|line| line.contains("pread vault"));
        vault.take(3).cloned().collect::<Vec<_>>()
    };
    assert_eq!(reads(&wrong), reads(&right));
    assert_eq!(wrong.iter().filter(|line| line.contains("pread vault")).count(), 3);
}
