//! The demo, as a newcomer runs it.

use std::process::Command;

use lapwing_tests::scenario::{Folder, Running, programs};

/// Steps of the story that are verified; fewer would mean that a proof got lost.
const STEPS: u64 = 14;

#[test]
fn the_demo_verifies_every_step_and_leaves_nothing_behind() {
    let folder = Folder::new();
    let mut command = Command::new(programs::lapwing());
    command
        .env("TMPDIR", folder.path())
        .arg("--json")
        .arg("demo")
        .arg("--relay")
        .arg(programs::lapwing_relay());
    let shown = Running::spawn(&mut command, "demo".to_owned(), Vec::new())
        .end_within(std::time::Duration::from_secs(200))
        .done();
    let demo = shown.one("demo");
    assert!(demo["steps"].as_u64() >= Some(STEPS), "{demo}");
    for step in [
        "bo's real passphrase opens nothing any more",
        "the alert lies sealed at the relay, armed",
        "but nothing that was sent after the removal",
    ] {
        assert!(shown.stderr.contains(&format!("  ok  {step}")), "{step} in {}", shown.stderr);
    }
    assert_eq!(folder.names(), Vec::<String>::new(), "the demo's folder is gone");
    let name = folder.path().to_str().unwrap_or_default().to_owned();
    let processes =
        Running::spawn(Command::new("ps").args(["-A", "-ww", "-o", "args="]), "ps".to_owned(), Vec::new());
    let left: Vec<String> = processes
        .end()
        .done()
        .stdout
        .lines()
        .filter(|line| line.contains(&name))
        .map(str::to_owned)
        .collect();
    assert_eq!(left, Vec::<String>::new(), "no process is left");
}
