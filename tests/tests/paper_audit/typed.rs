//! What would happen to somebody who types a command of a paper, found out without running it.

use std::{
    io::Read as _,
    process::{Command as Process, Stdio},
    sync::mpsc,
    time::Duration,
};

use lapwing_tests::audit::{File, Tree, papers::commands::Command};

/// Programs that a paper may name without the project having to provide them.
const KNOWN_PROGRAMS: &[&str] = &[
    "cat",
    "cd",
    "chmod",
    "cp",
    "curl",
    "echo",
    "export",
    "git",
    "install",
    "jq",
    "ls",
    "mkdir",
    "printf",
    "rustup",
    "sudo",
    "sysctl",
    "systemctl",
    "tail",
    "useradd",
];

/// Manifests of the packages of the design's section 2.
pub(super) const PACKAGES: &[&str] = &[
    "protocol/wire/Cargo.toml",
    "protocol/Cargo.toml",
    "protocol/prost-build/Cargo.toml",
    "client/vault/Cargo.toml",
    "client/Cargo.toml",
    "relay/Cargo.toml",
    "tests/Cargo.toml",
];

/// A package beside them, which is for measuring.
const STATISTICS: &str = "tests/statistics/Cargo.toml";

/// Long enough for a debug build on a busy machine to print its help.
const HELP_PATIENCE: Duration = Duration::from_secs(30);

/// Options of `cargo nextest run` that take a word.
const WITH_A_WORD: &[&str] = &["-p", "--package", "-E", "--profile", "--run-ignored", "--test", "--features"];

/// Why a reader who types this command would be disappointed.
pub(super) fn complaint(tree: &Tree, command: &Command) -> Option<String> {
    let first = command.words.first()?;
    let run_or_bench = command.arguments().first().map(String::as_str);
    match command.program() {
        "lapwing" => help("LAPWING_BIN", command.arguments()).err(),
        "lapwing-relay" => help("LAPWING_RELAY_BIN", command.arguments()).err(),
        "lapwing-examiner" => {
            let mut parts = command.arguments().splitn(2, |word| word == "--");
            let own =
                printed(env!("CARGO_BIN_EXE_lapwing-examiner").as_ref(), parts.next().unwrap_or_default());
            // Behind the dashes stands the command that it watches.
            let watched = parts.next().map(|words| Command { words: words.to_vec(), ..*command });
            own.err().or_else(|| complaint(tree, &watched?))
        }
        "cargo" if run_or_bench == Some("nextest") => {
            unknown_package(tree, command).or_else(|| unknown_test(tree, &command.arguments()[2..], command))
        }
        "cargo" => unknown_package(tree, command).or_else(|| unknown_bench(tree, command)),
        "just" => unknown_recipe(tree, command),
        "run" if first == "./tests/run" => not_executable(tree, first)
            .or_else(|| unknown_package(tree, command))
            .or_else(|| unknown_test(tree, command.arguments(), command)),
        _ if first.contains('/') => not_executable(tree, first),
        known if KNOWN_PROGRAMS.contains(&known) => None,
        other => Some(format!("`{other}` is not a program of this project")),
    }
}

/// What a program prints that is asked for help behind these words, or what it says against them.
pub(super) fn help(variable: &str, arguments: &[String]) -> Result<String, String> {
    let program = std::env::var_os(variable)
        .unwrap_or_else(|| panic!("{variable} is not set; run the tests with `tests/run`"));
    printed(program.as_ref(), arguments)
}

/// Runs the command with `--help` behind it: the parser then checks every word before it and does nothing.
fn printed(program: &std::path::Path, arguments: &[String]) -> Result<String, String> {
    let home = tempfile::tempdir().unwrap();
    let mut child = Process::new(program)
        .args(arguments)
        .arg("--help")
        .current_dir(home.path())
        .env("HOME", home.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that waits for something instead of printing its help must not hold up the tests.
    let (mut output, mut errors) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let (done, waits) = mpsc::sync_channel(1);
    let reader = std::thread::spawn(move || {
        let mut text = [String::new(), String::new()];
        let read = output.read_to_string(&mut text[0]).and_then(|_| errors.read_to_string(&mut text[1]));
        let _ = done.send(());
        read.map(|_| text)
    });
    if waits.recv_timeout(HELP_PATIENCE).is_err() {
        child.kill().unwrap();
    }
    let status = child.wait().unwrap();
    let [output, errors] = reader.join().unwrap().unwrap();
    if status.success() { Ok(output) } else { Err(format!("{status}: {}", errors.trim())) }
}

fn unknown_package(tree: &Tree, command: &Command) -> Option<String> {
    let members: Vec<&File> =
        PACKAGES.iter().chain([&STATISTICS]).filter_map(|path| tree.file(path)).collect();
    let known = |name: &str| members.iter().any(|file| file.text.contains(&format!("name = \"{name}\"")));
    let named = command.values("-p", "--package").into_iter().chain(command.values("--bin", "--bin"));
    let unknown: Vec<_> = named.filter(|name| !known(name)).collect();
    (!unknown.is_empty()).then(|| format!("the workspace has no package {unknown:?}"))
}

/// Words that choose tests choose one at least: they are part of the name of a function or of a file that has tests.
fn unknown_test(tree: &Tree, arguments: &[String], command: &Command) -> Option<String> {
    let mut words = arguments.iter().take_while(|word| *word != "--");
    let mut chosen = Vec::new();
    while let Some(word) = words.next() {
        if WITH_A_WORD.contains(&word.as_str()) {
            let _ = words.next();
        } else if !word.starts_with('-') {
            chosen.push(word.as_str());
        }
    }
    let named = |word: &str| {
        tree.rust().any(|file| {
            let mut names = file.text.lines().filter_map(|line| {
                let name = line.trim_start().split_once("fn ").map(|(_, rest)| rest)?;
                name.split(['(', '<']).next()
            });
            names.any(|name| name.contains(word))
                || file.path.rsplit('/').next().is_some_and(|name| name.contains(word))
        })
    };
    let binary = |name: &str| {
        let ends = [format!("/tests/{name}.rs"), format!("/tests/{name}/main.rs")];
        tree.rust().any(|file| ends.iter().any(|end| file.path.ends_with(end.as_str())))
    };
    let unknown = chosen.into_iter().filter(|word| !named(word));
    let unknown: Vec<_> =
        unknown.chain(command.values("--test", "--test").into_iter().filter(|name| !binary(name))).collect();
    (!unknown.is_empty()).then(|| format!("no test has a name with {unknown:?}"))
}

fn unknown_bench(tree: &Tree, command: &Command) -> Option<String> {
    let known = |name: &&str| {
        let ends = [format!("/benches/{name}.rs"), format!("/benches/{name}/main.rs")];
        tree.rust().any(|file| ends.iter().any(|end| file.path.ends_with(end.as_str())))
    };
    let unknown: Vec<_> =
        command.values("--bench", "--bench").into_iter().filter(|name| !known(name)).collect();
    (!unknown.is_empty()).then(|| format!("there is no bench {unknown:?}"))
}

fn unknown_recipe(tree: &Tree, command: &Command) -> Option<String> {
    let justfile = std::fs::read_to_string(tree.root().join("justfile")).unwrap();
    let recipe = command.arguments().first()?;
    let known = justfile.lines().any(|line| {
        line.strip_prefix(recipe.as_str())
            .is_some_and(|rest| rest.starts_with([' ', ':']) && rest.contains(':'))
    });
    (!known).then(|| format!("the justfile has no recipe {recipe}"))
}

/// A path that a paper names as a program.
pub(super) fn not_executable(tree: &Tree, path: &str) -> Option<String> {
    use std::os::unix::fs::PermissionsExt as _;
    let found =
        std::fs::metadata(tree.root().join(path)).is_ok_and(|is| is.permissions().mode() & 0o111 != 0);
    (!found).then(|| format!("{path} is no program in this repository"))
}
