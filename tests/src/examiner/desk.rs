//! A person at a terminal: an interactive shell with a history, inside tmux, which keeps everything that was shown.
//!
//! Where tmux is not installed, inside `script`, which keeps what was sent to the terminal.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::scenario::wait::until;

/// What the shell says when it waits.
const PROMPT: &str = "desk$ ";

/// How long a command at the desk may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Lines that the multiplexer keeps: more than are ever shown here.
const LINES: &str = "20000";

/// Somebody sits there.
pub struct Desk {
    keeper: Keeper,
    /// The terminal's name, in a file.
    tty: PathBuf,
    commands: usize,
}

enum Keeper {
    /// With the folder of its socket.
    Tmux(PathBuf),
    /// With its keyboard and its log.
    Script(Child, PathBuf),
}

impl Desk {
    /// Sits down at home. `own` is a folder of the test's, outside it; `lapwing` starts `program`.
    ///
    /// # Panics
    /// There is neither tmux nor `script`, or no shell appears.
    #[must_use]
    pub fn sit(own: &Path, home: &Path, program: &Path) -> Self {
        let (tty, start) = (own.join("tty"), own.join("start.sh"));
        std::os::unix::fs::symlink(program, own.join("lapwing")).expect("a name for the program");
        let set = [
            ("PS1", PROMPT.to_owned()),
            ("HOME", home.display().to_string()),
            ("HISTFILE", home.join(".bash_history").display().to_string()),
            ("TMPDIR", home.join("tmp").display().to_string()),
            ("XDG_DATA_HOME", home.join(".local/share").display().to_string()),
            ("XDG_CONFIG_HOME", home.join(".config").display().to_string()),
            ("XDG_CACHE_HOME", home.join(".cache").display().to_string()),
            ("XDG_STATE_HOME", home.join(".local/state").display().to_string()),
            ("PATH", format!("{}:{}", own.display(), std::env::var("PATH").unwrap_or_default())),
        ];
        let mut text: String = set.map(|(name, value)| format!("export {name}='{value}'\n")).concat();
        text.push_str(&format!("tty > '{}'\ncd\nexec bash --norc --noprofile -i\n", tty.display()));
        let mut file = OpenOptions::new().create_new(true).write(true).open(&start).expect("a new file");
        file.write_all(text.as_bytes()).expect("its text");
        let run = format!("sh '{}'", start.display());
        let keeper = tmux(own, &run).unwrap_or_else(|| script(own, &run));
        let desk = Self { keeper, tty, commands: 0 };
        desk.waits(|screen| screen.matches(PROMPT).count() > 0);
        desk
    }

    /// Whether the terminal is tmux's.
    #[must_use]
    pub fn is_tmux(&self) -> bool {
        matches!(self.keeper, Keeper::Tmux(_))
    }

    /// Types a command, what it reads from the terminal, and the passphrase when it is asked for; waits for the end.
    pub fn types(&mut self, command: &str, text: Option<&str>, passphrase: &str) {
        self.keys(command);
        if let Some(text) = text {
            self.waits(|screen| screen.contains(command));
            self.keys(text);
            self.end_of_text();
        }
        // A key pressed before the echo is off would be seen; a person is slower than that.
        let silent = until(PATIENCE, || {
            let name = fs::read_to_string(&self.tty).unwrap_or_default();
            let Ok(terminal) = File::open(name.trim()) else { return false };
            let stty = Command::new("stty").arg("-a").stdin(terminal).stderr(Stdio::null()).output();
            stty.is_ok_and(|stty| String::from_utf8_lossy(&stty.stdout).contains("-echo "))
                && self.screen().trim_end().ends_with("passphrase:")
        });
        assert!(silent, "no passphrase was asked for: {}", self.screen());
        self.keys(passphrase);
        self.commands += 1;
        let wanted = self.commands + 1;
        self.waits(|screen| screen.matches(PROMPT).count() >= wanted && screen.trim_end().ends_with('$'));
    }

    /// Goes away, and answers all that the terminal still shows when scrolled back.
    #[must_use]
    pub fn leaves(mut self) -> Vec<u8> {
        let shown = self.screen().into_bytes();
        match &mut self.keeper {
            Keeper::Tmux(_) => self.keys("exit"),
            Keeper::Script(script, _) => {
                let _ = script.stdin.as_mut().expect("a keyboard").write_all(b"exit\n");
                let _ = script.wait();
            }
        }
        // The shell writes its history when it ends.
        let name = fs::read_to_string(&self.tty).unwrap_or_default();
        let gone = until(PATIENCE, || match &self.keeper {
            Keeper::Tmux(socket) => !tmux_says(socket, &["has-session"]).0,
            Keeper::Script(..) => !Path::new(name.trim()).exists(),
        });
        assert!(gone, "the shell did not end");
        shown
    }

    fn keys(&self, text: &str) {
        match &self.keeper {
            Keeper::Tmux(socket) => {
                let _ = tmux_says(socket, &["send-keys", "-l", text]);
                let _ = tmux_says(socket, &["send-keys", "Enter"]);
            }
            Keeper::Script(script, _) => {
                let mut keyboard = script.stdin.as_ref().expect("a keyboard");
                keyboard.write_all(format!("{text}\n").as_bytes()).expect("a terminal");
            }
        }
    }

    fn end_of_text(&self) {
        match &self.keeper {
            Keeper::Tmux(socket) => drop(tmux_says(socket, &["send-keys", "C-d"])),
            Keeper::Script(script, _) => {
                let mut keyboard = script.stdin.as_ref().expect("a keyboard");
                keyboard.write_all(b"\x04").expect("a terminal");
            }
        }
    }

    /// All lines that were shown, those that scrolled away included.
    fn screen(&self) -> String {
        match &self.keeper {
            Keeper::Tmux(socket) => tmux_says(socket, &["capture-pane", "-p", "-J", "-S", "-"]).1,
            Keeper::Script(_, log) => {
                String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).replace('\r', "")
            }
        }
    }

    fn waits(&self, shown: impl Fn(&str) -> bool) {
        assert!(until(PATIENCE, || shown(&self.screen())), "it was not shown: {}", self.screen());
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        match &mut self.keeper {
            Keeper::Tmux(socket) => drop(tmux_says(socket, &["kill-server"])),
            Keeper::Script(script, _) => {
                let _ = script.kill();
                let _ = script.wait();
            }
        }
    }
}

fn tmux(own: &Path, run: &str) -> Option<Keeper> {
    if std::env::var_os("LAPWING_WITHOUT_TMUX").is_some() {
        return None;
    }
    let config = own.join("tmux.conf");
    let mut file = OpenOptions::new().create_new(true).write(true).open(&config).ok()?;
    writeln!(file, "set -g history-limit {LINES}").ok()?;
    let config = config.to_str()?;
    let started = tmux_says(own, &["-f", config, "new-session", "-d", "-x", "160", "-y", "40", run]);
    started.0.then(|| Keeper::Tmux(own.to_owned()))
}

fn script(own: &Path, run: &str) -> Keeper {
    let log = own.join("typescript");
    let script = Command::new("script")
        .args(["-q", "-f", "-c", run])
        .arg(&log)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("tmux, or else script of util-linux");
    Keeper::Script(script, log)
}

/// A server of its own, whose socket lies in `own`.
fn tmux_says(own: &Path, words: &[&str]) -> (bool, String) {
    let output = Command::new("tmux")
        .arg("-S")
        .arg(own.join("tmux"))
        .args(words)
        .env_remove("TMUX")
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) => (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned()),
        Err(_) => (false, String::new()),
    }
}
