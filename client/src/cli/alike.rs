//! Whether two passphrases are too much alike.

use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

/// Edits within which two passphrases count as alike: one of them guessed, seen or betrayed leads to the other in a few
/// thousand tries, and one is typed for the other by mistake.
const ALIKE_EDITS: usize = 3;

/// Whether one passphrase leads to the other: at most three edits apart (a character inserted, deleted, replaced, or
/// swapped with its neighbour), or one a prefix of the other. Case and the way accents are encoded do not count as
/// differences.
pub fn too_close(a: &str, b: &str) -> bool {
    let fold = |text: &str| -> Zeroizing<Vec<char>> {
        Zeroizing::new(text.nfkc().flat_map(char::to_lowercase).collect())
    };
    let (a, b) = (fold(a), fold(b));
    a.starts_with(&b) || b.starts_with(&a) || within(&a, &b, ALIKE_EDITS)
}

/// Whether the optimal string alignment distance is at most `most`. Looks at the band of the table that can decide.
fn within(a: &[char], b: &[char], most: usize) -> bool {
    if a.len().abs_diff(b.len()) > most {
        return false;
    }
    let far = most + 1;
    // Rows for two characters ago, one ago and now; the cell of column `j` is the distance of the prefixes.
    let mut before_last = vec![far; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).map(|j| j.min(far)).collect();
    for (i, &ca) in a.iter().enumerate() {
        let mut row = vec![far; b.len() + 1];
        if i < far {
            row[0] = i + 1;
        }
        let from = i.saturating_sub(most);
        let to = (i + most + 1).min(b.len());
        for j in from..to {
            let cb = b[j];
            let mut best = (last[j] + usize::from(ca != cb)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && ca == b[j - 1] && a[i - 1] == cb {
                best = best.min(before_last[j - 1] + 1);
            }
            row[j + 1] = best.min(far);
        }
        before_last = last;
        last = row;
    }
    last.last().is_some_and(|distance| *distance <= most)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn alike_is_a_prefix_or_three_edits() {
        for (a, b) in [
            ("correct horse", "correct horse"),
            ("correct horse", "correct horse battery staple"),
            ("correct horse", "Correct Horse"),
            ("correct horse", "corret hores"),
            ("correct horse", "c0rrect h0rse!"),
            ("correct horse", "orrect horseXY"),
            ("caf\u{e9} au lait", "cafe\u{301} au lait"),
            ("anything", ""),
        ] {
            assert!(too_close(a, b) && too_close(b, a), "{a} / {b}");
        }
        for (a, b) in [
            ("correct horse", "correct house by the sea"),
            ("correct horse", "wrong camel"),
            ("abcdefgh", "abXdeYghZW"),
            ("1234567890", "0987654321"),
        ] {
            assert!(!too_close(a, b) && !too_close(b, a), "{a} / {b}");
        }
    }

    /// The same distance by its definition, without a band.
    fn distance(a: &[char], b: &[char]) -> usize {
        let mut table = vec![vec![0; b.len() + 1]; a.len() + 1];
        for i in 0..=a.len() {
            for j in 0..=b.len() {
                table[i][j] = if i == 0 || j == 0 {
                    i + j
                } else {
                    let mut best = (table[i - 1][j] + 1)
                        .min(table[i][j - 1] + 1)
                        .min(table[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]));
                    if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                        best = best.min(table[i - 2][j - 2] + 1);
                    }
                    best
                };
            }
        }
        table[a.len()][b.len()]
    }

    proptest! {
        #[test]
        fn the_band_decides_as_the_whole_table(a in "[abc]{0,12}", b in "[abc]{0,12}", most in 0usize..5) {
            let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
            prop_assert_eq!(within(&a, &b, most), distance(&a, &b) <= most);
        }

        #[test]
        fn three_edits_are_always_found(
            text in "[a-z ]{8,30}", edits in prop::collection::vec((any::<prop::sample::Index>(), 0u8..4, "[0-9]"), 0..=3)
        ) {
            let mut chars: Vec<char> = text.chars().collect();
            for (at, kind, new) in edits {
                let at = at.index(chars.len());
                let new = new.chars().next().unwrap();
                match kind {
                    0 => chars.insert(at, new),
                    1 => { chars.remove(at); }
                    2 => chars[at] = new,
                    _ => { let next = (at + 1) % chars.len(); if next == at + 1 { chars.swap(at, next) } }
                }
            }
            let changed: String = chars.iter().collect();
            // Swaps of characters that other edits had moved can cost two; then the plain distance decides.
            let apart = distance(&text.chars().collect::<Vec<_>>(), &chars);
            prop_assert_eq!(too_close(&text, &changed), apart <= 3 || text.starts_with(&changed) || changed.starts_with(&text));
        }

        #[test]
        fn it_does_not_matter_which_comes_first(a in any::<String>(), b in any::<String>()) {
            prop_assert_eq!(too_close(&a, &b), too_close(&b, &a));
            prop_assert!(too_close(&a, &a));
        }
    }

    /// Rows of keys, each key next to its neighbours, on the keyboards of most users.
    const KEYBOARDS: [&str; 10] = [
        "1234567890-=",
        "qwertyuiop[]",
        "asdfghjkl;'",
        "zxcvbnm,./",
        "йцукенгшщзхъ",
        "фывапролджэ",
        "ячсмитьбю.",
        "йцукенгшщзхї",
        "фівапролджє",
        "azertyuiop",
    ];

    fn neighbour(key: char, right: bool) -> char {
        let found = KEYBOARDS.iter().find_map(|row| {
            let keys: Vec<char> = row.chars().collect();
            let at = keys.iter().position(|other| *other == key)?;
            if right { keys.get(at + 1).copied() } else { at.checked_sub(1).map(|before| keys[before]) }
        });
        found.unwrap_or('x')
    }

    /// What a finger does.
    #[derive(Debug, Clone)]
    enum Slip {
        Insert(prop::sample::Index, char),
        Double(prop::sample::Index),
        Omit(prop::sample::Index),
        Replace(prop::sample::Index, char),
        Neighbour(prop::sample::Index, bool),
        Swap(prop::sample::Index),
    }

    fn slip() -> impl Strategy<Value = Slip> {
        let at = any::<prop::sample::Index>;
        prop_oneof![
            (at(), any::<char>()).prop_map(|(at, c)| Slip::Insert(at, c)),
            at().prop_map(Slip::Double),
            at().prop_map(Slip::Omit),
            (at(), any::<char>()).prop_map(|(at, c)| Slip::Replace(at, c)),
            (at(), any::<bool>()).prop_map(|(at, right)| Slip::Neighbour(at, right)),
            at().prop_map(Slip::Swap),
        ]
    }

    fn typed(text: &mut Vec<char>, slip: &Slip) {
        let last = text.len().saturating_sub(1);
        match slip {
            Slip::Insert(at, c) => text.insert(at.index(text.len()), *c),
            Slip::Double(at) => {
                let at = at.index(text.len());
                text.insert(at, text[at]);
            }
            Slip::Omit(at) => {
                text.remove(at.index(text.len()));
            }
            Slip::Replace(at, c) => *at.get_mut(text) = *c,
            Slip::Neighbour(at, right) => {
                let key = at.get_mut(text);
                *key = neighbour(*key, *right);
            }
            Slip::Swap(at) => {
                let at = at.index(last);
                text.swap(at, at + 1);
            }
        }
    }

    /// Passphrases as people choose them: words in two alphabets, or characters at random.
    fn passphrases() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-z]{3,8}( [a-z]{3,8}){2,5}",
            "[а-яё]{3,8}( [а-яїєіґў]{3,8}){2,5}",
            "[!-~]{11,24}",
            "\\PC{11,24}"
        ]
    }

    proptest! {
        /// A15, A16: no slip of one passphrase is accepted as another one.
        #[test]
        fn no_single_slip_makes_another_passphrase(text in passphrases(), slip in slip()) {
            let mut chars: Vec<char> = text.chars().collect();
            typed(&mut chars, &slip);
            let slipped: String = chars.into_iter().collect();
            // One that falls apart into more characters than may differ, when it is compared (a whole word in brackets), is no slip of a
            // finger.
            let is_word = |c: char| c.nfkc().flat_map(char::to_lowercase).count() > ALIKE_EDITS;
            prop_assume!(!text.chars().chain(slipped.chars()).any(is_word));
            prop_assert!(too_close(&text, &slipped) && too_close(&slipped, &text), "{text:?} {slipped:?}");
        }

        /// Two or three, in places apart: slips over each other may cost more than they are.
        #[test]
        fn no_three_slips_make_another_passphrase(
            text in "[a-z]{4}( [a-z]{4}){3,5}", slips in prop::collection::vec(slip(), 2..=3)
        ) {
            // Each slip in a part of its own.
            let chars: Vec<char> = text.chars().collect();
            let third = chars.len() / 3;
            let mut parts: Vec<Vec<char>> =
                vec![chars[..third].to_vec(), chars[third..2 * third].to_vec(), chars[2 * third..].to_vec()];
            for (part, slip) in parts.iter_mut().zip(&slips) {
                // One that falls apart into several characters when compared is more than one edit.
                let wide = |c: &char| c.nfkc().flat_map(char::to_lowercase).count() != 1 || c.nfkd().count() != 1;
                if matches!(slip, Slip::Insert(_, c) | Slip::Replace(_, c) if wide(c)) { continue }
                typed(part, slip);
            }
            let slipped: String = parts.concat().into_iter().collect();
            prop_assert!(too_close(&text, &slipped), "{text:?} {slipped:?}");
        }

        #[test]
        fn neither_the_case_nor_the_missing_end_makes_another(text in passphrases(), keep in 1usize..24) {
            let inverted: String = text.chars().flat_map(|c| -> Vec<char> {
                if c.is_uppercase() { c.to_lowercase().collect() } else { c.to_uppercase().collect() }
            }).collect();
            // Case is folded where it has one form; where capitals expand (`ß`) they differ in a few places.
            if text.to_lowercase() == inverted.to_lowercase() {
                prop_assert!(too_close(&text, &inverted), "{text:?} {inverted:?}");
            }
            let begun: String = text.chars().take(keep).collect();
            prop_assert!(too_close(&text, &begun), "{text:?} {begun:?}");
        }

        /// And what has nothing in common is accepted: the rule does not refuse everything.
        #[test]
        fn passphrases_drawn_apart_are_not_alike(one in "[a-l]{12,30}", other in "[m-z]{12,30}") {
            prop_assert!(!too_close(&one, &other));
        }
    }
}
