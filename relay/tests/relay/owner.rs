//! Root's commands in the folder of a relay that runs as another user.

use std::{
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::Path,
    process::{Command, Output, Stdio},
};

use nix::unistd::Uid;

use crate::{
    operator::typed,
    support::process::{Process, run, run_json},
};

/// No user of this machine.
const SOMEBODY: u32 = 54_321;

fn folder(path: &Path) {
    std::fs::create_dir(path).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).unwrap();
    chown(path, Some(SOMEBODY), Some(SOMEBODY)).unwrap();
}

/// Everything in a folder that is not its owner's.
fn foreign(path: &Path) -> Vec<std::path::PathBuf> {
    let found = path.symlink_metadata().unwrap();
    let mut foreign = Vec::new();
    if (found.uid(), found.gid()) != (SOMEBODY, SOMEBODY) {
        foreign.push(path.to_path_buf());
    }
    if found.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            foreign.extend(self::foreign(&entry.unwrap().path()));
        }
    }
    foreign
}

#[test]
fn what_root_makes_in_the_folder_of_a_relay_belongs_to_the_relays_user() {
    // Whoever is not root makes nothing for others.
    if !Uid::effective().is_root() {
        return;
    }
    let base = tempfile::tempdir().unwrap();
    std::fs::set_permissions(base.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    let (dir, other) = (base.path().join("relay"), base.path().join("other"));
    folder(&dir);
    folder(&other);
    let nothing = Vec::<std::path::PathBuf>::new();
    run_json(&dir, &["init", "--host", "127.0.0.1", "--port", "0"]);
    assert_eq!(foreign(&dir), nothing);
    run_json(&dir, &["rotate-key"]);
    run_json(&dir, &["status"]);
    assert_eq!(run(&dir, &["access", "list"]).status.code(), Some(0));
    run(&dir, &["doctor"]);
    assert_eq!(foreign(&dir), nothing);

    // Where only root may write, and read.
    let file = base.path().join("backup");
    let key =
        run_json(&dir, &["backup", file.to_str().unwrap()])["recovery_key"].as_str().unwrap().to_owned();
    let made = file.metadata().unwrap();
    assert_eq!((made.uid(), made.mode() & 0o777), (0, 0o600));
    let restored = typed(&other, &["restore", file.to_str().unwrap()], &key);
    assert!(restored.status.success(), "{restored:?}");
    assert_eq!(foreign(&other), nothing);

    let relay = Process::start(&dir);
    assert_eq!(foreign(&dir), nothing, "its socket too");
    run_json(&dir, &["access", "issue"]);
    run_json(&dir, &["rotate-key"]);
    assert_eq!(foreign(&dir), nothing);
    relay.kill();

    // What root left there before is told, and a wipe reaches it.
    chown(dir.join("relay.key"), Some(0), Some(0)).unwrap();
    let refused = run(&dir, &["status"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(5) && said.contains("chown -R"), "{said}");
    assert!(typed(&dir, &["wipe", "--yes"], "").status.success());
    assert!(!dir.exists());
}

/// Runs a command as somebody who may not enter `closed`: root as another user, everybody else with the folder's rights taken.
fn run_outside(program: &Path, closed: &Path, dir: &Path, arguments: &[&str]) -> Output {
    let mode = |mode| std::fs::set_permissions(closed, std::fs::Permissions::from_mode(mode)).unwrap();
    let mut command = Command::new(program);
    command.arg("--dir").arg(dir).args(arguments).stdin(Stdio::null()).current_dir("/");
    if Uid::effective().is_root() {
        mode(0o700);
        command.uid(SOMEBODY).gid(SOMEBODY);
    } else {
        mode(0o000);
    }
    let output = command.output();
    mode(0o700);
    output.unwrap()
}

#[test]
fn a_relay_that_this_user_may_not_look_at_is_not_called_absent() {
    let base = tempfile::tempdir().unwrap();
    std::fs::set_permissions(base.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    // Where the tests are built others may not be let in.
    let program = base.path().join("lapwing-relay");
    std::fs::copy(env!("CARGO_BIN_EXE_lapwing-relay"), &program).unwrap();
    let parent = base.path().join("var");
    std::fs::create_dir(&parent).unwrap();
    let dir = parent.join("relay");
    run_json(&dir, &["init", "--host", "127.0.0.1", "--port", "0"]);
    let commands = [
        &["wipe", "--yes"][..],
        &["doctor"],
        &["serve"],
        &["status"],
        &["access", "list"],
        &["rotate-key"],
        &["backup", "/nowhere/backup"],
        &["restore", "/nowhere/backup"],
        &["init", "--host", "127.0.0.1"],
    ];
    for closed in [&dir, &parent] {
        for command in commands {
            let output = run_outside(&program, closed, &dir, command);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(5), "{command:?}: {said}");
            assert!(said.contains("Permission denied") && !said.contains("no relay"), "{command:?}: {said}");
            assert!(said.contains("hint: run it as root or as the user of the relay"), "{command:?}: {said}");
        }
    }
    run_json(&dir, &["status"]);
    // What is not there is not.
    let nothing = run_outside(&program, &parent, &base.path().join("other"), &["wipe", "--yes"]);
    assert!(String::from_utf8_lossy(&nothing.stderr).contains("there is no relay in"), "{nothing:?}");
}
