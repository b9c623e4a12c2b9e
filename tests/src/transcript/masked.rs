//! What is drawn at random and shown: the same in kind, never in value.

/// Keys of `--json` whose values are random, with a value that is a text or a number.
const RANDOM_KEYS: [&str; 5] = ["\"id\":", "\"head\":", "\"number\":", "\"passphrase\":", "\"used_bytes\":"];

/// A number before one of these is how much room is used, which depends on all that was ever written.
const UNITS: [&str; 4] = ["%", "B", "KiB", "MiB"];

/// Words that begin like this are random to their end.
const TICKETS: [&str; 2] = ["lapwing-access:", "lapwing:"];

/// The text with what is random in it replaced by a word that says its kind.
#[must_use]
pub fn masked(text: &str) -> String {
    let lines = text.lines().filter(|line| !of_the_moment(line));
    let text = lines.map(|text| sizes(&line(text))).collect::<Vec<_>>().join("\n");
    RANDOM_KEYS.iter().fold(text, |text, key| value(&text, key))
}

/// What `doctor` says of what else runs on the computer just now: other tests, for one.
fn of_the_moment(line: &str) -> bool {
    const SAID: [&str; 4] =
        ["no other lapwing runs", "another lapwing runs", "hint: end it (Ctrl-C", "\"check\":\"processes\""];
    SAID.iter().any(|said| line.contains(said))
}

/// Tickets, groups of five digits, and hexadecimal words.
fn line(line: &str) -> String {
    if line.contains('█') && line.chars().all(|c| "█▀▄ ".contains(c)) {
        return "QR CODE".to_owned();
    }
    let mut out = String::new();
    let mut word = String::new();
    for c in line.chars().chain(['\n']) {
        if c.is_alphanumeric() || "-_:+/=%".contains(c) {
            word.push(c);
            continue;
        }
        out.push_str(&mask_word(&word));
        word.clear();
        out.push(c);
    }
    out.pop();
    out
}

/// Numbers before units, and the width of columns, which follows from them.
fn sizes(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
    if words.len() == line.split(' ').count() && !words.iter().any(|word| UNITS.contains(word)) {
        return line.to_owned();
    }
    let number = |word: &str| word.parse::<f64>().is_ok();
    let masked = words.iter().enumerate().map(|(at, word)| {
        let before_unit = words.get(at + 1).is_some_and(|next| UNITS.contains(next));
        if before_unit && number(word) { "SIZE" } else { word }
    });
    masked.collect::<Vec<_>>().join(" ")
}

fn mask_word(word: &str) -> String {
    let ticket = TICKETS.iter().find(|ticket| word.len() > ticket.len() + 8 && word.starts_with(*ticket));
    if let Some(ticket) = ticket {
        return format!("{ticket}TICKET");
    }
    let hex = word.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c));
    if word.len() >= 8 && hex {
        return "HEX".to_owned();
    }
    if word.len() == 5 && word.chars().all(|c| c.is_ascii_digit()) {
        return "DIGITS".to_owned();
    }
    word.to_owned()
}

/// The text behind each `key` up to the end of its value.
fn value(text: &str, key: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(key) {
        let (before, after) = rest.split_at(at + key.len());
        out.push_str(before);
        out.push_str("RANDOM");
        let end = match after.strip_prefix('"') {
            Some(inner) => inner.find('"').map_or(after.len(), |end| end + 2),
            None => after.find([',', '}']).unwrap_or(after.len()),
        };
        rest = &after[end..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::masked;

    #[test]
    fn what_is_random_is_masked_and_nothing_else() {
        for (shown, left) in [
            ("ticket lapwing:qpzry9x8gf2tvdw0 for bo", "ticket lapwing:TICKET for bo"),
            ("run: lapwing sync; lapwing: no", "run: lapwing sync; lapwing: no"),
            ("12345 67890\n4321", "DIGITS DIGITS\n4321"),
            ("0011aabbccdd read", "HEX read"),
            ("██ ▀█\n█▄▄ █", "QR CODE\nQR CODE"),
            (
                r#"{"v":1,"id":"00ff","n":3,"number":12,"x":1}"#,
                r#"{"v":1,"id":RANDOM,"n":3,"number":RANDOM,"x":1}"#,
            ),
            ("main   2  3 % of 1.2 MiB", "main 2 SIZE % of SIZE MiB"),
        ] {
            assert_eq!(masked(shown), left);
        }
    }
}
