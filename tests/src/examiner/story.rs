//! A story with a good and a bad end, on real processes under the tracer, and what the examiner makes of it.
//!
//! Bo keeps a chat, a group and his plans in a compartment that his cover does not show, and talks to his grandmother in
//! the one it shows. He is forced to unlock. Every write of every command of his is recorded, every process of his is
//! read at its end, and the terminal and the folder in which he worked are kept.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{Blocks, Canary};
use crate::{
    scenario::{Folder, Relay},
    trace::{End, Memory, Subject, Trace},
};

/// What bo types when he is free.
pub const REAL: &str = "heron orbit velvet candle of bo";
/// What he types when he is not, and nothing is destroyed.
pub const HIDE: &str = "seven quiet penguins ride north";
/// What he types when he is not, and everything is.
pub const DESTROY: &str = "granny bakes plum cake in april";

/// Planted in what the cover does not show: names of a compartment, a chat, a group, a plan; messages of both
/// directions, alert, place, instructions.
pub const PRIVATE: [&str; 11] = [
    "ospreycell",
    "mira-the-printer",
    "leaflet-weavers",
    "borderplan-willow",
    "arrestplan-alder",
    "the press moves to the tannery on sunday",
    "bring the grey van round the back",
    "quokka assembly at the kiln gate",
    "bo was taken from the tannery bridge",
    "tannery bridge, second arch",
    "phone the advocate Lindqvist",
];

/// Planted in what the cover shows.
pub const SHOWN: [&str; 3] = ["granny-marigold", "the plums are ripe again", "come for cake on friday"];

/// What is left when the story ends.
pub struct Story {
    /// Every version of every block of bo's vault.
    pub blocks: Blocks,
    /// His vault before he was forced to unlock it.
    pub before: Vec<u8>,
    /// His vault at the end.
    pub after: Vec<u8>,
    /// Memory of his processes at their ends: what was typed, which command, what was left.
    pub memories: Vec<(String, String, Memory)>,
    /// What his terminal showed after he was forced: that of the commands he was watched at.
    pub terminal: Vec<(String, Vec<u8>)>,
    /// Files that lay in his home folder at the end, without the vault.
    pub home: Vec<(String, Vec<u8>)>,
    /// The canaries of his passphrases and keys would be found by whoever has them; these are of what he wrote.
    _folder: Folder,
}

impl Story {
    /// Everything that was found with bo besides his vault, when he was forced to type this: what his processes left in
    /// memory, what his terminal shows, his home folder.
    ///
    /// # Panics
    /// There is nothing of it: the story was not told with this ending.
    #[must_use]
    pub fn found_with_bo(&self, forced: &str) -> Vec<(String, Vec<u8>)> {
        let memories = self.memories.iter().filter(|(typed, _, _)| typed == forced);
        let mut all: Vec<(String, Vec<u8>)> = memories
            .map(|(_, command, memory)| (format!("memory left by {command:?}"), memory.all()))
            .collect();
        assert!(!all.is_empty() && !self.terminal.is_empty(), "nobody was forced to type this");
        all.extend(
            self.terminal.iter().map(|(command, shown)| (format!("terminal at {command:?}"), shown.clone())),
        );
        all.extend(self.home.iter().cloned());
        all
    }
}

/// Words as canaries.
#[must_use]
pub fn canaries(words: &[&str]) -> Vec<Canary> {
    words.iter().map(|word| Canary::Text((*word).to_owned())).collect()
}

struct Telling {
    bo: Subject,
    home: PathBuf,
    blocks: Option<Blocks>,
    memories: Vec<(String, String, Memory)>,
    terminal: Vec<(String, Vec<u8>)>,
    watched: bool,
}

impl Telling {
    /// A command of bo's: its writes, its memory and, once he is watched, its output are kept.
    fn bo(&mut self, passphrase: &str, words: &[&str], more: &str) -> Trace {
        let subject = self.bo.typing(passphrase);
        let mut plan = subject.plan(words, more).keeping_memory();
        plan.environment = vec![
            ("HOME".to_owned(), self.home.display().to_string()),
            ("TMPDIR".to_owned(), self.home.join("tmp").display().to_string()),
        ];
        let mut trace = crate::trace::run(&plan).unwrap_or_else(|error| panic!("{words:?}: {error}"));
        // The doctor finds fault: with the tracer, for one.
        let done = trace.succeeded() || (words == ["doctor"] && trace.end == End::Exited(1));
        assert!(done, "{words:?}: {:?} {}", trace.end, trace.told());
        match &mut self.blocks {
            Some(blocks) => trace.writes.iter().for_each(|write| blocks.add_write(write)),
            None => self.blocks = Blocks::of_image(&image(&self.bo.vault)),
        }
        if let Some(memory) = trace.memory.take() {
            self.memories.push((passphrase.to_owned(), words.join(" "), memory));
        }
        if self.watched {
            self.terminal.push((words.join(" "), [trace.stdout.clone(), trace.stderr.clone()].concat()));
        }
        trace
    }
}

fn image(vault: &Path) -> Vec<u8> {
    fs::read(vault).expect("a vault")
}

fn ticket(trace: &Trace) -> String {
    let text = String::from_utf8_lossy(&trace.stdout);
    let found = text.lines().find_map(|line| {
        let record: Value = serde_json::from_str(line).ok()?;
        Some(record["ticket"].as_str()?.to_owned())
    });
    found.unwrap_or_else(|| panic!("no ticket in {text}"))
}

/// Tells it, with the program at `program`; `forced` is what bo types at the end, [`HIDE`] or [`DESTROY`].
///
/// # Panics
/// A command fails.
#[must_use]
pub fn tell(program: &Path, forced: &str) -> Story {
    let folder = Folder::new();
    let relay = Relay::start(&folder.join("relay"));
    let home = folder.join("home");
    for made in [&home, &home.join("tmp")] {
        fs::create_dir_all(made).expect("a folder of the story");
    }
    let mira = Subject::new(program, &folder.join("mira"), "lantern gravel prism tide orchid");
    let mut told = Telling {
        bo: Subject::new(program, &home.join("vault"), REAL),
        home: home.clone(),
        blocks: None,
        memories: Vec::new(),
        terminal: Vec::new(),
        watched: false,
    };
    let [cell, contact, group, border, arrest, first, second, third, alert, place, instructions] = PRIVATE;
    let [granny, plums, cake] = SHOWN;

    mira.does(&["init", "--size", "8MiB"], "");
    mira.does(&["relay", "add", &relay.access], "");
    told.bo(REAL, &["init", "--size", "8MiB"], "");
    told.bo(REAL, &["compartment", "rename", "main", cell], "");
    told.bo(REAL, &["relay", "add", "-"], &relay.access);
    told.bo(REAL, &["compartment", "create", "main"], "");
    told.bo(REAL, &["relay", "add", "-", "--compartment", "main"], &relay.access);

    // What he does not show: a contact whom he trusts, a group, messages both ways.
    let invited = told.bo(REAL, &["--json", "invite", contact, "--compartment", cell], "");
    mira.does(&["join", "-", "--name", "bo"], &ticket(&invited));
    told.bo(REAL, &["sync"], "");
    told.bo(REAL, &["send", contact, "-"], first);
    mira.does(&["send", "bo", "-"], second);
    told.bo(REAL, &["sync"], "");
    told.bo(REAL, &["group", "create", group, "--as", "bo-the-weaver", "--compartment", cell], "");
    told.bo(REAL, &["group", "invite", group, contact], "");
    told.bo(REAL, &["send", group, "-"], third);
    told.bo(REAL, &["trust", "add", contact], "");
    mira.does(&["trust", "accept", "bo"], "");
    told.bo(REAL, &["sync"], "");

    // What he shows, from time to time.
    let granny_sits = Subject::new(program, &folder.join("granny"), "marble thimble walnut bread oven");
    granny_sits.does(&["init", "--size", "8MiB"], "");
    granny_sits.does(&["relay", "add", &relay.access], "");
    let invited = told.bo(REAL, &["--json", "invite", granny, "--compartment", "main"], "");
    granny_sits.does(&["join", "-", "--name", "bo"], &ticket(&invited));
    told.bo(REAL, &["sync"], "");
    told.bo(REAL, &["send", granny, "-"], plums);
    granny_sits.does(&["send", "bo", "-"], cake);

    for (name, action, passphrase) in [(border, "hide", HIDE), (arrest, "destroy", DESTROY)] {
        let words = [
            "sos", "add", "--name", name, "--show", "main", "--do", action, "--alert", contact, "--text",
            alert,
        ];
        let more = ["--place", place, "--instructions", instructions, "--yes", "--new-passphrase-fd", "0"];
        told.bo(REAL, &[&words[..], &more[..]].concat(), &format!("{passphrase}\n"));
    }
    told.bo(REAL, &["read", contact], "");
    // He uses the cover as a person does.
    told.bo(HIDE, &["sync"], "");
    told.bo(HIDE, &["read", granny], "");
    let before = image(&told.bo.vault);

    // The bad end.
    told.watched = true;
    for words in [
        &["status"][..],
        &["chat", "list"],
        &["compartment", "list"],
        &["read", granny],
        &["sos", "list"],
        &["trust", "list"],
        &["alert", "list"],
        &["doctor"],
    ] {
        told.bo(forced, words, "");
    }
    let after = image(&told.bo.vault);
    let Telling { blocks, memories, terminal, .. } = told;
    let blocks = blocks.expect("bo's vault has blocks");
    Story { blocks, before, after, memories, terminal, home: files(&home, "vault"), _folder: folder }
}

/// All files below a folder but the one of this name.
fn files(folder: &Path, but: &str) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder of the story").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path, but));
        } else if entry.file_name() != but {
            found.push((path.display().to_string(), fs::read(&path).unwrap_or_default()));
        }
    }
    found
}
