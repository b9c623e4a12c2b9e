//! The only way to standard output and standard error.
//!
//! Results go to standard output, talk to standard error. With `--json` each result is one line, an object that begins
//! with `"v":1` and `"type"`; failures are such lines too. Everything passes [`crate::untrusted`] on its way, so
//! nothing that is printed can act on a terminal, whoever wrote it.
//!
//! Contract of `--json`: readers ignore keys that they do not know; a key that is removed or changes its meaning raises
//! `v`; text is what peers wrote, escaped as JSON where a terminal could act on it.

use std::{
    fmt,
    io::{self, ErrorKind, IsTerminal, Write},
    sync::{Arc, Mutex, PoisonError},
};

use nix::sys::stat::{FileStat, SFlag, fstat, stat};
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter};

use crate::{
    error::{Error, Kind},
    untrusted::{Printable, is_plain},
};

/// Version of the format of `--json`.
pub const JSON_VERSION: u8 = 1;

/// Who reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// A person.
    #[default]
    Human,
    /// A program: JSON Lines.
    Json,
}

/// One result of a command, for both kinds of readers.
///
/// It serialises as a map (a struct with named fields), in `snake_case`, with times in RFC 3339 UTC.
pub trait Record: Serialize {
    /// The `type` of the line, in `snake_case`.
    const TYPE: &'static str;

    /// The text for people; a line break is added if the last line has none. Nothing written means no line.
    ///
    /// # Errors
    /// Those of the formatter.
    fn human(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

/// Why nothing more can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OutputError {
    /// The reader of a pipe has gone. The command ends early, and has succeeded.
    #[error("the reader of the output has gone")]
    ReaderGone,
    /// The output cannot be written: a full disk behind a redirection, say.
    #[error("the output cannot be written")]
    Failed,
    /// A record that is no map. A bug of the command.
    #[error("a record cannot be written as JSON")]
    Shape,
}

impl From<OutputError> for Error {
    fn from(error: OutputError) -> Self {
        match error {
            OutputError::ReaderGone => Self::reader_gone(),
            OutputError::Failed => {
                Self::refused("the output cannot be written", "check where it is redirected to")
            }
            OutputError::Shape => Self::bug("a record cannot be written as JSON"),
        }
    }
}

/// Where the program's words go.
pub struct Output {
    format: Format,
    quiet: bool,
    sink: Sink,
}

enum Sink {
    Process,
    Captured(Captured),
}

#[derive(Clone, Copy)]
enum Stream {
    Out,
    Err,
}

impl Output {
    /// Standard output and standard error of this process. `quiet` silences talk, never results, warnings or failures.
    pub const fn process(format: Format, quiet: bool) -> Self {
        Self { format, quiet, sink: Sink::Process }
    }

    /// An output that keeps everything in memory, and the handle to read it by: for tests, and for programs that run
    /// commands inside themselves.
    pub fn captured(format: Format, quiet: bool) -> (Self, Captured) {
        let captured = Captured::default();
        (Self { format, quiet, sink: Sink::Captured(captured.clone()) }, captured)
    }

    /// Who reads.
    pub const fn format(&self) -> Format {
        self.format
    }

    /// Whether talk is silenced.
    pub const fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Whether somebody watches standard error who wants to: then progress may be drawn there.
    pub fn is_watched(&self) -> bool {
        self.format == Format::Human
            && !self.quiet
            && matches!(self.sink, Sink::Process)
            && io::stderr().is_terminal()
    }

    /// Whether what goes to standard output goes anywhere. It does not where it is the null device, or was closed before the
    /// program started: the language's runtime then puts the null device in its place, which looks as one that a parent put
    /// there on purpose. Both mean that nobody sees anything. A plain file at the null device's path is none: what is written
    /// to it stays.
    pub fn goes_somewhere(&self) -> bool {
        if matches!(self.sink, Sink::Captured(_)) {
            return true;
        }
        match (stat("/dev/null"), fstat(io::stdout())) {
            (Ok(null), Ok(ours)) => !is_same_device(&ours, &null),
            // Without a null device it is none; what cannot be looked at is closed.
            (Err(_), Ok(_)) => true,
            (_, Err(_)) => false,
        }
    }

    /// A result, on standard output, complete when this returns.
    ///
    /// # Errors
    /// See [`OutputError`].
    pub fn emit<R: Record>(&self, record: &R) -> Result<(), OutputError> {
        match self.format {
            Format::Human => self.write(Stream::Out, &human_text(record)),
            Format::Json => self.write(Stream::Out, &json_line(R::TYPE, record)?),
        }
    }

    /// Talk: a line on standard error that says what goes on. Not with `-q`.
    ///
    /// It has no result: words about the work do not stop the work.
    pub fn talk(&self, text: impl fmt::Display) {
        if !self.quiet {
            self.tell(&text.to_string());
        }
    }

    /// A line on standard error that begins with `warning:`, also with `-q`.
    pub fn warn(&self, text: impl fmt::Display) {
        self.tell(&format!("warning: {text}"));
    }

    /// A failure: `error:` and `hint:` on standard error, or a line of type `error` on standard output, or on standard error
    /// where that cannot be written or goes nowhere. A reader that has gone is no failure and gets no word.
    pub fn fail(&self, error: &Error) {
        if error.kind() == Kind::ReaderGone {
            return;
        }
        match self.format {
            Format::Human => self.tell(&format!("error: {}\nhint: {}", error.message(), error.hint())),
            Format::Json => {
                let failure = Failure { code: error.code(), message: error.message(), hint: error.hint() };
                // Where neither can be written, the exit code says it.
                if let Ok(line) = json_line("error", &failure)
                    && (!self.goes_somewhere() || self.write(Stream::Out, &line).is_err())
                {
                    let _ = self.write(Stream::Err, &line);
                }
            }
        }
    }

    /// Rings the terminal's bell, for an alert. Also with `-q`: whoever is in need is not to be missed. Does nothing
    /// where standard error is no terminal, or with `--json`.
    pub fn bell(&self) {
        if self.format == Format::Json {
            return;
        }
        match &self.sink {
            Sink::Process if io::stderr().is_terminal() => {
                let mut stderr = io::stderr().lock();
                let _ = stderr.write_all(b"\x07").and_then(|()| stderr.flush());
            }
            Sink::Process => {}
            Sink::Captured(captured) => captured.with(|kept| kept.bells += 1),
        }
    }

    fn tell(&self, text: &str) {
        let text = with_line_break(Printable::whole(text).to_string());
        // Standard error may be closed; the exit code still speaks.
        let _ = self.write(Stream::Err, &text);
    }

    fn write(&self, stream: Stream, text: &str) -> Result<(), OutputError> {
        let written = match (&self.sink, stream) {
            (Sink::Process, Stream::Out) => write_all(io::stdout().lock(), text),
            (Sink::Process, Stream::Err) => write_all(io::stderr().lock(), text),
            (Sink::Captured(captured), stream) => captured.with(|kept| kept.push(stream, text)),
        };
        written.map_err(|error| match error.kind() {
            ErrorKind::BrokenPipe => OutputError::ReaderGone,
            _ => OutputError::Failed,
        })
    }
}

/// Whether both are the same character device. Pipes and plain files have the number 0 for a device, all of them.
fn is_same_device(one: &FileStat, other: &FileStat) -> bool {
    let is_device =
        |stat: &FileStat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFCHR;
    is_device(one) && is_device(other) && one.st_rdev == other.st_rdev
}

fn write_all(mut to: impl Write, text: &str) -> io::Result<()> {
    to.write_all(text.as_bytes())?;
    to.flush()
}

fn human_text<R: Record>(record: &R) -> String {
    struct Human<'a, R>(&'a R);
    impl<R: Record> fmt::Display for Human<'_, R> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.human(f)
        }
    }
    let text = Human(record).to_string();
    if text.is_empty() { text } else { with_line_break(Printable::whole(&text).to_string()) }
}

fn with_line_break(mut text: String) -> String {
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

#[derive(Serialize)]
struct Line<'a, R> {
    v: u8,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(flatten)]
    body: &'a R,
}

#[derive(Serialize)]
struct Failure<'a> {
    code: &'a str,
    message: &'a str,
    hint: &'a str,
}

fn json_line<R: Serialize>(kind: &'static str, body: &R) -> Result<String, OutputError> {
    let mut out = Vec::with_capacity(256);
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, Visible);
    Line { v: JSON_VERSION, kind, body }.serialize(&mut serializer).map_err(|_| OutputError::Shape)?;
    out.push(b'\n');
    String::from_utf8(out).map_err(|_| OutputError::Shape)
}

/// Compact JSON in which whatever a terminal could act on is written as `\uXXXX`.
struct Visible;

impl Formatter for Visible {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(|c| !is_plain(c)) {
            let (plain, odd) = rest.split_at(at);
            CompactFormatter.write_string_fragment(writer, plain)?;
            let mut chars = odd.chars();
            if let Some(c) = chars.next() {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
            rest = chars.as_str();
        }
        CompactFormatter.write_string_fragment(writer, rest)
    }
}

/// What an output in memory has taken.
#[derive(Clone, Default)]
pub struct Captured(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    out: String,
    err: String,
    bells: usize,
    reader_gone: bool,
}

impl Kept {
    fn push(&mut self, stream: Stream, text: &str) -> io::Result<()> {
        match stream {
            Stream::Out if self.reader_gone => return Err(ErrorKind::BrokenPipe.into()),
            Stream::Out => self.out.push_str(text),
            Stream::Err => self.err.push_str(text),
        }
        Ok(())
    }
}

impl Captured {
    /// What went to standard output.
    pub fn stdout(&self) -> String {
        self.with(|kept| kept.out.clone())
    }

    /// What went to standard error.
    pub fn stderr(&self) -> String {
        self.with(|kept| kept.err.clone())
    }

    /// How often the bell rang.
    pub fn bells(&self) -> usize {
        self.with(|kept| kept.bells)
    }

    /// The lines of standard output, read as JSON; lines that are none are left out.
    pub fn records(&self) -> Vec<serde_json::Value> {
        self.with(|kept| kept.out.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// From now on standard output behaves as a pipe whose reader has gone.
    pub fn leave(&self) {
        self.with(|kept| kept.reader_gone = true);
    }

    fn with<T>(&self, use_it: impl FnOnce(&mut Kept) -> T) -> T {
        // Text that a panicking thread left is still text.
        use_it(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::untrusted::Untrusted;

    #[derive(Serialize)]
    struct Message {
        chat: Untrusted<String>,
        text: Untrusted<String>,
        number: u64,
    }

    impl Record for Message {
        const TYPE: &'static str = "message";
        fn human(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{}: {}", self.chat, self.text.block())
        }
    }

    /// Where a plain file lies at the null device's path, as in a badly made container.
    #[test]
    fn only_a_device_is_the_null_device() {
        let null = stat("/dev/null").unwrap();
        let file = stat(&std::env::current_exe().unwrap()).unwrap();
        let (pipe, _writer) = io::pipe().unwrap();
        let pipe = fstat(&pipe).unwrap();
        assert!(is_same_device(&null, &null));
        for other in [&file, &pipe, &stat("/dev/zero").unwrap()] {
            assert!(!is_same_device(other, &null));
        }
        for ours in [&file, &pipe, &null] {
            assert!(!is_same_device(ours, &file), "a plain file at its path");
        }
    }

    fn message(text: &str) -> Message {
        Message { chat: "Mira".to_owned().into(), text: text.to_owned().into(), number: 7 }
    }

    #[test]
    fn people_get_lines_and_programs_get_json_lines() {
        let (output, captured) = Output::captured(Format::Human, false);
        output.emit(&message("hello\nthere")).unwrap();
        assert_eq!(captured.stdout(), "Mira: hello\nthere\n");
        let (output, captured) = Output::captured(Format::Json, false);
        output.emit(&message("hello\nthere")).unwrap();
        assert_eq!(
            captured.stdout(),
            "{\"v\":1,\"type\":\"message\",\"chat\":\"Mira\",\"text\":\"hello\\nthere\",\"number\":7}\n"
        );
        assert_eq!(captured.records()[0]["text"], "hello\nthere");
    }

    #[test]
    fn failures_are_two_lines_or_a_record() {
        let error = Error::refused("the ticket was used", "ask for a new one").with_code("ticket_used");
        let (output, captured) = Output::captured(Format::Human, true);
        output.fail(&error);
        assert_eq!(captured.stderr(), "error: the ticket was used\nhint: ask for a new one\n");
        assert_eq!(captured.stdout(), "");
        let (output, captured) = Output::captured(Format::Json, true);
        output.fail(&error);
        assert_eq!(
            captured.records(),
            [
                json!({"v": 1, "type": "error", "code": "ticket_used", "message": "the ticket was used", "hint": "ask for a new one"})
            ]
        );
        assert_eq!(captured.stderr(), "");
    }

    #[test]
    fn quiet_silences_talk_only() {
        let (output, captured) = Output::captured(Format::Human, true);
        output.talk("working");
        output.warn("swap is on");
        output.bell();
        output.emit(&message("m")).unwrap();
        assert_eq!(captured.stderr(), "warning: swap is on\n");
        assert_eq!(captured.stdout(), "Mira: m\n");
        assert_eq!(captured.bells(), 1);
        let (output, captured) = Output::captured(Format::Json, false);
        output.talk("working");
        output.bell();
        assert_eq!((captured.stderr().as_str(), captured.bells()), ("working\n", 0));
    }

    #[test]
    fn a_reader_that_has_gone_is_success() {
        let (output, captured) = Output::captured(Format::Json, false);
        captured.leave();
        let error = Error::from(output.emit(&message("m")).unwrap_err());
        assert_eq!(error.kind(), Kind::ReaderGone);
        assert_eq!(crate::cli::exit::Exit::from(&error).code(), 0);
        output.fail(&error);
        assert_eq!(captured.stderr(), "");
    }

    #[test]
    fn a_failure_to_write_is_told_apart() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        assert_eq!(write_all(Full, "x").unwrap_err().kind(), ErrorKind::StorageFull);
        assert_eq!(Error::from(OutputError::Failed).kind(), Kind::Refused);
    }

    #[test]
    fn a_record_that_is_no_map_is_a_bug_and_no_panic() {
        #[derive(Serialize)]
        struct Bare(u8);
        impl Record for Bare {
            const TYPE: &'static str = "bare";
            fn human(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
        let (output, captured) = Output::captured(Format::Json, false);
        assert_eq!(output.emit(&Bare(1)).unwrap_err(), OutputError::Shape);
        assert_eq!(captured.stdout(), "");
    }

    #[test]
    fn words_of_the_program_pass_the_same_door() {
        let (output, captured) = Output::captured(Format::Human, false);
        output.talk("a name that was not marked: \u{1b}[31m");
        output.fail(&Error::negative("no chat called \u{202e}x", "see \u{7}"));
        assert_eq!(
            captured.stderr(),
            "a name that was not marked: \\u{1b}[31m\nerror: no chat called \\u{202e}x\nhint: see \\u{7}\n"
        );
    }

    proptest! {
        #[test]
        fn json_says_what_was_written_and_nothing_in_it_acts(text in any::<String>(), odd in "[\u{1b}\u{7f}-\u{9f}\u{202a}-\u{202e}\u{200b}\u{e000}😀\"\\\\]{0,20}") {
            let text = format!("{text}{odd}");
            let line = json_line("t", &json!({ "text": text })).unwrap();
            prop_assert_eq!(line.matches('\n').count(), 1);
            prop_assert!(line.trim_end().chars().all(is_plain));
            let back: Value = serde_json::from_str(&line).unwrap();
            prop_assert_eq!(&back["text"], &Value::String(text));
        }
    }
}
