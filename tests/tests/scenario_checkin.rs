//! Check-ins from the command line: begun, given, missed by a relay that is away, ended.

use lapwing_tests::scenario::Pair;
use serde_json::{Value, json};

#[test]
fn a_check_in_is_begun_given_and_ended_and_says_when_a_relay_did_not_hear_it() {
    let Pair { mut relay, ana, bo, folder: _folder } = Pair::meet();
    let start = ["checkin", "start", "--every", "12h", "--text", "bo is silent", "--yes"];
    assert_eq!(bo.runs(&start).failed(5), "refused", "nobody to alert");
    let _ = bo.runs(&["trust", "add", "ana"]).done();
    let _ = ana.runs(&["trust", "accept", "bo"]).done();
    let short = ["checkin", "start", "--every", "9m", "--alert", "ana", "--text", "bo is silent", "--yes"];
    assert_eq!(bo.runs(&short).failed(5), "refused", "too short");
    let checkins = |words: &[&str]| bo.runs(words).done().one("checkins")["checkins"].clone();
    let begun = checkins(&[&start[..], &["--alert", "ana"]].concat());
    assert_eq!((&begun[0]["every_s"], &begun[0]["alerts"]), (&json!(43_200), &json!(["ana"])));
    assert_eq!(begun[0]["state"], json!("running"));
    let given = checkins(&["checkin", "now"]);
    let at = |seen: &Value| seen[0]["next"].as_str().unwrap().to_owned();
    assert!(at(&given) > at(&begun), "{given} after {begun}");

    relay.kill();
    bo.runs(&["checkin", "now"]).failed(4);
    let status = checkins(&["--offline", "checkin", "status"]);
    assert_eq!(status, given, "what nobody heard does not count");
    bo.runs(&["checkin", "stop"]).failed(4);
    relay.serve();
    let _ = bo.runs(&["sync"]).done();
    assert_eq!(checkins(&["checkin", "status"]), json!([]));
    assert_eq!(bo.runs(&["checkin", "now"]).failed(5), "refused", "none");
    assert!(ana.runs(&["alert", "list"]).done().of("alert").is_empty());
}
