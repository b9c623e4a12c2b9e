//! Commands in fenced shell blocks.

use super::prose;

/// Words behind the fence of a block of commands.
const SHELLS: &[&str] = &["sh", "bash", "shell", CONSOLE];

/// The one of them that has output beside the commands.
const CONSOLE: &str = "console";

/// One command that a reader is told to type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// First line is 1.
    pub line: usize,
    /// Program and arguments, quotes removed.
    pub words: Vec<String>,
}

impl Command {
    /// The program without its folder.
    pub fn program(&self) -> &str {
        self.words.first().map_or("", |word| word.rsplit('/').next().unwrap_or(word))
    }

    /// What follows the program.
    pub fn arguments(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }

    /// The command that another program runs for somebody else: `runuser -u NAME -- COMMAND`.
    #[must_use]
    pub fn for_somebody(self) -> Self {
        match self.words.iter().position(|word| word == "--") {
            Some(at) if self.program() == "runuser" => Self { words: self.words[at + 1..].to_vec(), ..self },
            _ => self,
        }
    }

    /// The values of an option written as `-p X`, `--package X` or `--package=X`.
    pub fn values(&self, short: &str, long: &str) -> Vec<&str> {
        let mut found = Vec::new();
        let mut words = self.arguments().iter();
        while let Some(word) = words.next() {
            if word == short || word == long {
                found.extend(words.next().map(String::as_str));
            } else if let Some(value) = word.strip_prefix(long).and_then(|rest| rest.strip_prefix('=')) {
                found.push(value);
            }
        }
        found
    }
}

/// The commands in blocks marked `sh`, `bash`, `shell` or `console`; in the last only lines after `$ ` are commands.
///
/// Pipes, `&&`, `;` and `&` separate commands; redirections, comments and assignments before a program are dropped.
pub fn commands(markdown: &str) -> Vec<Command> {
    let mut found = Vec::new();
    let mut language: Option<&str> = None;
    let mut pending = String::new();
    for (index, line) in markdown.lines().enumerate() {
        if let Some(info) = line.trim_start().strip_prefix("```") {
            language = match language {
                Some(_) => None,
                None => Some(info.split_whitespace().next().unwrap_or_default()),
            };
            pending.clear();
            continue;
        }
        let typed = match language {
            Some(language) if language != CONSOLE && SHELLS.contains(&language) => line,
            Some(CONSOLE) => match line.trim_start().strip_prefix("$ ") {
                Some(typed) => typed,
                None if pending.is_empty() => continue,
                None => line,
            },
            _ => continue,
        };
        if let Some(start) = typed.strip_suffix('\\') {
            pending.push_str(start);
            continue;
        }
        pending.push_str(typed);
        found.extend(split(&pending).into_iter().map(|words| Command { line: index + 1, words }));
        pending.clear();
    }
    found
}

/// Lines of blocks that are not marked as commands and begin with one of these programs: nobody would check them.
pub fn unmarked(markdown: &str, programs: &[&str]) -> Vec<Command> {
    let mut found = Vec::new();
    let mut language: Option<&str> = None;
    for (index, line) in markdown.lines().enumerate() {
        if let Some(info) = line.trim_start().strip_prefix("```") {
            language = language.is_none().then_some(info.trim());
        } else if language.is_some_and(|language| !SHELLS.contains(&language)) {
            let commands = split(line).into_iter().map(|words| Command { line: index + 1, words });
            found.extend(commands.filter(|command| programs.contains(&command.program())));
        }
    }
    found
}

/// The commands between backticks in the running text that name one of these programs and at least one word for it.
/// A word in capitals right behind the program stands for any command and is left out.
pub fn spoken(markdown: &str, programs: &[&str]) -> Vec<Command> {
    let mut found = Vec::new();
    let mut paragraph = String::new();
    let mut begun = 1;
    // A span may go on in the next line, never in the next paragraph.
    for (line, text) in prose(markdown).chain([(0, "")]) {
        if text.trim().is_empty() {
            found.extend(spans(&paragraph, begun, programs));
            paragraph.clear();
        } else {
            if paragraph.is_empty() {
                begun = line;
            }
            paragraph.push_str(text);
            paragraph.push('\n');
        }
    }
    found
}

fn spans(paragraph: &str, begun: usize, programs: &[&str]) -> Vec<Command> {
    let mut line = begun;
    let mut found = Vec::new();
    for (number, span) in paragraph.split('`').enumerate() {
        if number % 2 == 1 {
            // In a table a bar is written with a stroke before it.
            for words in split(&span.replace("\\|", "|").replace('\n', " ")) {
                let mut command = Command { line, words }.for_somebody();
                let general = |word: &String| word.chars().all(|c| c.is_ascii_uppercase());
                if command.words.len() > 1 && programs.contains(&command.program()) {
                    if general(&command.words[1]) {
                        command.words.remove(1);
                    }
                    found.push(command);
                }
            }
        }
        line += span.matches('\n').count();
    }
    found
}

/// Splits one line as a shell does, as far as papers need it.
fn split(line: &str) -> Vec<Vec<String>> {
    let mut commands = vec![Vec::new()];
    let mut characters = line.chars().peekable();
    let mut word: Option<String> = None;
    let mut redirected = false;
    let finish = |word: &mut Option<String>, redirected: &mut bool, commands: &mut Vec<Vec<String>>| {
        if let Some(done) = word.take() {
            let drop = std::mem::take(redirected);
            let command = commands.last_mut();
            let assignment = command.as_ref().is_some_and(|words| words.is_empty()) && is_assignment(&done);
            if let Some(words) = command.filter(|_| !drop && !assignment) {
                words.push(done);
            }
        }
    };
    while let Some(c) = characters.next() {
        match c {
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                for inner in characters.by_ref().take_while(|inner| *inner != c) {
                    word.push(inner);
                }
            }
            '#' if word.is_none() => break,
            '|' | ';' | '&' => {
                finish(&mut word, &mut redirected, &mut commands);
                commands.push(Vec::new());
            }
            '>' | '<' => {
                // A number before the sign is a descriptor, `&1` after it a target: neither is an argument.
                if word.as_ref().is_some_and(|word| word.chars().all(|c| c.is_ascii_digit())) {
                    word = None;
                }
                finish(&mut word, &mut redirected, &mut commands);
                while characters.next_if(|next| matches!(next, '>' | '<' | '&')).is_some() {}
                // What reads from another command has that as its target.
                redirected = characters.next_if_eq(&'(').is_none();
                if !redirected {
                    characters.by_ref().take_while(|next| *next != ')').for_each(drop);
                }
            }
            c if c.is_whitespace() => finish(&mut word, &mut redirected, &mut commands),
            c => word.get_or_insert_default().push(c),
        }
    }
    finish(&mut word, &mut redirected, &mut commands);
    commands.retain(|words| !words.is_empty());
    commands
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty() && name.chars().all(|c| c == '_' || c.is_ascii_uppercase() || c.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(markdown: &str) -> Vec<Vec<String>> {
        commands(markdown).into_iter().map(|command| command.words).collect()
    }

    #[test]
    fn commands_are_taken_from_shell_blocks_only() {
        let text = "cargo x\n```text\ncargo y\n```\n```sh\ncargo z # note\n\n# only a note\n```\n\
            ```console\n$ lapwing status\nlocked\n```\n";
        assert_eq!(words(text), [vec!["cargo", "z"], vec!["lapwing", "status"]]);
        assert_eq!(commands(text)[1].line, 11);
    }

    #[test]
    fn a_line_is_split_as_a_shell_would() {
        let text = "```sh\nA=1 cargo build --release && ./target/release/lapwing demo\n\
            echo 'see you at \"8\"' | lapwing send friends - > out.txt 2>&1; \\\n  lapwing read friends &\n```";
        assert_eq!(
            words(text),
            [
                vec!["cargo", "build", "--release"],
                vec!["./target/release/lapwing", "demo"],
                vec!["echo", "see you at \"8\""],
                vec!["lapwing", "send", "friends", "-"],
                vec!["lapwing", "read", "friends"],
            ]
        );
        assert_eq!(commands(text)[1].program(), "lapwing");
    }

    #[test]
    fn a_command_for_somebody_else_and_one_that_is_read_from_are_seen_through() {
        let text = "```sh\nrunuser -u relay -- lapwing-relay status --json\n\
            lapwing status --passphrase-fd 3 3< <(ask \"passphrase\") | jq -r .x\n```";
        let seen: Vec<_> = commands(text).into_iter().map(|command| command.for_somebody().words).collect();
        assert_eq!(
            seen,
            [
                vec!["lapwing-relay", "status", "--json"],
                vec!["lapwing", "status", "--passphrase-fd", "3"],
                vec!["jq", "-r", ".x"],
            ]
        );
    }

    #[test]
    fn commands_in_the_running_text_are_found_across_lines() {
        let text = "One `lapwing`, two.\nType `lapwing send\nbo -` or `echo A | lapwing COMMAND --help`.\n\n\
            | `lapwing a \\| b` | `other c` |\n```text\n`lapwing d`\nlapwing e\nother f\n```\n";
        let found = spoken(text, &["lapwing"]);
        let words: Vec<_> = found.iter().map(|command| command.words.join(" ")).collect();
        assert_eq!(words, ["lapwing send bo -", "lapwing --help", "lapwing a"]);
        assert_eq!(found.iter().map(|command| command.line).collect::<Vec<_>>(), [2, 3, 5]);
        let hidden = unmarked(text, &["lapwing"]);
        assert_eq!((hidden.len(), hidden[0].line, &hidden[0].words[1]), (1, 8, &"e".to_owned()));
    }

    #[test]
    fn option_values_are_found_in_each_spelling() {
        let text = "```sh\ncargo test -p a --package b --package=c d\n```";
        assert_eq!(commands(text)[0].values("-p", "--package"), ["a", "b", "c"]);
    }
}
