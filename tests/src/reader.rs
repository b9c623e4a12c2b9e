//! The independent reader in Python (`tests/reader`): what a stranger can open with the documents alone.
//!
//! It needs `python3` with `venv` and, on first use, the package index. A machine without Python fails these tests; who
//! wants to leave them out has to say so: `LAPWING_WITHOUT_PYTHON=1`.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

/// Set to `1`, the tests that need Python are left out, and say so.
pub const LEAVE_OUT: &str = "LAPWING_WITHOUT_PYTHON";

/// Exit code of the reader when a passphrase opens nothing.
const NOTHING_OPENED: i32 = 3;

/// Whether the person who runs the tests said that there is no Python. Prints what is left out.
#[must_use]
pub fn left_out() -> bool {
    let said = std::env::var_os(LEAVE_OUT).is_some_and(|value| value == "1");
    if said {
        eprintln!("LEFT OUT because of {LEAVE_OUT}=1: nothing was compared with the independent reader");
    }
    said
}

/// What the reader finds in a vault: its compartments with chats and messages, or `None` if the passphrase opens
/// nothing.
#[must_use]
pub fn read(vault: &Path, passphrase: &str) -> Option<Value> {
    run(vault, passphrase, &[])
}

/// Offsets and lengths of what a passphrase makes use of in a vault: without the rest it opens the same.
///
/// # Panics
/// The passphrase opens nothing.
#[must_use]
pub fn ranges(vault: &Path, passphrase: &str) -> Vec<(usize, usize)> {
    let told = run(vault, passphrase, &["--ranges"]).expect("a passphrase that opens something");
    serde_json::from_value(told["ranges"].clone()).expect("pairs of numbers")
}

fn run(vault: &Path, passphrase: &str, flags: &[&str]) -> Option<Value> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("reader/read");
    let mut child = Command::new("python3")
        .arg(&script)
        .args(flags)
        .arg(vault)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!(
                "python3 cannot be started ({error}): install Python 3.9 or newer with venv and pip, \
                 or set {LEAVE_OUT}=1 to leave the independent reader out"
            )
        });
    let line = format!("{passphrase}\n");
    child.stdin.take().expect("a pipe").write_all(line.as_bytes()).expect("the passphrase");
    let output = child.wait_with_output().expect("the reader's output");
    let told = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(0) => Some(serde_json::from_slice(&output.stdout).expect("the reader prints JSON")),
        Some(NOTHING_OPENED) => None,
        code => panic!("the reader ended with {code:?}: {told}(to leave it out: {LEAVE_OUT}=1)"),
    }
}

/// Texts of the messages of a chat, in their order, with who wrote each (`me`, `peer`, `member`, `program`).
#[must_use]
pub fn texts(opened: &Value, compartment: &str, chat: &str) -> Vec<(String, String)> {
    let named = |list: &Value, name: &str| {
        let found = list.as_array().into_iter().flatten().find(|one| one["name"] == name);
        found.cloned().unwrap_or_else(|| panic!("no {name} in {list}"))
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let compartment = named(&opened["compartments"], compartment);
    let chat = named(&compartment["chats"], chat);
    let messages = chat["messages"].as_array().cloned().unwrap_or_default();
    messages.iter().map(|message| (text(&message["writer"]), text(&message["text"]))).collect()
}
