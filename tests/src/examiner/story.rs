//! A story with a good and a bad end, on real processes under the tracer, and what the examiner makes of it.
//!
//! Bo keeps a chat, a group and his plans in a compartment that his cover does not show, and talks to his grandmother in
//! the one it shows. He is forced to unlock. Every write of every command of his is recorded, every process of his is
//! read at its end, and the terminal and the folder in which he worked are kept.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use super::{Blocks, Canary, Search, desk::Desk};
use crate::{
    scenario::{Folder, Relay, Running, wait::PATIENCE},
    trace::{End, Memory, Subject, Trace},
};

/// What bo types when he is free.
pub const REAL: &str = "heron orbit velvet candle of bo";
/// What he types when he is not, and nothing is destroyed.
pub const HIDE: &str = "seven quiet penguins ride north";
/// What he types when he is not, and everything is.
pub const DESTROY: &str = "granny bakes plum cake in april";

/// A passphrase that he added and removed again, before he was forced.
pub const REMOVED: &str = "attic ladder pepper signal moth";

/// Planted in what the cover does not show, and there to the end: names of a compartment, a chat, a group, two plans;
/// messages of both directions, alert, place, instructions, a draft, the name that he has in the group.
pub const PRIVATE: [&str; 13] = [
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
    "perhaps the barge instead of the van",
    "bo-the-weaver",
];

/// Planted where the cover shows nothing, and erased before he was forced: a message that disappeared by its timer, one
/// that was erased, message and draft of a chat that was deleted, draft and name of a compartment that was deleted, the
/// name of a passphrase that was removed.
pub const ERASED: [&str; 7] = [
    "burn this after the harvest moon",
    "the second key hangs in the smithy",
    "heddles are under the loom again",
    "ask the courier for the spindle",
    "seed for the loft of the pigeons",
    "kestrelroom",
    "attic-spare-key",
];

/// Planted in what the cover shows.
pub const SHOWN: [&str; 4] = [
    "granny-marigold",
    "the plums are ripe again",
    "come for cake on friday",
    "see you at the fair tomorrow",
];

/// Planted in what the cover shows, and erased in the cover: a message, the draft of a chat that was deleted.
pub const SHOWN_ERASED: [&str; 2] = ["the jam is behind the blue door", "quinces for the neighbours"];

/// Planted by nobody's wish: in a file, in the environment of a process that is made to write a core file.
const CONTROL: &str = "finch-of-control";

/// How much later it is when the message with the timer is over.
const LATER: &str = "900";

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
    /// What the commands printed that he was watched at.
    pub terminal: Vec<(String, Vec<u8>)>,
    /// Everything that the terminal still showed, scrolled back, at which he typed some commands with his own hands.
    pub scrollback: (String, Vec<u8>),
    /// Files that lay in his home folder at the end, without the vault: the shell's history, temporary files.
    pub home: Vec<(String, Vec<u8>)>,
    /// What a process left that was killed as a crash would do it, with core files allowed.
    pub core: Vec<(String, Vec<u8>)>,
    /// What another program left that was killed in the same way; empty if the system gives core files to somebody else.
    pub control_core: Vec<(String, Vec<u8>)>,
    /// Names of what lay in his home folder that nobody expects there.
    pub strays: Vec<String>,
    _folder: Folder,
}

/// A place that was searched, and whether a word was found there that has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// Where.
    pub place: &'static str,
    /// What.
    pub word: &'static str,
    /// Whether. `None`: nothing could be looked at on this computer.
    pub found: Option<bool>,
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
        all.push(self.scrollback.clone());
        all.extend(self.home.iter().chain(&self.core).cloned());
        all
    }

    /// In every place besides the vault one word that has to be found there, with the search that finds no other.
    #[must_use]
    pub fn controls(&self) -> Vec<Control> {
        let [granny, plums, ..] = SHOWN;
        let found = |word: &str, places: &[(String, Vec<u8>)]| {
            let search = Search::new(&canaries(&[word]));
            (!places.is_empty()).then(|| places.iter().any(|(_, bytes)| !search.hits(bytes).is_empty()))
        };
        let named = |ending: &str| -> Vec<(String, Vec<u8>)> {
            self.home.iter().filter(|(name, _)| name.ends_with(ending)).cloned().collect()
        };
        let memories: Vec<(String, Vec<u8>)> = self
            .memories
            .iter()
            .filter(|(_, command, _)| command.contains(granny))
            .map(|(_, command, memory)| (command.clone(), memory.all()))
            .collect();
        let control = |place, word, found| Control { place, word, found };
        vec![
            control("memory of processes (a name that was an argument)", granny, found(granny, &memories)),
            control("output of commands", plums, found(plums, &self.terminal)),
            control(
                "scrollback of the terminal",
                plums,
                found(plums, std::slice::from_ref(&self.scrollback)),
            ),
            control("history of the shell", granny, found(granny, &named(".bash_history"))),
            control("temporary folder", CONTROL, found(CONTROL, &named("tmp/control"))),
            control("core file (of another program)", CONTROL, found(CONTROL, &self.control_core)),
        ]
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
    /// The message with the timer is over.
    later: bool,
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
        if self.later {
            plan.environment.push(("LAPWING_SECONDS_AHEAD".to_owned(), LATER.to_owned()));
        }
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

impl Telling {
    /// He types commands himself, at a terminal, in a shell that keeps a history.
    fn sits_at_a_terminal(&mut self, own: &Path, forced: &str) -> (String, Vec<u8>) {
        let [granny, _, _, fair] = SHOWN;
        fs::create_dir_all(own).expect("a folder of the story");
        let mut desk = Desk::sit(own, &self.home, &self.bo.program);
        for (command, text) in [
            (format!("lapwing --vault ~/vault send {granny} -"), Some(fair)),
            (format!("lapwing --vault ~/vault read {granny} --last 20"), None),
            ("lapwing --vault ~/vault chat list".to_owned(), None),
            ("lapwing --vault ~/vault status".to_owned(), None),
        ] {
            desk.types(&command, text, forced);
            if let Some(blocks) = &mut self.blocks {
                assert!(blocks.add_image(&image(&self.bo.vault)), "a vault keeps its size");
            }
        }
        let name = if desk.is_tmux() { "scrollback of tmux" } else { "typescript of the terminal" };
        (name.to_owned(), desk.leaves())
    }

    /// A process of his dies as after a fault of its own, where core files are allowed; then one of another program.
    fn crashes(&self, own: &Path, forced: &str) -> [Vec<(String, Vec<u8>)>; 2] {
        let [granny, ..] = SHOWN;
        let limits = "ulimit -c unlimited; cd \"$1\"; shift; exec \"$@\"";
        let died = |name: &str, program: &mut dyn FnMut(&mut Command), input: String, line: &str| {
            let folder = own.join(name);
            fs::create_dir_all(&folder).expect("a folder of the story");
            let mut command = Command::new("sh");
            command.args(["-c", limits, "sh"]).arg(&folder);
            program(&mut command);
            let mut running = Running::spawn(&mut command, name.to_owned(), input.into_bytes());
            let _ = running.line(PATIENCE, |shown| shown.contains(line));
            // Not SEGV: the standard library takes the first one for an overflow of the stack and waits for the next.
            running.signal("ABRT");
            let _ = running.end();
            files(&folder, "")
        };
        let ours = died(
            "crash",
            &mut |command| {
                command.arg(&self.bo.program).arg("--vault").arg(&self.bo.vault);
                command.args(["--json", "read", granny, "--follow", "--last", "5", "--passphrase-fd", "0"]);
            },
            format!("{forced}\n"),
            "message",
        );
        let control = died(
            "control",
            &mut |command| {
                command.args(["sh", "-c", "echo $FINCH; exec sleep 60"]).env("FINCH", CONTROL);
            },
            String::new(),
            CONTROL,
        );
        [ours, control]
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
    folder.put("home/tmp/control", CONTROL.as_bytes());
    let mira = Subject::new(program, &folder.join("mira"), "lantern gravel prism tide orchid");
    let mut told = Telling {
        bo: Subject::new(program, &home.join("vault"), REAL),
        home: home.clone(),
        blocks: None,
        memories: Vec::new(),
        terminal: Vec::new(),
        watched: false,
        later: false,
    };
    let [
        cell,
        contact,
        group,
        border,
        arrest,
        first,
        second,
        third,
        alert,
        place,
        instructions,
        barge,
        weaver,
    ] = PRIVATE;
    let [moon, smithy, heddles, spindle, loft, room, spare] = ERASED;
    let [granny, plums, cake, _] = SHOWN;
    let [jam, quinces] = SHOWN_ERASED;

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
    told.bo(REAL, &["group", "create", group, "--as", weaver, "--compartment", cell], "");
    told.bo(REAL, &["group", "invite", group, contact], "");
    told.bo(REAL, &["send", group, "-"], third);
    told.bo(REAL, &["trust", "add", contact], "");
    mira.does(&["trust", "accept", "bo"], "");
    told.bo(REAL, &["sync"], "");

    // What he erases in time: one message by its timer, one by hand, a chat, a compartment, a passphrase.
    told.bo(REAL, &["chat", "timer", contact, "5m"], "");
    told.bo(REAL, &["send", contact, "-"], moon);
    told.bo(REAL, &["chat", "timer", contact, "off"], "");
    told.later = true;
    told.bo(REAL, &["sync"], "");
    told.bo(REAL, &["send", contact, "-"], smithy);
    let number = last_number(&told.bo(REAL, &["--json", "read", contact, "--last", "1"], ""));
    told.bo(REAL, &["chat", "erase", contact, &number], "");
    let invited = told.bo(REAL, &["--json", "invite", "courier", "--compartment", cell], "");
    mira.does(&["join", "-", "--name", "bo-by-courier"], &ticket(&invited));
    told.bo(REAL, &["sync"], "");
    told.bo(REAL, &["send", "courier", "-"], heddles);
    told.bo(REAL, &["draft", "courier", "-"], spindle);
    told.bo(REAL, &["chat", "delete", "courier", "--yes"], "");
    told.bo(REAL, &["compartment", "create", room], "");
    told.bo(REAL, &["relay", "add", "-", "--compartment", room], &relay.access);
    told.bo(REAL, &["invite", "pigeons", "--compartment", room], "");
    told.bo(REAL, &["draft", "pigeons", "-"], loft);
    told.bo(REAL, &["compartment", "delete", room, "--yes"], "");
    told.bo(
        REAL,
        &["passphrase", "add", "--name", spare, "--new-passphrase-fd", "0"],
        &format!("{REMOVED}\n"),
    );
    told.bo(REAL, &["passphrase", "remove", spare], "");
    told.bo(REAL, &["draft", contact, "-"], barge);

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
    told.bo(HIDE, &["send", granny, "-"], jam);
    let number = last_number(&told.bo(HIDE, &["--json", "read", granny, "--last", "1"], ""));
    told.bo(HIDE, &["chat", "erase", granny, &number], "");
    told.bo(HIDE, &["invite", "neighbours"], "");
    told.bo(HIDE, &["draft", "neighbours", "-"], quinces);
    told.bo(HIDE, &["chat", "delete", "neighbours", "--yes"], "");
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
    let scrollback = told.sits_at_a_terminal(&folder.join("desk"), forced);
    let [core, control_core] = told.crashes(&folder.join("crashes"), forced);
    told.bo(forced, &["chat", "list"], "");
    let after = image(&told.bo.vault);
    let Telling { blocks, memories, terminal, .. } = told;
    let mut blocks = blocks.expect("bo's vault has blocks");
    assert!(blocks.add_image(&after), "a vault keeps its size");
    let home_files = files(&home, "vault");
    let known = [home.join(".bash_history"), home.join("tmp/control")].map(|path| path.display().to_string());
    let strays =
        home_files.iter().map(|(name, _)| name.clone()).filter(|name| !known.contains(name)).collect();
    Story {
        blocks,
        before,
        after,
        memories,
        terminal,
        scrollback,
        home: home_files,
        core,
        control_core,
        strays,
        _folder: folder,
    }
}

/// The number of the last message that a command showed.
fn last_number(trace: &Trace) -> String {
    let text = String::from_utf8_lossy(&trace.stdout).into_owned();
    let number = |line: &str| {
        let record: Value = serde_json::from_str(line).ok()?;
        Some(record["order"].as_u64()?.to_string())
    };
    text.lines().filter_map(number).next_back().unwrap_or_else(|| panic!("no message in {text}"))
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
