//! The largest file that may be sent, on real programs: cut off on its way there and back, and one byte more.

#![expect(clippy::expect_used, reason = "scenario tests")]

use std::{fs, path::Path, time::Duration};

use lapwing_protocol::attachment::{CHUNK, MAX_FILE};
use lapwing_tests::scenario::{
    Outcome, Pair, Relay, Running,
    wait::{timed, until},
};
use lapwing_wire::limits::MAX_BLOB;
use serde_json::json;

/// What a build without optimisation may take for the largest file on a busy machine.
const LONG: Duration = Duration::from_secs(900);

/// Bytes after which the relay is killed: some third.
const CUT: u64 = 32 << 20;

/// Bytes that do not repeat, one more than the largest file has.
fn content() -> Vec<u8> {
    let word = |at: u64| {
        let mixed = (at ^ 0x1a9).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ (mixed >> 29)
    };
    let mut bytes: Vec<u8> = (0..=MAX_FILE / 8).flat_map(|at| word(at).to_le_bytes()).collect();
    bytes.truncate(usize::try_from(MAX_FILE).expect("it fits into memory") + 1);
    bytes
}

fn stored(relay: &Relay) -> u64 {
    relay.status()["blob_bytes"].as_u64().unwrap_or(0)
}

fn ends(running: Running) -> Outcome {
    running.end_within(LONG)
}

/// Bytes that a process wrote to files and pipes.
fn written(process: u32) -> u64 {
    let counts = fs::read_to_string(format!("/proc/{process}/io")).unwrap_or_default();
    let line = counts.lines().find_map(|line| line.strip_prefix("wchar: "));
    line.map_or(0, |count| count.parse().expect("a number"))
}

#[test]
#[ignore = "a hundred megabytes three times over: a minute or two without optimisation"]
fn the_largest_file_goes_on_where_the_relay_was_killed_and_a_byte_more_is_refused() {
    let Pair { mut relay, ana, bo, folder } = Pair::meet();
    // What two people who met keep at their relay.
    let others = stored(&relay);
    let mut bytes = content();
    let above = folder.put("above", &bytes);
    bytes.pop();
    let film = folder.put("film", &bytes);
    let is_whole = |path: &Path| fs::read(path).is_ok_and(|came| came == bytes);
    let send = |path: &Path| {
        ["send", "bo", "--attach", &path.display().to_string(), "--keep-metadata"].map(str::to_owned)
    };

    // Refused before anything is asked or kept: the vault does not even have to open.
    let refused = ends(ana.typing("not the passphrase").starts(&send(&above).each_ref().map(String::as_str)));
    assert_eq!(refused.failed(5), "too_large");
    assert!(
        refused.stdout.contains("nothing was sent") && refused.stdout.contains("99.9 MiB"),
        "{refused:?}"
    );
    let refused = ends(ana.starts(&send(&above).each_ref().map(String::as_str)));
    assert_eq!(refused.failed(5), "too_large");
    assert_eq!(stored(&relay), others);
    assert_eq!(ana.runs(&["read", "bo"]).done().of("message").len(), 0);

    // The relay dies at a third, and comes back; what it has answered is not sent again.
    let words = send(&film);
    let sending = ana.starts(&words.each_ref().map(String::as_str));
    assert!(until(LONG, || stored(&relay) > others + CUT));
    relay.kill();
    let kept = ends(sending).done().one("sent");
    assert_eq!(kept["state"], "waiting", "{kept}");
    let (restart, ()) = timed(|| relay.serve());
    let before = stored(&relay) - others;
    assert!((CUT..MAX_BLOB).contains(&before), "{before}");
    let (rest, _) = timed(|| ends(ana.starts(&["sync"])).done());
    assert_eq!(stored(&relay) - others, MAX_BLOB, "the largest blob there is");
    let message = ana.runs(&["read", "bo", "--last", "1"]).done().one("message");
    assert_eq!((&message["state"], &message["file"]["bytes"]), (&json!("sent"), &json!(MAX_FILE)));

    // It dies under the reader, too, and is back before he notices: he goes on where he was.
    let message = bo.runs(&["read", "ana", "--last", "1"]).done().one("message");
    let number = message["order"].to_string();
    let out = folder.join("came");
    let to = out.display().to_string();
    let fetching = bo.starts(&["chat", "fetch", "ana", &number, "--out", &to]);
    assert!(until(LONG, || written(fetching.id()) > CUT));
    relay.kill();
    relay.serve();
    assert!(!out.exists(), "while it is not whole it has no name");
    let (late, fetched) = timed(|| ends(fetching).done().one("fetched"));
    assert_eq!(fetched["bytes"], MAX_FILE);
    assert!(is_whole(&out));

    // Both ways without a cut, for the figures.
    let (there, _) = timed(|| ends(ana.starts(&words.each_ref().map(String::as_str))).done());
    let number = bo.runs(&["read", "ana", "--last", "1"]).done().one("message")["order"].to_string();
    let again = folder.join("again").display().to_string();
    let (back, _) = timed(|| ends(bo.starts(&["chat", "fetch", "ana", &number, "--out", &again])).done());
    assert!(is_whole(again.as_ref()));
    println!(
        "{MAX_FILE} bytes in {} parts: {there:.1?} to send, {back:.1?} to fetch, unlocking included; after a kill at {before} \
         bytes the relay was back in {restart:.2?} and the rest took {rest:.1?}; a reader under whom it was killed had the rest {late:.1?} \
         later",
        MAX_BLOB / CHUNK as u64
    );
}
