//! Commands in fenced shell blocks.

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
            Some("sh" | "bash" | "shell") => line,
            Some("console") => match line.trim_start().strip_prefix("$ ") {
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
                redirected = true;
                while characters.next_if(|next| matches!(next, '>' | '<' | '&')).is_some() {}
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
    fn option_values_are_found_in_each_spelling() {
        let text = "```sh\ncargo test -p a --package b --package=c d\n```";
        assert_eq!(commands(text)[0].values("-p", "--package"), ["a", "b", "c"]);
    }
}
