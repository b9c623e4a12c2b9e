//! Text that peers wrote, from its decoding to the screen.
//!
//! Invariants: [`Untrusted`] has no way to a screen but [`Printable`]; what that lets through is chosen by an
//! allow-list of Unicode general categories (UAX 44), everything else becomes a visible escape such as `\u{202e}`;
//! printing what was printed changes nothing.
//!
//! Known gaps: letters that look alike are not told apart (that is what verification is for); text in right-to-left
//! scripts is shown in the order that the terminal gives it, and may draw neighbouring text on its line along; an
//! escape that was typed by hand looks like one that was made here.

use std::fmt::{self, Write};

use serde::{Deserialize, Serialize};
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

/// Most characters of a line: names, titles, one-line previews.
pub const MAX_LINE: usize = 512;

/// Most characters of a block: a little above the longest text that fits into an envelope.
pub const MAX_BLOCK: usize = 80_000;

/// Most combining marks on one character. Vietnamese, Hebrew with cantillation and Tibetan stay below; text that
/// climbs over its neighbours does not.
const MAX_MARKS: usize = 6;

/// Room for the note that says how much was cut off.
const CUT_NOTE: usize = 64;

/// A value that a peer chose. Compare it, store it, send it; to show it, go through [`line`](Self::line) or
/// [`block`](Self::block). `Display` is `line`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Untrusted<T>(T);

impl<T> Untrusted<T> {
    /// Marks a value as chosen by a peer.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself, for everything but a screen or a log.
    pub const fn expose(&self) -> &T {
        &self.0
    }

    /// Unwraps the value, for everything but a screen or a log.
    pub fn into_exposed(self) -> T {
        self.0
    }
}

impl<T: AsRef<str>> Untrusted<T> {
    /// For one line: line breaks are escaped too, at most [`MAX_LINE`] characters come out.
    pub fn line(&self) -> Printable<'_> {
        Printable::line(self.0.as_ref())
    }

    /// For several lines: line breaks are kept (also those of Windows), at most [`MAX_BLOCK`] characters come out.
    pub fn block(&self) -> Printable<'_> {
        Printable::block(self.0.as_ref())
    }
}

impl<T: AsRef<str>> fmt::Display for Untrusted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.line().fmt(f)
    }
}

impl<T> fmt::Debug for Untrusted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(_) = self;
        f.write_str("Untrusted(..)")
    }
}

impl<T> From<T> for Untrusted<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

/// Text made printable: `Display` writes it with everything escaped that could do more than be read.
#[derive(Clone, Copy)]
pub struct Printable<'a> {
    text: &'a str,
    breaks: bool,
    limit: usize,
}

impl<'a> Printable<'a> {
    /// Any text as one line; see [`Untrusted::line`].
    pub const fn line(text: &'a str) -> Self {
        Self { text, breaks: false, limit: MAX_LINE }
    }

    /// Any text as a block; see [`Untrusted::block`].
    pub const fn block(text: &'a str) -> Self {
        Self { text, breaks: true, limit: MAX_BLOCK }
    }

    /// Text of the program itself, as a block of any length. What a peer wrote is in it only as `Printable` by then,
    /// and stays as it is.
    pub const fn whole(text: &'a str) -> Self {
        Self { text, breaks: true, limit: usize::MAX }
    }

    fn pieces(&self) -> Pieces<'a> {
        Pieces { rest: self.text, breaks: self.breaks, context: Context::NOTHING }
    }
}

impl fmt::Debug for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Printable(..)")
    }
}

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut length = 0usize;
        let fits = self.pieces().all(|piece| {
            length = length.saturating_add(piece.len());
            length <= self.limit
        });
        if fits {
            return self.pieces().try_for_each(|piece| piece.write(f));
        }
        let room = self.limit.saturating_sub(CUT_NOTE);
        let mut written = 0usize;
        let mut pieces = self.pieces();
        loop {
            let before = pieces.rest;
            match pieces.next() {
                Some(piece) if written + piece.len() <= room => {
                    piece.write(f)?;
                    written += piece.len();
                }
                Some(_) => return write!(f, "... ({} more characters)", before.chars().count()),
                None => return Ok(()),
            }
        }
    }
}

/// What comes out for one character.
enum Piece {
    Kept(char),
    Escaped(char),
}

impl Piece {
    /// Length in characters.
    fn len(&self) -> usize {
        match self {
            Self::Kept(_) => 1,
            Self::Escaped(c) => escape(*c).count(),
        }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kept(c) => f.write_char(*c),
            Self::Escaped(c) => escape(*c).try_for_each(|c| f.write_char(c)),
        }
    }
}

/// `\n`, `\r`, `\t`, else `\u{..}`.
fn escape(c: char) -> impl Iterator<Item = char> {
    let short = matches!(c, '\n' | '\r' | '\t');
    let (named, numbered) = (c.escape_default(), c.escape_unicode());
    named.filter(move |_| short).chain(numbered.filter(move |_| !short))
}

/// What stands before a character, as far as it decides about it.
#[derive(Clone, Copy)]
struct Context {
    base: Base,
    /// Marks on the base so far.
    marks: usize,
    /// The character right before, a kept joiner counting as such.
    joined: bool,
}

/// The character that marks and joiners attach to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Base {
    /// The beginning of a line, or an escape: nothing may attach.
    None,
    /// A letter of a script that is written with joiners (U+200C, U+200D).
    Joining,
    /// A Mongolian letter, which has variation selectors of its own.
    Mongolian,
    /// A symbol; emoji are joined with U+200D.
    Symbol,
    Other,
}

impl Context {
    const NOTHING: Self = Self { base: Base::None, marks: 0, joined: false };

    const fn on(base: Base) -> Self {
        Self { base, marks: 0, joined: false }
    }
}

struct Pieces<'a> {
    rest: &'a str,
    breaks: bool,
    context: Context,
}

impl Iterator for Pieces<'_> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        let mut chars = self.rest.chars();
        let mut c = chars.next()?;
        if self.breaks && c == '\r' && chars.as_str().starts_with('\n') {
            // A line break of Windows is a line break.
            chars.next();
            c = '\n';
        }
        self.rest = chars.as_str();
        match judge(c, self.rest.chars().next(), self.context, self.breaks) {
            Some(context) => {
                self.context = context;
                Some(Piece::Kept(c))
            }
            None => {
                self.context = Context::NOTHING;
                Some(Piece::Escaped(c))
            }
        }
    }
}

/// The allow-list: the context after `c` if it may be printed as it is.
fn judge(c: char, next: Option<char>, before: Context, breaks: bool) -> Option<Context> {
    if c == '\n' && breaks {
        return Some(Context::NOTHING);
    }
    if matches!(c, '\u{200c}' | '\u{200d}') {
        let allowed = !before.joined
            && match before.base {
                Base::Joining => next.is_some_and(|next| base_of(next) == Some(Base::Joining)),
                Base::Symbol => {
                    c == '\u{200d}' && next.is_some_and(|next| base_of(next) == Some(Base::Symbol))
                }
                Base::None | Base::Mongolian | Base::Other => false,
            };
        return allowed.then_some(Context { joined: true, ..before });
    }
    if let Some(base) = base_of(c) {
        return Some(Context::on(base));
    }
    if is_mark(c) {
        let selects = match c {
            // Text or emoji style, right behind what it is about.
            '\u{fe0e}' | '\u{fe0f}' => before.marks == 0,
            '\u{180b}'..='\u{180d}' | '\u{180f}' => before.base == Base::Mongolian,
            _ => true,
        };
        let allowed = before.base != Base::None && before.marks < MAX_MARKS && !before.joined && selects;
        return allowed.then_some(Context { marks: before.marks + 1, ..before });
    }
    None
}

/// What a character that stands for itself is; `None` for marks and for all that is not to be printed.
fn base_of(c: char) -> Option<Base> {
    if c.is_ascii() {
        return (' '..='~').contains(&c).then_some(Base::Other);
    }
    if is_blank(c) {
        return None;
    }
    use GeneralCategory as G;
    match c.general_category() {
        G::UppercaseLetter | G::LowercaseLetter | G::TitlecaseLetter | G::ModifierLetter | G::OtherLetter => {
            Some(match c {
                '\u{0600}'..='\u{08ff}' | '\u{0900}'..='\u{0dff}' => Base::Joining,
                '\u{1800}'..='\u{18af}' => Base::Mongolian,
                _ => Base::Other,
            })
        }
        G::DecimalNumber
        | G::LetterNumber
        | G::OtherNumber
        | G::ConnectorPunctuation
        | G::DashPunctuation
        | G::OpenPunctuation
        | G::ClosePunctuation
        | G::InitialPunctuation
        | G::FinalPunctuation
        | G::OtherPunctuation
        | G::MathSymbol
        | G::CurrencySymbol
        | G::SpaceSeparator => Some(Base::Other),
        G::ModifierSymbol | G::OtherSymbol => Some(Base::Symbol),
        G::NonspacingMark
        | G::SpacingMark
        | G::EnclosingMark
        | G::LineSeparator
        | G::ParagraphSeparator
        | G::Control
        | G::Format
        | G::Surrogate
        | G::PrivateUse
        | G::Unassigned => None,
    }
}

/// Letters, symbols and marks that are drawn as nothing: they hide data and part words that look alike.
fn is_blank(c: char) -> bool {
    matches!(
        c,
        '\u{034f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{2800}' | '\u{3164}' | '\u{ffa0}'
            | '\u{fe00}'..='\u{fe0d}' | '\u{e0100}'..='\u{e01ef}'
    )
}

fn is_mark(c: char) -> bool {
    use GeneralCategory as G;
    !is_blank(c) && matches!(c.general_category(), G::NonspacingMark | G::SpacingMark | G::EnclosingMark)
}

/// Whether a character may stand in machine-readable output as it is, wherever it stands: the same list, without what
/// depends on its neighbours. Others are written as escapes of the format.
pub(crate) fn is_plain(c: char) -> bool {
    base_of(c).is_some() || is_mark(c)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(text: &str) -> String {
        Untrusted::new(text).line().to_string()
    }

    fn block(text: &str) -> String {
        Untrusted::new(text).block().to_string()
    }

    #[test]
    fn what_people_write_stays_as_it_is() {
        for text in [
            "See you at 18:30, gate B – bring \"two\" litres; 50 € (cash)!",
            "Grüße, naïve façade, Ærø, Łódź, İstanbul",
            "Привет, мир. Ёлка",
            "سلام دنیا ۱۲۳",
            "می\u{200c}خواهم",
            "שָׁלוֹם עֲלֵיכֶם",
            "क्ष क्\u{200d}ष र्\u{200d}य",
            "こんにちは、世界",
            "안녕하세요",
            "བོད་ཡིག",
            "tiếng Vie\u{302}\u{323}t",
            "👍🏽 👩\u{200d}🚒 ❤\u{fe0f} 1\u{fe0f}\u{20e3}",
            "ᠮᠣᠩᠭᠣᠯ\u{180b}",
            "C:\\path\\u{41}",
            "a\u{a0}b\u{3000}c",
        ] {
            assert_eq!(line(text), text, "{}", text.escape_unicode());
            assert_eq!(block(text), text);
        }
    }

    #[test]
    fn what_acts_on_a_terminal_becomes_visible() {
        for (text, want) in [
            ("\u{1b}[2J\u{1b}[31mred", "\\u{1b}[2J\\u{1b}[31mred"),
            ("\u{1b}]8;;http://x\u{7}link\u{1b}]8;;\u{7}", "\\u{1b}]8;;http://x\\u{7}link\\u{1b}]8;;\\u{7}"),
            ("\u{1b}]52;c;cm0gLXJm\u{7}", "\\u{1b}]52;c;cm0gLXJm\\u{7}"),
            ("\u{9b}31m\u{9d}0;t\u{9c}", "\\u{9b}31m\\u{9d}0;t\\u{9c}"),
            ("\0\u{7f}\u{8}\u{b}\u{c}\u{85}", "\\u{0}\\u{7f}\\u{8}\\u{b}\\u{c}\\u{85}"),
            ("gpj.\u{202e}exe", "gpj.\\u{202e}exe"),
            ("\u{2066}a\u{2069}\u{200e}\u{200f}\u{61c}", "\\u{2066}a\\u{2069}\\u{200e}\\u{200f}\\u{61c}"),
            ("ali\u{200b}ce\u{feff}\u{2060}\u{ad}", "ali\\u{200b}ce\\u{feff}\\u{2060}\\u{ad}"),
            ("a\u{200d}b\u{200c}c", "a\\u{200d}b\\u{200c}c"),
            ("می\u{200c}\u{200c}خ", "می\\u{200c}\\u{200c}خ"),
            ("flag\u{e0067}\u{e007f}", "flag\\u{e0067}\\u{e007f}"),
            ("x\u{fe01}\u{e0100}y", "x\\u{fe01}\\u{e0100}y"),
            ("\u{e000}\u{f0000}\u{10ffff}", "\\u{e000}\\u{f0000}\\u{10ffff}"),
            ("\u{378}\u{2028}\u{2029}", "\\u{378}\\u{2028}\\u{2029}"),
            ("\u{3164}\u{115f}\u{2800}", "\\u{3164}\\u{115f}\\u{2800}"),
            ("\u{301}first", "\\u{301}first"),
            ("a\tb\rc", "a\\tb\\rc"),
        ] {
            assert_eq!(line(text), want);
            assert_eq!(block(text), want);
        }
    }

    #[test]
    fn line_breaks_stay_in_blocks_only() {
        assert_eq!(line("a\nb"), "a\\nb");
        assert_eq!(block("a\nb\r\nc\rd"), "a\nb\nc\\rd");
        assert_eq!(block("a\n\u{301}"), "a\n\\u{301}");
    }

    #[test]
    fn marks_do_not_pile_up() {
        let zalgo = format!("h{}i", "\u{30d}".repeat(500));
        let shown = line(&zalgo);
        let marks = shown.chars().filter(|c| *c == '\u{30d}').count();
        assert_eq!(marks, MAX_MARKS);
        assert!(shown.contains("\\u{30d}\\u{30d}"));
    }

    #[test]
    fn a_megabyte_becomes_a_line() {
        let long = "x".repeat(1 << 20);
        let shown = line(&long);
        assert!(shown.chars().count() <= MAX_LINE);
        assert!(shown.ends_with(&format!("... ({} more characters)", (1 << 20) - (MAX_LINE - CUT_NOTE))));
        assert!(block(&"\u{1b}".repeat(1 << 20)).chars().count() <= MAX_BLOCK);
        assert_eq!(line(&"y".repeat(MAX_LINE)), "y".repeat(MAX_LINE));
        assert_eq!(Printable::whole(&long).to_string(), long);
    }

    #[test]
    fn debug_shows_nothing_of_it() {
        assert_eq!(
            format!("{:?} {:?}", Untrusted::new("x"), Printable::line("x")),
            "Untrusted(..) Printable(..)"
        );
    }

    #[test]
    fn stored_text_is_what_the_peer_wrote() {
        let text = Untrusted::new("\u{1b}[0m".to_owned());
        let back: Untrusted<String> = serde_json::from_str(&serde_json::to_string(&text).unwrap()).unwrap();
        assert_eq!(back.expose(), "\u{1b}[0m");
        assert!(back == text);
    }

    /// Characters that matter here, far oftener than chance would bring them.
    fn hostile() -> impl Strategy<Value = String> {
        let odd = prop::sample::select(vec![
            '\0',
            '\u{7}',
            '\n',
            '\r',
            '\t',
            '\u{1b}',
            '\u{7f}',
            '\u{9b}',
            '\u{202e}',
            '\u{2066}',
            '\u{200b}',
            '\u{200c}',
            '\u{200d}',
            '\u{301}',
            '\u{30d}',
            '\u{fe0f}',
            '\u{20e3}',
            '\u{180b}',
            '\u{e0100}',
            '\u{e0020}',
            '\u{3164}',
            'ی',
            'क',
            '\u{94d}',
            'ᠮ',
            '👩',
            '🏽',
            'a',
            '\\',
            'u',
            '{',
            '}',
            ' ',
        ]);
        prop::collection::vec(prop_oneof![3 => odd, 1 => any::<char>()], 0..400)
            .prop_map(|chars| chars.into_iter().collect())
    }

    fn is_harmless(shown: &str, breaks: bool) -> bool {
        shown.chars().all(|c| {
            (c == '\n' && breaks)
                || !(c.is_control()
                    || ('\u{202a}'..='\u{202e}').contains(&c)
                    || ('\u{2060}'..='\u{206f}').contains(&c)
                    || matches!(c, '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{feff}')
                    || ('\u{e000}'..='\u{f8ff}').contains(&c)
                    || c >= '\u{e0000}')
        })
    }

    proptest! {
        #[test]
        fn nothing_acts_and_nothing_grows(text in hostile()) {
            prop_assert!(is_harmless(&line(&text), false));
            prop_assert!(is_harmless(&block(&text), true));
            prop_assert!(is_harmless(&Printable::whole(&text).to_string(), true));
            prop_assert!(line(&text).chars().count() <= MAX_LINE);
        }

        #[test]
        fn printing_what_was_printed_changes_nothing(text in hostile()) {
            let (once, lines) = (line(&text), block(&text));
            prop_assert_eq!(&line(&once), &once);
            prop_assert_eq!(&block(&lines), &lines);
            prop_assert_eq!(Printable::whole(&lines).to_string(), lines);
            // A line inside a text of the program stays as it is too.
            let sentence = format!("{once}: 3 new\n");
            prop_assert_eq!(Printable::whole(&sentence).to_string(), sentence);
        }

        #[test]
        fn what_fits_loses_no_character(text in hostile()) {
            let shown = Printable::whole(&text).to_string();
            let kept: usize = text.replace("\r\n", "\n").chars().filter(|c| shown.contains(*c)).count();
            let escapes = shown.matches('\\').count();
            prop_assert!(kept + escapes >= text.replace("\r\n", "\n").chars().count());
        }
    }
}
