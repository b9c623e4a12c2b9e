//! Questions at the terminal of the process, `/dev/tty`, so that standard input stays free for what is sent.
//!
//! Ctrl-C at a question is an answer like any other: the terminal is put back as it was, secrets are wiped on the way
//! out, and the command ends with exit code 130. So do the signals that ask a process to end.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Read, Write},
    sync::mpsc::{RecvTimeoutError, sync_channel},
    thread,
    time::Duration,
};

use lapwing_vault::wipe_stack;
use nix::sys::termios::{self, LocalFlags, SetArg, SpecialCharacterIndices, Termios};
use zeroize::Zeroizing;

use super::{MAX_ANSWER, Prompt, PromptError, Question, TRIES, TypedPassphrase};
use crate::{
    cli::strength::Strength,
    signals::{self, Stop},
    untrusted::Printable,
};

const TTY: &str = "/dev/tty";

/// How often it is looked whether the process is to end while a person types.
const LOOK: Duration = Duration::from_millis(100);

/// What a terminal in our mode sends for Ctrl-C.
const STOP: u8 = 0x03;

/// Asks at the terminal. Opens it at each question and holds it no longer.
#[derive(Debug)]
pub struct Terminal {
    path: String,
}

impl Default for Terminal {
    fn default() -> Self {
        Self::new()
    }
}

impl Terminal {
    /// The terminal that this process belongs to.
    pub fn new() -> Self {
        Self::at(TTY)
    }

    /// Another terminal: that of a test.
    fn at(path: impl Into<String>) -> Self {
        Self { path: path.into() }
    }

    fn open(&self, flag: &str) -> Result<File, PromptError> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(&self.path)
            .map_err(|_| PromptError::NoTerminal { flag: flag.to_owned() })
    }

    fn secret(&self, what: &str, flag: &str) -> Result<TypedPassphrase, PromptError> {
        // Opened first, so that a missing terminal is told from one that fails.
        let mut tty = self.open(flag)?;
        say(&mut tty, &format!("{what}: "))?;
        let path = self.path.clone();
        let mut stop = Stop::listen();
        give_back(&tty, &stop)?;
        let typed = typed(&tty, &mut stop, move || {
            // rpassword raises it when it sees Ctrl-C.
            signals::keep_interrupt();
            let config = rpassword::ConfigBuilder::new()
                .input_file_path(path.as_str())
                .output_file_path(path.as_str())
                .build();
            let typed = rpassword::read_password_with_config(config).map(Zeroizing::new);
            typed.map_err(|error| match error.kind() {
                ErrorKind::Interrupted => {
                    signals::take_interrupt();
                    PromptError::Interrupted
                }
                ErrorKind::UnexpectedEof => PromptError::Interrupted,
                _ => PromptError::Failed,
            })
        });
        if stop.close() {
            return Err(PromptError::Interrupted);
        }
        Ok(TypedPassphrase::new(typed?)?)
    }

    fn ask<T>(
        &self,
        question: Question<'_>,
        shown: &str,
        mut fit: impl FnMut(&str) -> Result<T, String>,
    ) -> Result<T, PromptError> {
        let mut tty = self.open(question.flag())?;
        for _ in 0..TRIES {
            say(&mut tty, shown)?;
            match fit(read_line(&tty)?.trim()) {
                Ok(answer) => return Ok(answer),
                Err(wanted) => say(&mut tty, &format!("{wanted}\n"))?,
            }
        }
        Err(PromptError::GaveUp { flag: question.flag().to_owned() })
    }
}

impl Prompt for Terminal {
    fn passphrase(&mut self, what: &str) -> Result<TypedPassphrase, PromptError> {
        self.secret(what, "--passphrase-fd")
    }

    fn new_passphrase(&mut self, what: &str) -> Result<TypedPassphrase, PromptError> {
        let flag = "--new-passphrase-fd";
        for _ in 0..TRIES {
            let first = self.secret(what, flag)?;
            let strength = Strength::of(first.expose());
            let mut told = format!("{strength}\n");
            if let Some(advice) = strength.advice() {
                told.push_str(&format!("to better it: {advice}\n"));
            }
            say(&mut self.open(flag)?, &told)?;
            if self.secret(&format!("{what}, again"), flag)?.is(&first) {
                return Ok(first);
            }
            say(&mut self.open(flag)?, "the two were not the same; once more\n")?;
        }
        Err(PromptError::GaveUp { flag: flag.to_owned() })
    }

    fn confirm(&mut self, question: Question<'_>) -> Result<bool, PromptError> {
        self.ask(question, &format!("{} [yes/no] ", question.text()), |answer| {
            match answer.to_ascii_lowercase().as_str() {
                "y" | "yes" => Ok(true),
                "n" | "no" => Ok(false),
                _ => Err("please type yes or no".to_owned()),
            }
        })
    }

    fn choose(&mut self, question: Question<'_>, options: &[&str]) -> Result<usize, PromptError> {
        let mut shown = format!("{}\n", question.text());
        for (index, option) in options.iter().enumerate() {
            shown.push_str(&format!("  {}  {}\n", index + 1, Printable::line(option)));
        }
        shown.push_str(&format!("number [1-{}]: ", options.len()));
        self.ask(question, &shown, |answer| {
            answer
                .parse::<usize>()
                .ok()
                .and_then(|number| number.checked_sub(1))
                .filter(|index| *index < options.len())
                .ok_or_else(|| format!("please type a number from 1 to {}", options.len()))
        })
    }

    fn text(&mut self, question: Question<'_>) -> Result<String, PromptError> {
        self.ask(question, &format!("{}: ", question.text()), |answer| Ok(answer.to_owned()))
    }
}

fn say(tty: &mut File, text: &str) -> Result<(), PromptError> {
    let text = Printable::whole(text).to_string();
    tty.write_all(text.as_bytes()).and_then(|()| tty.flush()).map_err(|_| PromptError::Failed)
}

/// A line as it is typed and seen. The line editing is the terminal's own; Ctrl-C ends the line with a byte instead of
/// a signal, and the old mode comes back whatever happens.
fn read_line(tty: &File) -> Result<String, PromptError> {
    let mut keys = tty.try_clone().map_err(|_| PromptError::Failed)?;
    // Longer than the mode: whatever comes before the terminal is as it was does not end the process at once.
    let mut stop = Stop::listen();
    give_back(tty, &stop)?;
    let mode = Mode::line_with_stop(tty)?;
    let line = typed(tty, &mut stop, move || {
        let mut bytes = Vec::new();
        loop {
            let mut byte = [0];
            match keys.read(&mut byte) {
                Ok(0) => return Err(PromptError::Interrupted),
                Ok(_) => match byte {
                    [b'\n'] => break,
                    [STOP] => return Err(PromptError::Interrupted),
                    [byte] if bytes.len() < MAX_ANSWER => bytes.push(byte),
                    // What is too long is read to its end, and fits nothing.
                    _ => {}
                },
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(PromptError::Failed),
            }
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    });
    drop(mode);
    // It came together with the answer.
    if stop.close() { Err(PromptError::Interrupted) } else { line }
}

/// Has the terminal given the mode that it has now, where a second signal ends the process at once.
fn give_back(tty: &File, stop: &Stop) -> Result<(), PromptError> {
    let before = termios::tcgetattr(tty).map_err(|_| PromptError::Failed)?;
    let tty = tty.try_clone().map_err(|_| PromptError::Failed)?;
    stop.before_an_end(move || {
        // A terminal that has gone needs no mode.
        let _ = termios::tcsetattr(&tty, SetArg::TCSANOW, &before);
    });
    Ok(())
}

/// What `read` takes from the terminal, unless the process is asked to end before: then the terminal has its mode back, and
/// whatever the command holds is closed on the way out.
///
/// `read` runs on a thread of its own, which a signal leaves behind waiting for keys: the process ends.
fn typed<T: Send + 'static>(
    tty: &File,
    stop: &mut Stop,
    read: impl FnOnce() -> Result<T, PromptError> + Send + 'static,
) -> Result<T, PromptError> {
    let before = termios::tcgetattr(tty).map_err(|_| PromptError::Failed)?;
    let (sender, receiver) = sync_channel(1);
    let reader = thread::Builder::new().spawn(move || {
        let _gone = sender.send(read());
        wipe_stack();
    });
    let reader = reader.map_err(|_| PromptError::Failed)?;
    loop {
        match receiver.recv_timeout(LOOK) {
            Ok(answer) => {
                // What it left of a passphrase is overwritten.
                let _ended = reader.join();
                return answer;
            }
            Err(RecvTimeoutError::Timeout) if stop.was_asked() => {
                // A terminal that has gone needs no mode.
                let _ = termios::tcsetattr(tty, SetArg::TCSANOW, &before);
                return Err(PromptError::Interrupted);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(PromptError::Failed),
        }
    }
}

/// The terminal's mode for one line.
struct Mode<'a> {
    tty: &'a File,
    before: Termios,
}

impl<'a> Mode<'a> {
    fn line_with_stop(tty: &'a File) -> Result<Self, PromptError> {
        let before = termios::tcgetattr(tty).map_err(|_| PromptError::Failed)?;
        let mut line = before.clone();
        line.local_flags.remove(LocalFlags::ISIG);
        line.local_flags.insert(LocalFlags::ICANON | LocalFlags::ECHO);
        if let Some(end) = line.control_chars.get_mut(SpecialCharacterIndices::VEOL as usize) {
            *end = STOP;
        }
        termios::tcsetattr(tty, SetArg::TCSANOW, &line).map_err(|_| PromptError::Failed)?;
        Ok(Self { tty, before })
    }
}

impl Drop for Mode<'_> {
    fn drop(&mut self) {
        // A terminal that has gone needs no mode.
        let _ = termios::tcsetattr(self.tty, SetArg::TCSANOW, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use nix::{
        fcntl::{FcntlArg, OFlag, fcntl},
        pty::{OpenptyResult, openpty},
    };

    use super::*;
    use crate::cli::prompt::PassphraseError;

    /// A terminal whose other end the test holds.
    struct Person {
        keys: File,
        /// Held, so that the terminal stays while nobody asks at it.
        slave: File,
    }

    impl Person {
        fn sit_down() -> (Self, Terminal) {
            let OpenptyResult { master, slave } = openpty(None, None).unwrap();
            fcntl(&master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
            let path = nix::unistd::ttyname(&slave).unwrap().into_os_string().into_string().unwrap();
            (Self { keys: master.into(), slave: slave.into() }, Terminal::at(path))
        }

        /// Reads the screen until it ends with `wanted`, then types.
        fn answer(&mut self, wanted: &str, keys: &str) -> String {
            let mut screen = Vec::new();
            self.look_until(|person| {
                while !screen.ends_with(wanted.as_bytes()) {
                    let mut byte = [0];
                    match person.keys.read(&mut byte) {
                        Ok(1) => screen.extend_from_slice(&byte),
                        _ => return false,
                    }
                }
                true
            });
            // A key pressed before the mode is set is judged by the old mode, as at any terminal; a person is slower.
            let secret = wanted.contains("passphrase");
            self.look_until(|person| {
                let flags = termios::tcgetattr(&person.slave).unwrap().local_flags;
                !flags.contains(LocalFlags::ISIG) && flags.contains(LocalFlags::ECHO) != secret
            });
            self.keys.write_all(keys.as_bytes()).unwrap();
            String::from_utf8(screen).unwrap()
        }

        /// Looks again and again, for a minute at most.
        fn look_until(&mut self, mut seen: impl FnMut(&mut Self) -> bool) {
            for _ in 0..20_000 {
                if seen(self) {
                    return;
                }
                thread::sleep(Duration::from_millis(3));
            }
            panic!("what was waited for did not appear");
        }

        /// Everything on the screen so far.
        fn rest(mut self) -> String {
            let mut screen = Vec::new();
            let mut byte = [0];
            while let Ok(1) = self.keys.read(&mut byte) {
                screen.extend_from_slice(&byte);
            }
            String::from_utf8(screen).unwrap()
        }

        fn has_its_mode_back(&self) -> bool {
            let flags = termios::tcgetattr(&self.slave).unwrap().local_flags;
            flags.contains(LocalFlags::ISIG | LocalFlags::ECHO | LocalFlags::ICANON)
        }
    }

    fn asked<T: Send + 'static>(
        mut terminal: Terminal,
        ask: impl FnOnce(&mut Terminal) -> Result<T, PromptError> + Send + 'static,
    ) -> thread::JoinHandle<Result<T, PromptError>> {
        thread::spawn(move || ask(&mut terminal))
    }

    const SURE: Question<'static> = Question::new("sure?", "--yes");

    #[test]
    fn a_passphrase_is_read_and_never_shown() {
        let (mut person, terminal) = Person::sit_down();
        let asked = asked(terminal, |terminal| terminal.passphrase("passphrase"));
        person.answer("passphrase: ", "gr\u{fc}ner Wal\n");
        assert_eq!(asked.join().unwrap().unwrap().expose(), "gr\u{fc}ner Wal");
        assert!(person.has_its_mode_back());
        assert!(!person.rest().contains("Wal"));
    }

    #[test]
    fn a_new_passphrase_is_typed_twice_and_its_strength_told() {
        let (mut person, terminal) = Person::sit_down();
        let asked = asked(terminal, |terminal| terminal.new_passphrase("new passphrase"));
        person.answer("new passphrase: ", "one\n");
        let told = person.answer("new passphrase, again: ", "other\n");
        assert!(told.contains("too weak: it would hold a laboratory off for less than a second"), "{told}");
        let told = person.answer("new passphrase: ", "plinth oxbow garnet mulled voyage\n");
        assert!(told.contains("not the same"), "{told}");
        person.answer("new passphrase, again: ", "plinth oxbow garnet mulled voyage\n");
        assert_eq!(asked.join().unwrap().unwrap().expose(), "plinth oxbow garnet mulled voyage");
        assert!(!person.rest().contains("plinth"));
    }

    #[test]
    fn differing_passphrases_end_after_three_tries() {
        let (mut person, terminal) = Person::sit_down();
        let asked = asked(terminal, |terminal| terminal.new_passphrase("new passphrase"));
        for _ in 0..TRIES {
            person.answer("new passphrase: ", "one\n");
            person.answer("new passphrase, again: ", "other\n");
        }
        let gave_up = PromptError::GaveUp { flag: "--new-passphrase-fd".into() };
        assert_eq!(asked.join().unwrap().unwrap_err(), gave_up);
    }

    #[test]
    fn stop_at_a_passphrase_leaves_the_terminal_as_it_was_and_the_process_alive() {
        for keys in ["half\u{3}", "\u{4}"] {
            let (mut person, terminal) = Person::sit_down();
            let asked = asked(terminal, |terminal| terminal.passphrase("passphrase"));
            person.answer("passphrase: ", keys);
            assert_eq!(asked.join().unwrap().unwrap_err(), PromptError::Interrupted);
            assert!(person.has_its_mode_back());
        }
    }

    #[test]
    fn stop_at_a_question_leaves_the_terminal_as_it_was() {
        for keys in ["ye\u{3}", "\u{4}"] {
            let (mut person, terminal) = Person::sit_down();
            let asked = asked(terminal, |terminal| terminal.confirm(SURE));
            person.answer("sure? [yes/no] ", keys);
            assert_eq!(asked.join().unwrap().unwrap_err(), PromptError::Interrupted);
            assert!(person.has_its_mode_back());
        }
    }

    #[test]
    fn yes_and_no_are_words() {
        for (typed, want) in [("yes", true), ("N", false), (" No ", false), ("y", true)] {
            let (mut person, terminal) = Person::sit_down();
            let asked = asked(terminal, |terminal| terminal.confirm(SURE));
            person.answer("sure? [yes/no] ", "maybe\n");
            person.answer("sure? [yes/no] ", &format!("{typed}\n"));
            assert_eq!(asked.join().unwrap().unwrap(), want);
        }
    }

    #[test]
    fn answers_that_do_not_fit_end_after_three_tries() {
        let (mut person, terminal) = Person::sit_down();
        let asked = asked(terminal, |terminal| terminal.choose(SURE, &["hide", "destroy\u{1b}[2J"]));
        let menu = person.answer("number [1-2]: ", "3\n");
        assert!(menu.contains("  1  hide\r\n  2  destroy\\u{1b}[2J\r\n"), "{menu}");
        person.answer("number [1-2]: ", "0\n");
        person.answer("number [1-2]: ", &format!("{}\n", "9".repeat(3000)));
        assert_eq!(asked.join().unwrap().unwrap_err(), PromptError::GaveUp { flag: "--yes".into() });
    }

    #[test]
    fn a_choice_and_a_text_are_taken() {
        let (mut person, terminal) = Person::sit_down();
        let asked = asked(terminal, |terminal| {
            let choice = terminal.choose(SURE, &["hide", "destroy"])?;
            Ok((choice, terminal.text(Question::new("name", "--name"))?))
        });
        person.answer("number [1-2]: ", " 2 \n");
        person.answer("name: ", "  Mira \u{421}\n");
        assert_eq!(asked.join().unwrap().unwrap(), (1, "Mira \u{421}".to_owned()));
    }

    #[test]
    fn without_a_terminal_the_flag_is_named() {
        let mut nowhere = Terminal::at("/nonexistent/tty");
        let error = nowhere.confirm(SURE).unwrap_err();
        assert_eq!(error, PromptError::NoTerminal { flag: "--yes".into() });
        let error = nowhere.passphrase("passphrase").unwrap_err();
        assert_eq!(error, PromptError::NoTerminal { flag: "--passphrase-fd".into() });
        let error = nowhere.new_passphrase("passphrase").unwrap_err();
        assert_eq!(error, PromptError::NoTerminal { flag: "--new-passphrase-fd".into() });
    }

    #[test]
    fn nothing_typed_is_no_passphrase() {
        let (mut person, terminal) = Person::sit_down();
        let asked = asked(terminal, |terminal| terminal.passphrase("passphrase"));
        person.answer("passphrase: ", "\n");
        assert_eq!(asked.join().unwrap().unwrap_err(), PassphraseError::Empty.into());
    }
}
