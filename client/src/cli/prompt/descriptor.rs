//! Passphrases from inherited file descriptors: `--passphrase-fd N`, `--new-passphrase-fd N`.
//!
//! A descriptor gives one line for each passphrase. It is read byte by byte, so that what follows on it is left for
//! whoever reads next; nothing is kept.

use std::{
    fs::File,
    io::{self, IsTerminal, Read},
    os::fd::AsFd,
};

use zeroize::Zeroizing;

use super::{MAX_PASSPHRASE, PassphraseError, Prompt, PromptError, Question, TypedPassphrase};

const CURRENT: &str = "--passphrase-fd";
const NEW: &str = "--new-passphrase-fd";

/// The descriptor that commands with `-` read the rest of.
const STDIN: u32 = 0;

/// Which descriptors the command line named.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Descriptors {
    /// `--passphrase-fd`.
    pub passphrase: Option<u32>,
    /// `--new-passphrase-fd`; may be the same as the other, which then gives its lines in the order of the questions.
    pub new_passphrase: Option<u32>,
}

/// Takes passphrases from descriptors where the command line named them, and leaves everything else to another prompt.
pub struct FromDescriptors<P> {
    descriptors: Descriptors,
    /// Opened at the first question and kept, so that the next line is the next one.
    open: Vec<(u32, Lines)>,
    /// Taken before its question came, because the rest of standard input is something else.
    early: Option<TypedPassphrase>,
    others: P,
}

impl<P: Prompt> FromDescriptors<P> {
    /// Descriptors first, `others` for what they do not answer.
    pub const fn new(descriptors: Descriptors, others: P) -> Self {
        Self { descriptors, open: Vec::new(), early: None, others }
    }

    /// The prompt for everything else.
    pub const fn others(&self) -> &P {
        &self.others
    }

    fn line(&mut self, number: u32, flag: &'static str) -> Result<TypedPassphrase, PromptError> {
        let index = match self.open.iter().position(|(open, _)| *open == number) {
            Some(index) => index,
            None => {
                self.open.push((number, Lines::open(number, flag)?));
                self.open.len() - 1
            }
        };
        match self.open.get_mut(index) {
            Some((_, lines)) => lines.next(flag),
            None => Err(PromptError::Descriptor { flag }),
        }
    }
}

impl<P: Prompt> Prompt for FromDescriptors<P> {
    fn passphrase(&mut self, what: &str) -> Result<TypedPassphrase, PromptError> {
        if let Some(early) = self.early.take() {
            return Ok(early);
        }
        match self.descriptors.passphrase {
            Some(number) => self.line(number, CURRENT),
            None => self.others.passphrase(what),
        }
    }

    fn new_passphrase(&mut self, what: &str) -> Result<TypedPassphrase, PromptError> {
        match self.descriptors.new_passphrase {
            Some(number) => self.line(number, NEW),
            None => self.others.new_passphrase(what),
        }
    }

    fn confirm(&mut self, question: Question<'_>) -> Result<bool, PromptError> {
        self.others.confirm(question)
    }

    fn choose(&mut self, question: Question<'_>, options: &[&str]) -> Result<usize, PromptError> {
        self.others.choose(question, options)
    }

    fn before_input(&mut self) -> Result<(), PromptError> {
        if self.descriptors.passphrase == Some(STDIN) && self.early.is_none() {
            self.early = Some(self.line(STDIN, CURRENT)?);
        }
        self.others.before_input()
    }

    fn text(&mut self, question: Question<'_>) -> Result<String, PromptError> {
        self.others.text(question)
    }
}

struct Lines(File);

impl Lines {
    fn open(number: u32, flag: &'static str) -> Result<Self, PromptError> {
        let file = match number {
            STDIN => standard_input(),
            // What the program writes to is nothing to read from.
            1 | 2 => return Err(PromptError::Descriptor { flag }),
            _ => File::open(format!("/dev/fd/{number}")),
        };
        let file = file.map_err(|_| PromptError::Descriptor { flag })?;
        if file.is_terminal() { Err(PromptError::DescriptorIsTerminal { flag }) } else { Ok(Self(file)) }
    }

    fn next(&mut self, flag: &'static str) -> Result<TypedPassphrase, PromptError> {
        read_line(&mut self.0, flag)
    }
}

/// Standard input without the library's buffer, in which what was read stays as long as the process lives. Whoever
/// reads on goes on behind what was read here.
pub(in crate::cli) fn standard_input() -> io::Result<File> {
    Ok(File::from(io::stdin().as_fd().try_clone_to_owned()?))
}

/// One line, of at most [`MAX_PASSPHRASE`] bytes and its line break.
fn read_line(from: &mut impl Read, flag: &'static str) -> Result<TypedPassphrase, PromptError> {
    let mut line = Zeroizing::new([0u8; MAX_PASSPHRASE + 2]);
    let mut length = 0;
    loop {
        let Some(place) = line.get_mut(length..=length) else {
            return Err(PassphraseError::TooLong.into());
        };
        match from.read(place) {
            Ok(0) if length == 0 => return Err(PromptError::DescriptorIsEmpty { flag }),
            Ok(0) => break,
            Ok(_) => {
                length += 1;
                if line.get(length - 1) == Some(&b'\n') {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(PromptError::Descriptor { flag }),
        }
    }
    let line = line.get(..length).unwrap_or_default();
    Ok(TypedPassphrase::of_line(line)?)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Seek, Write},
        os::fd::AsRawFd,
    };

    use super::{
        super::{Answer, Scripted},
        *,
    };

    fn from(descriptors: Descriptors) -> FromDescriptors<Scripted> {
        FromDescriptors::new(descriptors, Scripted::new([Answer::passphrase("typed"), Answer::Confirm(true)]))
    }

    fn number(file: &impl AsRawFd) -> Option<u32> {
        Some(u32::try_from(file.as_raw_fd()).unwrap())
    }

    fn file(content: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        file.rewind().unwrap();
        file
    }

    #[test]
    fn a_file_and_a_pipe_give_a_line() {
        let held = file("gr\u{fc}n\n".as_bytes());
        let mut prompt = from(Descriptors { passphrase: number(&held), new_passphrase: None });
        assert_eq!(prompt.passphrase("passphrase").unwrap().expose(), "gr\u{fc}n");

        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"from a pipe\nthe message").unwrap();
        let mut prompt = from(Descriptors { passphrase: None, new_passphrase: number(&reader) });
        assert_eq!(prompt.new_passphrase("new passphrase").unwrap().expose(), "from a pipe");
        drop(writer);
        let mut rest = String::new();
        let mut reader = reader;
        reader.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "the message", "what follows is left for the next reader");
    }

    #[test]
    fn one_descriptor_gives_a_line_for_each_question() {
        let held = file(b"old\nnew");
        let both = Descriptors { passphrase: number(&held), new_passphrase: number(&held) };
        let mut prompt = from(both);
        assert_eq!(prompt.passphrase("passphrase").unwrap().expose(), "old");
        assert_eq!(prompt.new_passphrase("new passphrase").unwrap().expose(), "new");
        assert_eq!(
            prompt.passphrase("passphrase").unwrap_err(),
            PromptError::DescriptorIsEmpty { flag: CURRENT }
        );
    }

    #[test]
    fn what_no_flag_answers_is_asked_elsewhere() {
        let mut prompt = from(Descriptors::default());
        assert_eq!(prompt.passphrase("passphrase").unwrap().expose(), "typed");
        assert!(prompt.confirm(Question::new("sure?", "--yes")).unwrap());
        assert_eq!(prompt.others().asked(), ["passphrase", "sure?"]);
    }

    #[test]
    fn bad_descriptors_are_named() {
        let flag = CURRENT;
        let read = |number| {
            from(Descriptors { passphrase: Some(number), new_passphrase: None })
                .passphrase("passphrase")
                .unwrap_err()
        };
        for number in [1, 2, 999_999, u32::MAX] {
            assert_eq!(read(number), PromptError::Descriptor { flag }, "{number}");
        }
        let directory = File::open("/").unwrap();
        assert_eq!(read(number(&directory).unwrap()), PromptError::Descriptor { flag });
        let empty = file(b"");
        assert_eq!(read(number(&empty).unwrap()), PromptError::DescriptorIsEmpty { flag });
        let blank = file(b"\nsecond");
        assert_eq!(read(number(&blank).unwrap()), PassphraseError::Empty.into());
        let long = file(&[b'x'; 5000]);
        assert_eq!(read(number(&long).unwrap()), PassphraseError::TooLong.into());
        let longest = file(&[b'x'; MAX_PASSPHRASE]);
        assert_eq!(
            from(Descriptors { passphrase: number(&longest), new_passphrase: None })
                .passphrase("passphrase")
                .unwrap()
                .expose()
                .len(),
            MAX_PASSPHRASE
        );
        let binary = file(b"\xff\xff\n");
        assert_eq!(read(number(&binary).unwrap()), PassphraseError::NotText.into());
    }

    #[test]
    fn a_terminal_would_show_the_passphrase() {
        let pty = nix::pty::openpty(None, None).unwrap();
        let got = from(Descriptors { passphrase: number(&pty.slave), new_passphrase: None }).passphrase("p");
        assert_eq!(got.unwrap_err(), PromptError::DescriptorIsTerminal { flag: CURRENT });
    }
}
