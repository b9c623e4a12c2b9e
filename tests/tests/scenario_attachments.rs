//! Files with the real programs: a photograph, a cut in the middle on either side, and what is refused.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use lapwing_tests::scenario::{Pair, Person, wait::until};
use serde_json::{Value, json};

/// What a telephone notes about its owner.
const PLACE: &[u8] = b"GPS 53.9045 N 27.5615 E, Ann's phone";

/// A JPEG that a decoder can walk, with the place in its EXIF, as a comment, and behind its end.
#[expect(clippy::expect_used, reason = "a picture of this test is short")]
fn photograph() -> Vec<u8> {
    let segment = |marker: u8, contents: &[u8]| {
        let length = u16::try_from(contents.len() + 2).expect("a short segment");
        [&[0xff, marker][..], &length.to_be_bytes(), contents].concat()
    };
    [
        vec![0xff, 0xd8],
        segment(0xe1, &[b"Exif\0\0MM\0*\0\0\0\x08\0\0", PLACE].concat()),
        segment(0xfe, PLACE),
        segment(0xdb, &[1; 65]),
        segment(0xc0, &[8, 0, 8, 0, 8, 1, 1, 0x11, 0]),
        segment(0xc4, &[0; 17]),
        segment(0xda, &[1, 1, 0, 0, 63, 0]),
        vec![0x5a; 3000],
        vec![0xff, 0xd9],
        PLACE.to_vec(),
    ]
    .concat()
}

fn holds(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|part| part == needle)
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// The last message of a chat.
#[expect(clippy::expect_used, reason = "a test fails where there is none")]
fn last(person: &Person, chat: &str) -> Value {
    person.runs(&["read", chat, "--last", "1"]).done().of("message").pop().expect("a message")
}

#[test]
fn a_photograph_loses_its_place_and_arrives_and_what_is_wrong_is_told() {
    let Pair { relay, ana, bo, folder } = Pair::meet();
    let photo = folder.put("IMG_Minsk_march.JPG", &photograph());
    let sent =
        ana.pipes(b"who is this?\n", &["send", "bo", "-", "--attach", &text(&photo)]).done().one("sent");
    let file = &sent["files"][0];
    assert_eq!((&sent["state"], &file["name"]), (&json!("sent"), &json!("file.jpg")), "{sent}");
    assert!(file["left_out"].as_u64().is_some_and(|left| left > 2 * 36), "{sent}");

    let message = last(&bo, "ana");
    assert_eq!(message["text"], "who is this?");
    assert_eq!((&message["file"]["name"], &message["file"]["fetched"]), (&json!("file.jpg"), &json!(false)));
    assert_eq!(message["file"]["media_type"], "image/jpeg");
    let number = message["order"].to_string();
    let out = folder.join("out");
    fs::create_dir(&out).expect("a folder");
    let fetched = bo.runs(&["chat", "fetch", "ana", &number, "--out", &text(&out)]).done().one("fetched");
    let path = out.join("file.jpg");
    assert_eq!(fetched["path"], text(&path));
    let came = fs::read(&path).expect("the picture");
    assert!(holds(&photograph(), PLACE) && !holds(&came, b"53.9045") && !holds(&came, b"Exif"));
    assert!(holds(&came, &[0x5a; 3000]) && came.ends_with(&[0xff, 0xd9]));
    assert_eq!(fs::metadata(&path).expect("the picture").permissions().mode() & 0o777, 0o600);
    assert_eq!(last(&bo, "ana")["file"]["fetched"], true);

    // Nothing is overwritten; what is not there is told; nothing is left by what failed.
    let again = bo.runs(&["chat", "fetch", "ana", &number, "--out", &text(&out)]);
    assert_eq!(again.failed(5), "exists");
    assert_eq!(fs::read(&path).ok(), Some(came));
    assert_eq!(bo.runs(&["chat", "fetch", "ana", "77"]).failed(1), "unknown_message");
    let nowhere = bo.runs(&["chat", "fetch", "ana", &number, "--out", "/nowhere/at/all"]);
    assert_eq!(nowhere.failed(5), "refused");
    let document = folder.put("plan.pdf", b"%PDF-1.7 /Author (Ann)");
    for (words, code) in [
        (["send", "bo", "--attach", &text(&document)], "keeps_metadata"),
        (["send", "bo", "--attach", &text(&folder.join("none"))], "refused"),
        (["send", "bo", "--attach", &text(&out)], "refused"),
        (["send", "bo", "--attach", "/dev/zero"], "refused"),
    ] {
        assert_eq!(ana.runs(&words).failed(5), code, "{words:?}");
    }
    assert_eq!(ana.runs(&["send", "bo", "--attach", "-"]).failed(2), "usage");
    let whole =
        ["send", "bo", "--attach", &text(&document), "--keep-metadata", "--name", "../../plan\u{7}.pdf"];
    assert_eq!(ana.runs(&whole).done().one("sent")["files"][0]["name"], "plan.pdf");

    // The relay has neither name nor content.
    let mut relay = relay;
    let _ = relay.stop();
    let mut folders = vec![folder.join("relay")];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).expect("the relay's folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = fs::read(&path).expect("a file of the relay");
            for needle in [b"file.jpg".as_slice(), b"plan.pdf", &[0x5a; 64], b"/Author (Ann)"] {
                assert!(!holds(&bytes, needle), "{}", path.display());
            }
        }
    }
    // Without it a file waits, and says so.
    let waiting = ana.runs(&["send", "bo", "--attach", &text(&photo)]).done().one("sent");
    assert_eq!(waiting["state"], "waiting");
    assert_eq!(
        bo.runs(&["chat", "fetch", "ana", &number, "--out", &text(&folder.join("new"))]).code,
        Some(4)
    );
    assert!(!folder.join("new").exists());
}

#[test]
fn a_file_goes_on_where_client_or_relay_was_killed_and_arrives_once() {
    let Pair { mut relay, ana, bo, folder } = Pair::meet();
    let content: Vec<u8> = (0..24_000_000u32).map(|at| at.to_le_bytes()[at as usize % 3]).collect();
    let path = folder.put("film", &content);
    let words = ["send", "bo", "--attach", &text(&path), "--keep-metadata"];
    let mut sending = ana.starts(&words);
    let stored = |relay: &lapwing_tests::scenario::Relay| relay.status()["blob_bytes"].as_u64().unwrap_or(0);
    assert!(until(Duration::from_secs(60), || stored(&relay) > 2 << 20));
    sending.kill();
    drop(sending);
    let message = last(&ana, "bo");
    assert_eq!(message["state"], "waiting", "{message}");
    assert!(message["file"]["percent"].as_u64().is_some_and(|percent| percent < 100), "{message}");

    // The relay is killed under the next try, and comes back.
    let begun = stored(&relay);
    let syncing = ana.starts(&["sync"]);
    assert!(until(Duration::from_secs(60), || stored(&relay) > begun + (1 << 20)));
    relay.kill();
    let _ = syncing.end();
    relay.serve();
    assert!(stored(&relay) > begun, "what it had acknowledged is there");
    let _ = ana.runs(&["sync"]).done();
    assert_eq!(last(&ana, "bo")["state"], "sent");
    let came = bo.runs(&["read", "ana", "--last", "20"]).done().of("message");
    assert_eq!(came.iter().filter(|message| !message["file"].is_null()).count(), 1, "{came:?}");

    // A reader who is killed leaves nothing; then it comes whole.
    let number = last(&bo, "ana")["order"].to_string();
    let out = folder.join("out");
    fs::create_dir(&out).expect("a folder");
    let fetch = ["chat", "fetch", "ana", &number, "--out", &text(&out)];
    let mut fetching = bo.starts(&fetch);
    // While it runs the file has no name.
    let named = || fs::read_dir(&out).expect("the folder").count();
    std::thread::sleep(Duration::from_millis(1500));
    let finished = !fetching.is_running();
    fetching.kill();
    drop(fetching);
    if !finished {
        assert!(named() == 0 || fs::read(out.join("file")).ok().as_ref() == Some(&content));
    }
    if named() == 0 {
        let _ = bo.runs(&fetch).done();
    }
    assert!(fs::read(out.join("file")).is_ok_and(|came| came == content));
    assert_eq!(named(), 1);
}
