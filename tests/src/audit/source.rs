//! One Rust file, split so that a rule can look at code without meeting words in comments or texts.
//!
//! The split knows line and nested block comments, plain, byte, C and raw literals, characters and lifetimes:
//! all that decides where a literal ends. It does not parse Rust.

/// A literal or a comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// Where it begins: an index into [`Source::code`].
    pub start: usize,
    /// First line is 1.
    pub line: usize,
    /// What stands between the delimiters, escapes left as written.
    pub value: String,
}

/// A Rust file taken apart.
#[derive(Debug, Clone)]
pub struct Source {
    code: Vec<char>,
    literals: Vec<Text>,
    comments: Vec<Text>,
}

impl Source {
    /// Takes `text` apart. Unfinished literals and comments end with the file.
    pub fn parse(text: &str) -> Self {
        let mut scanner = Scanner {
            input: text.chars().collect(),
            at: 0,
            line: 1,
            out: Self { code: Vec::new(), literals: Vec::new(), comments: Vec::new() },
        };
        scanner.run();
        scanner.out
    }

    /// The code, every character of a literal or comment replaced by a space, line breaks kept: positions and
    /// lines are those of the file.
    pub fn code(&self) -> &[char] {
        &self.code
    }

    /// Every string, byte-string and character literal.
    pub fn literals(&self) -> &[Text] {
        &self.literals
    }

    /// Every comment, documentation included.
    pub fn comments(&self) -> &[Text] {
        &self.comments
    }

    /// The line of a position in [`Source::code`].
    pub fn line(&self, position: usize) -> usize {
        1 + self.code.iter().take(position).filter(|c| **c == '\n').count()
    }

    /// Every identifier and keyword with its position; numbers are none.
    pub fn identifiers(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        let mut at = 0;
        while let Some(&c) = self.code.get(at) {
            if !is_word(c) {
                at += 1;
                continue;
            }
            let start = at;
            while self.code.get(at).is_some_and(|c| is_word(*c)) {
                at += 1;
            }
            if !c.is_ascii_digit() {
                found.push((start, self.code[start..at].iter().collect()));
            }
        }
        found
    }

    /// The position after the bracket that closes the one at `open`, or the end of the file.
    pub fn closing(&self, open: usize) -> usize {
        let mut depth = 0_usize;
        for (position, c) in self.code.iter().enumerate().skip(open) {
            match c {
                '(' | '[' | '{' => depth += 1,
                ')' | ']' | '}' => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        return position + 1;
                    }
                }
                _ => {}
            }
        }
        self.code.len()
    }

    /// The first position from `from` on that holds no white space.
    pub fn skip_space(&self, from: usize) -> usize {
        from + self.code.iter().skip(from).take_while(|c| c.is_whitespace()).count()
    }

    /// The character at `position`.
    pub fn at(&self, position: usize) -> Option<char> {
        self.code.get(position).copied()
    }

    /// The same file without what is compiled for tests only: items after `#[cfg(test)]`.
    pub fn without_tests(&self) -> Self {
        let marker: Vec<char> = "#[cfg(test)]".chars().collect();
        let mut kept = self.clone();
        let mut at = 0;
        while at + marker.len() <= self.code.len() {
            if !self.code[at..].starts_with(&marker) {
                at += 1;
                continue;
            }
            let end = self.end_of_item(at + marker.len());
            for c in &mut kept.code[at..end] {
                if *c != '\n' {
                    *c = ' ';
                }
            }
            kept.literals.retain(|text| !(at..end).contains(&text.start));
            kept.comments.retain(|text| !(at..end).contains(&text.start));
            at = end;
        }
        kept
    }

    /// An item ends at its first `;` outside brackets or with its first `{}` block; attributes before it are skipped.
    fn end_of_item(&self, from: usize) -> usize {
        let mut at = from;
        while let Some(c) = self.at(at) {
            match c {
                ';' => return at + 1,
                '{' => return self.closing(at),
                '(' | '[' => at = self.closing(at),
                _ => at += 1,
            }
        }
        self.code.len()
    }
}

/// Whether `c` may stand inside an identifier or number.
pub(super) fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

struct Scanner {
    input: Vec<char>,
    at: usize,
    line: usize,
    out: Source,
}

impl Scanner {
    fn run(&mut self) {
        while let Some(c) = self.peek(0) {
            match (c, self.peek(1)) {
                ('/', Some('/')) => self.line_comment(),
                ('/', Some('*')) => self.block_comment(),
                ('"', _) => self.quoted(),
                ('\'', _) => self.quote_mark(),
                _ if is_word(c) => self.word(),
                _ => self.keep(),
            }
        }
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.input.get(self.at + ahead).copied()
    }

    fn keep(&mut self) {
        if let Some(c) = self.peek(0) {
            self.line += usize::from(c == '\n');
            self.out.code.push(c);
            self.at += 1;
        }
    }

    fn mask(&mut self, count: usize) {
        for _ in 0..count {
            if let Some(c) = self.peek(0) {
                self.line += usize::from(c == '\n');
                self.out.code.push(if c == '\n' { '\n' } else { ' ' });
                self.at += 1;
            }
        }
    }

    /// Hides everything up to `end` and returns what stood between `from` and `to`.
    fn hide(&mut self, from: usize, to: usize, end: usize) -> Text {
        let to = to.min(self.input.len());
        let text = Text {
            start: self.at,
            line: self.line,
            value: self.input.get(from..to).unwrap_or_default().iter().collect(),
        };
        self.mask(end.saturating_sub(self.at));
        text
    }

    fn line_comment(&mut self) {
        let end = self.at + self.input[self.at..].iter().take_while(|c| **c != '\n').count();
        let text = self.hide(self.at + 2, end, end);
        self.out.comments.push(text);
    }

    fn block_comment(&mut self) {
        let mut depth = 0_usize;
        let mut end = self.at;
        while end < self.input.len() {
            match (self.input[end], self.input.get(end + 1)) {
                ('/', Some('*')) => {
                    depth += 1;
                    end += 2;
                }
                ('*', Some('/')) => {
                    depth -= 1;
                    end += 2;
                    if depth == 0 {
                        break;
                    }
                }
                _ => end += 1,
            }
        }
        let text = self.hide(self.at + 2, end.saturating_sub(2), end);
        self.out.comments.push(text);
    }

    fn quoted(&mut self) {
        let mut end = self.at + 1;
        while let Some(c) = self.input.get(end) {
            match c {
                '\\' => end += 2,
                '"' => break,
                _ => end += 1,
            }
        }
        let text = self.hide(self.at + 1, end, end + 1);
        self.out.literals.push(text);
    }

    fn raw(&mut self, hashes: usize) {
        let start = self.at + hashes + 1;
        let mut end = start;
        while end < self.input.len() {
            let closes = self.input[end] == '"'
                && self.input.iter().skip(end + 1).take_while(|c| **c == '#').take(hashes).count() == hashes;
            if closes {
                break;
            }
            end += 1;
        }
        let text = self.hide(start, end, end + 1 + hashes);
        self.out.literals.push(text);
    }

    /// A character literal or a lifetime.
    fn quote_mark(&mut self) {
        let end = match (self.peek(1), self.peek(2)) {
            (Some('\\'), _) => {
                let rest = self.input.iter().skip(self.at + 3);
                self.at + 3 + rest.take_while(|c| **c != '\'').count()
            }
            (Some(_), Some('\'')) => self.at + 2,
            _ => return self.keep(),
        };
        let text = self.hide(self.at + 1, end, end + 1);
        self.out.literals.push(text);
    }

    fn word(&mut self) {
        let start = self.at;
        while self.peek(0).is_some_and(is_word) {
            self.keep();
        }
        let word: String = self.input[start..self.at].iter().collect();
        if matches!(word.as_str(), "r" | "br" | "cr") {
            let hashes = self.input[self.at..].iter().take_while(|c| **c == '#').count();
            if self.peek(hashes) == Some('"') {
                self.raw(hashes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> String {
        Source::parse(text).code().iter().collect()
    }

    fn values(texts: &[Text]) -> Vec<&str> {
        texts.iter().map(|text| text.value.as_str()).collect()
    }

    #[test]
    fn comments_and_literals_leave_the_code_in_place() {
        let text = "let a = \"x // y\"; // note\n/* one /* two */ three */ let b = 'c';";
        let source = Source::parse(text);
        assert_eq!(source.code().len(), text.chars().count());
        assert_eq!(values(source.literals()), ["x // y", "c"]);
        assert_eq!(values(source.comments()), [" note", " one /* two */ three "]);
        assert_eq!(source.comments()[1].line, 2);
        assert!(code(text).contains("let b ="));
    }

    #[test]
    fn raw_byte_and_escaped_literals_end_where_rust_ends_them() {
        let source = Source::parse(r####"f(r#"a "quoted" b"#, b"c\"d", br"e\", '\'', b'\\', "g\\")"####);
        assert_eq!(values(source.literals()), [r#"a "quoted" b"#, r#"c\"d"#, r"e\", r"\'", r"\\", r"g\\"]);
        assert_eq!(source.at(source.code().len() - 1), Some(')'));
    }

    #[test]
    fn lifetimes_and_raw_identifiers_are_code() {
        assert_eq!(code("fn f<'a>(r#type: &'a str) {}"), "fn f<'a>(r#type: &'a str) {}");
    }

    #[test]
    fn identifiers_are_no_numbers() {
        let names: Vec<_> =
            Source::parse("a_1 + 0xff + 7u64 * b").identifiers().into_iter().map(|(_, n)| n).collect();
        assert_eq!(names, ["a_1", "b"]);
    }

    #[test]
    fn test_items_are_left_out() {
        let source = Source::parse(
            "fn a() {}\n#[cfg(test)]\n#[allow(x)]\nmod tests { fn b() { \"t\" } }\nfn c() {}\n#[cfg(test)]\nmod d;\nfn e() {}",
        );
        let kept = source.without_tests();
        let names: Vec<_> = kept.identifiers().into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["fn", "a", "fn", "c", "fn", "e"]);
        assert!(kept.literals().is_empty());
        assert_eq!(kept.line(kept.code().len() - 1), 8);
    }

    #[test]
    fn unfinished_text_ends_with_the_file() {
        for text in ["\"abc", "/* abc", "r#\"abc", "'\\", "b\"\\", "/*/", "r#", "'"] {
            assert_eq!(Source::parse(text).code().len(), text.chars().count(), "{text}");
        }
    }
}
