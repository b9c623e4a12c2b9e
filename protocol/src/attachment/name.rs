//! Names of files, made harmless.
//!
//! Invariants (ATT-05): no part of a path, no control character, no character that changes the direction or the look of
//! what stands beside it, nothing that a shell acts on, nothing in front that hides a file or makes an option of it; never
//! empty; at most [`MAX_FILE_NAME`] bytes. Making a harmless name harmless changes nothing.
//! Known gap: letters that look alike are not told apart.

use std::fmt;

use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

/// Longest name in bytes: fits every file system with room for what a program appends.
pub const MAX_FILE_NAME: usize = 100;

/// Longest ending that is kept when a name is cut, in bytes.
const MAX_ENDING: usize = 10;

/// Marks on one letter. More climb over neighbouring lines.
const MAX_MARKS: usize = 3;

/// What a file is called that has no usable name.
const NAMELESS: &str = "file";

/// A harmless name of a file.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileName(String);

impl FileName {
    /// ATT-05: what is harmless of `text`.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let last = text.rsplit(['/', '\\']).next().unwrap_or_default();
        let mut name = String::with_capacity(last.len());
        let mut marks = 0;
        for c in last.chars() {
            let Some(c) = harmless(c) else { continue };
            let is_mark = c.general_category_group() == GeneralCategoryGroup::Mark;
            marks = if is_mark { marks + 1 } else { 0 };
            // A mark needs a letter in front of it, and a second space says nothing.
            let is_kept = match c {
                ' ' => !name.ends_with(' '),
                _ if is_mark => marks <= MAX_MARKS && name.ends_with(is_written),
                _ => true,
            };
            if is_kept {
                name.push(c);
            }
        }
        let name = trimmed(&name);
        let name = if name.len() > MAX_FILE_NAME { cut(name) } else { name.to_owned() };
        Self(if name.is_empty() { NAMELESS.to_owned() } else { name })
    }

    /// A name that says nothing: only the ending of `text`, in lower case, where it is one.
    #[must_use]
    pub fn neutral(text: &str) -> Self {
        let ending = Self::of(text).ending().map(str::to_ascii_lowercase);
        Self(match ending {
            Some(ending) => format!("{NAMELESS}.{ending}"),
            None => NAMELESS.to_owned(),
        })
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What follows the last dot: up to ten ASCII letters and digits.
    #[must_use]
    pub fn ending(&self) -> Option<&str> {
        ending(&self.0)
    }
}

impl fmt::Debug for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(_) = self;
        f.write_str("FileName(..)")
    }
}

/// Whether a mark may follow.
fn is_written(c: char) -> bool {
    matches!(
        c.general_category_group(),
        GeneralCategoryGroup::Letter | GeneralCategoryGroup::Mark | GeneralCategoryGroup::Number
    )
}

/// The character itself, another in its place, or none. By allow-list: what a later Unicode brings is not in it.
fn harmless(c: char) -> Option<char> {
    if c.is_ascii() {
        return match c {
            'a'..='z'
            | 'A'..='Z'
            | '0'..='9'
            | '-'
            | '_'
            | '.'
            | ','
            | '('
            | ')'
            | '+'
            | '='
            | '@'
            | '#'
            | ' ' => Some(c),
            '\t' | '\n' | '\r' => Some(' '),
            c if c.is_ascii_control() => None,
            _ => Some('_'),
        };
    }
    match c.general_category_group() {
        GeneralCategoryGroup::Letter | GeneralCategoryGroup::Mark | GeneralCategoryGroup::Number => Some(c),
        GeneralCategoryGroup::Separator => Some(' '),
        GeneralCategoryGroup::Punctuation | GeneralCategoryGroup::Symbol => Some('_'),
        GeneralCategoryGroup::Other => None,
    }
}

fn trimmed(name: &str) -> &str {
    name.trim_start_matches([' ', '.', '-']).trim_end_matches([' ', '.'])
}

fn ending(name: &str) -> Option<&str> {
    let (stem, ending) = name.rsplit_once('.')?;
    let is_ending = !stem.is_empty()
        && (1..=MAX_ENDING).contains(&ending.len())
        && ending.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_ending.then_some(ending)
}

/// The beginning of the name, and its ending.
fn cut(name: &str) -> String {
    let ending = ending(name).map(|ending| format!(".{ending}")).unwrap_or_default();
    let stem = name.strip_suffix(ending.as_str()).unwrap_or(name);
    let mut room = MAX_FILE_NAME - ending.len();
    while !stem.is_char_boundary(room) {
        room -= 1;
    }
    let stem = stem.get(..room).unwrap_or_default();
    trimmed(&format!("{}{ending}", stem.trim_end_matches([' ', '.']))).to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn att_05_nothing_of_a_path_a_terminal_or_a_shell_is_left() {
        for (given, name) in [
            ("plan.pdf", "plan.pdf"),
            ("Встреча 12.jpg", "Встреча 12.jpg"),
            ("/etc/passwd", "passwd"),
            ("..\\..\\boot.ini", "boot.ini"),
            ("..", "file"),
            (".bashrc", "bashrc"),
            ("-rf", "rf"),
            ("a\u{1b}[31mred\u{7}", "a_31mred"),
            ("photo\u{202e}gpj.exe", "photogpj.exe"),
            ("a\u{2066}b\u{200d}c\u{ad}d", "abcd"),
            ("two\nlines", "two lines"),
            ("$(reboot);`x`|y&z'\"*?<>:", "_(reboot)__x__y_z_______"),
            ("a\u{2215}b\u{ff0f}c", "a_b_c"),
            ("x\u{301}\u{302}\u{303}\u{304}\u{305}", "x\u{301}\u{302}\u{303}"),
            ("trailing. . .", "trailing"),
            ("\u{0}", "file"),
        ] {
            assert_eq!(FileName::of(given).as_str(), name, "{given:?}");
        }
    }

    #[test]
    fn att_05_long_names_keep_their_ending() {
        let name = FileName::of(&format!("{}.JPEG", "ж".repeat(200)));
        assert!(name.as_str().len() <= MAX_FILE_NAME && name.as_str().ends_with("ж.JPEG"));
        assert_eq!(FileName::of(&"x".repeat(300)).as_str().len(), MAX_FILE_NAME);
    }

    #[test]
    fn neutral_names_say_only_what_kind_of_file_it_is() {
        for (given, name) in [
            ("IMG_Minsk_protest.JPG", "file.jpg"),
            ("/home/ann/list of names", "file"),
            ("archive.tar.gz", "file.gz"),
            ("minutes.of the meeting", "file"),
            (".hidden", "file"),
        ] {
            assert_eq!(FileName::neutral(given).as_str(), name);
        }
    }

    proptest! {
        #[test]
        fn att_05_harmless_names_stay_as_they_are(text in any::<String>()) {
            let once = FileName::of(&text);
            prop_assert_eq!(FileName::of(once.as_str()), once.clone());
            prop_assert!(!once.as_str().is_empty() && once.as_str().len() <= MAX_FILE_NAME);
            prop_assert!(!once.as_str().starts_with(['.', '-', ' ']));
            prop_assert!(once.as_str().chars().all(|c| !c.is_control() && c != '/' && c != '\\'));
        }
    }
}
