//! What keeps what was typed and shown: terminals, histories, variables; and what else runs.

use super::{Finding, host::Host};

pub(super) fn checks(host: &dyn Host, own: u32) -> Vec<Finding> {
    vec![
        multiplexer(host),
        recorder(host, own),
        history(host),
        variables(host),
        others(host, own),
        temporary(host),
    ]
}

fn multiplexer(host: &dyn Host) -> Finding {
    let found = [("TMUX", "tmux"), ("STY", "screen"), ("ZELLIJ", "zellij")];
    match found.iter().find(|(name, _)| host.variable(name).is_some_and(|value| !value.is_empty())) {
        Some((_, program)) => Finding::care(
            "terminal",
            format!("{program} keeps what is shown, in its scrollback and perhaps in a file"),
            "use a terminal of its own for lapwing, or clear the scrollback afterwards (tmux clear-history)",
        ),
        None => Finding::well("terminal", "no multiplexer keeps what is shown"),
    }
}

/// Programs that write down what a terminal shows.
const RECORDERS: [&str; 8] =
    ["script", "asciinema", "ttyrec", "termrec", "terminalizer", "t-rec", "vhs", "tlog-rec-session"];

/// How many processes above this one are looked at: a broken system cannot keep us busy.
const MOST_ANCESTORS: usize = 64;

/// The name of a process and the number of its parent (proc(5), `stat`). A name may hold spaces and brackets.
fn process(host: &dyn Host, id: u32) -> Option<(String, u32)> {
    let text = host.text(&format!("/proc/{id}/stat"))?;
    let (start, end) = (text.find('(')?, text.rfind(')')?);
    let parent = text.get(end + 1..)?.split_whitespace().nth(1)?.parse().ok()?;
    Some((text.get(start + 1..end)?.to_owned(), parent))
}

fn recorder(host: &dyn Host, own: u32) -> Finding {
    let mut id = own;
    for _ in 0..MOST_ANCESTORS {
        let Some((name, parent)) = process(host, id) else { break };
        if RECORDERS.contains(&name.as_str()) {
            return Finding::care(
                "recorder",
                format!("{name} writes down everything that this terminal shows"),
                "end it, delete what it wrote, and use another terminal",
            );
        }
        if parent == 0 || parent == id {
            break;
        }
        id = parent;
    }
    Finding::well("recorder", "no known program records this terminal")
}

/// Where shells keep what was typed, below the home folder.
const HISTORIES: [&str; 5] =
    [".bash_history", ".zsh_history", ".histfile", ".local/share/fish/fish_history", ".ash_history"];

fn history(host: &dyn Host) -> Finding {
    let home = host.variable("HOME").unwrap_or_default();
    let mut files: Vec<String> = HISTORIES.iter().map(|name| format!("{home}/{name}")).collect();
    if let Some(own) = host.variable("HISTFILE").filter(|own| !own.is_empty() && !files.contains(own)) {
        files.push(own);
    }
    let tells = |file: &&String| host.text(file).is_some_and(|text| text.lines().any(tells_something));
    let telling: Vec<&String> = files.iter().filter(tells).collect();
    if telling.is_empty() {
        return Finding::well("history", "no known shell history holds texts, tickets or plans of lapwing");
    }
    let names: Vec<&str> = telling.iter().map(|file| file.as_str()).collect();
    Finding::care(
        "history",
        format!(
            "a shell's history holds texts, tickets or plans that were typed as arguments: {}",
            names.join(", ")
        ),
        "delete those lines; from now on use - and a pipe, or begin the line with a space (HISTCONTROL=ignorespace)",
    )
}

/// Whether a line of a history would tell somebody more than that the program was used: a text that was sent, a ticket,
/// what a plan says or shows.
fn tells_something(line: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    // Behind a path, a separator, or the time that zsh writes.
    let is_program = |word: &&str| word.rsplit(['/', ';', '|', '&', '(']).next() == Some("lapwing");
    let Some(at) = words.iter().position(is_program) else { return false };
    let rest = &words[at + 1..];
    let has = |wanted: &str| rest.contains(&wanted);
    let ticket = rest.iter().any(|word| {
        let word = word.trim_matches(['"', '\'']);
        word.starts_with("lapwing:") || word.starts_with("lapwing-access:")
    });
    let sent = (has("send") || has("draft")) && !has("-");
    ticket || sent || (has("sos") && has("add"))
}

/// Variables by which another library gets into every program that is started.
const INJECTING: [&str; 4] = ["LD_PRELOAD", "LD_AUDIT", "LD_LIBRARY_PATH", "DYLD_INSERT_LIBRARIES"];

fn variables(host: &dyn Host) -> Finding {
    let mut names = host.variables();
    names.sort();
    if let Some(name) = names.iter().find(|name| INJECTING.contains(&name.as_str())) {
        return Finding::care(
            "environment",
            format!("{name} puts other code into lapwing"),
            "unset it, unless you know exactly what it does",
        );
    }
    let secret = |name: &&String| {
        let name = name.to_ascii_uppercase();
        name.contains("LAPWING") && ["PASS", "SECRET", "KEY", "TICKET"].iter().any(|word| name.contains(word))
    };
    match names.iter().find(secret) {
        Some(name) => Finding::care(
            "environment",
            format!("the variable {name} looks like a secret; every program that you start can read it"),
            "unset it; lapwing reads passphrases from a terminal or a descriptor, never from a variable",
        ),
        None => Finding::well("environment", "no variable holds a secret of lapwing or puts code into it"),
    }
}

/// Most processes that are looked at.
const MOST_PROCESSES: usize = 65_536;

fn others(host: &dyn Host, own: u32) -> Finding {
    let numbers = host.names("/proc").into_iter().filter_map(|name| name.parse::<u32>().ok());
    let mut running: Vec<u32> = numbers
        .take(MOST_PROCESSES)
        .filter(|id| *id != own && process(host, *id).is_some_and(|(name, _)| name == "lapwing"))
        .collect();
    running.sort_unstable();
    if running.is_empty() {
        return Finding::well("processes", "no other lapwing runs");
    }
    let list: Vec<String> = running.iter().map(u32::to_string).collect();
    Finding::care(
        "processes",
        format!("another lapwing runs and may hold a vault open: process {}", list.join(", ")),
        "end it (Ctrl-C, or kill) when you leave the computer: while it runs, its keys are in memory",
    )
}

/// The program makes no temporary file; a shell does for here-strings, which may hold a passphrase.
fn temporary(host: &dyn Host) -> Finding {
    let folder =
        host.variable("TMPDIR").filter(|folder| !folder.is_empty()).unwrap_or_else(|| "/tmp".to_owned());
    let mounts = super::host::Mounts::of(host);
    let in_memory =
        mounts.over(&folder).is_some_and(|mount| ["tmpfs", "ramfs"].contains(&mount.kind.as_str()));
    Finding::well(
        "temporary files",
        if in_memory {
            "lapwing makes no temporary files, and those of your shell lie in memory".to_owned()
        } else {
            format!("lapwing makes no temporary files; those of your shell (<<<) lie on a disk, in {folder}")
        },
    )
}

#[cfg(test)]
mod tests {
    use super::{super::host::tests::Pretend, *};

    fn found(host: &Pretend) -> Vec<&'static str> {
        let all = checks(host, 100);
        assert!(all.iter().all(|finding| finding.ok == finding.hint.is_empty()));
        all.into_iter().filter(|finding| !finding.ok).map(|finding| finding.check).collect()
    }

    #[test]
    fn a_quiet_terminal_is_no_reason_to_worry() {
        let host = Pretend::default()
            .variable("HOME", "/home/ana")
            .variable("TMUX", "")
            .variable("PATH", "/bin")
            .file("/home/ana/.bash_history", "ls\nlapwing read bo\necho hi | lapwing send bo -\n")
            .file("/proc/100/stat", "100 (lapwing) S 90 100")
            .file("/proc/90/stat", "90 (bash) S 1 90")
            .file("/proc/1/stat", "1 (init (x) y) S 0 1");
        assert_eq!(found(&host), Vec::<&str>::new());
    }

    #[test]
    fn what_keeps_or_reads_along_is_found() {
        for (host, check) in [
            (Pretend::default().variable("TMUX", "/tmp/tmux-1000/default,1,0"), "terminal"),
            (Pretend::default().variable("STY", "1.pts"), "terminal"),
            (
                Pretend::default()
                    .file("/proc/100/stat", "100 (lapwing) S 90 1")
                    .file("/proc/90/stat", "90 (bash) S 80 1")
                    .file("/proc/80/stat", "80 (asciinema) S 1 1"),
                "recorder",
            ),
            (Pretend::default().variable("LD_PRELOAD", "/tmp/x.so"), "environment"),
            (Pretend::default().variable("LAPWING_PASSPHRASE", "x"), "environment"),
            (Pretend::default().file("/proc/7/stat", "7 (lapwing) S 1 7"), "processes"),
        ] {
            assert_eq!(found(&host), [check]);
        }
        // A process that is its own parent does not keep us.
        assert!(recorder(&Pretend::default().file("/proc/5/stat", "5 (x) S 5 1"), 5).ok);
    }

    #[test]
    fn histories_are_looked_at_for_what_they_tell() {
        for (line, tells) in [
            ("lapwing send bo 'at six'", true),
            (": 1700000000:0;lapwing --vault v send bo hello", true),
            ("- cmd: /usr/bin/lapwing send bo hello", true),
            ("lapwing join lapwing:qpzry --name ana", true),
            ("lapwing relay add \"lapwing-access:qpzry\"", true),
            ("lapwing sos add --show main", true),
            ("lapwing send bo -", false),
            ("lapwing sos list", false),
            ("git commit -m 'send lapwing'", false),
            ("cd lapwing && cargo run", false),
        ] {
            assert_eq!(tells_something(line), tells, "{line}");
        }
        let host = Pretend::default()
            .variable("HOME", "/home/ana")
            .variable("HISTFILE", "/srv/history")
            .file("/srv/history", "ls\nlapwing send bo hello\n");
        let finding = history(&host);
        assert!(
            !finding.ok && finding.message.contains("/srv/history") && !finding.message.contains("hello")
        );
    }
}
