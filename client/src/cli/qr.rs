//! Tickets and addresses as QR codes (ISO/IEC 18004) made of characters.

use std::fmt;

use qrcode::{Color, EcLevel, QrCode};

/// Light modules around the code, which scanners need: section 6.3.8 of the standard.
const QUIET: usize = 4;

/// What the terminal can draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Style {
    /// Two modules above each other in a character, by half blocks; light on a dark background.
    #[default]
    Blocks,
    /// The same for a light background.
    BlocksOnLight,
    /// `##` and blanks, for terminals without Unicode; for a light background, as most scanners read inverted codes too.
    Plain,
}

impl Style {
    /// What fits the locale: blocks where `LC_ALL`, else `LC_CTYPE`, else `LANG` names UTF-8. `lookup` reads the
    /// environment.
    pub fn for_locale(lookup: impl Fn(&str) -> Option<String>) -> Self {
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .into_iter()
            .find_map(|name| lookup(name).filter(|value| !value.is_empty()))
            .unwrap_or_default()
            .to_ascii_lowercase();
        if locale.contains("utf-8") || locale.contains("utf8") { Self::Blocks } else { Self::Plain }
    }
}

/// The text does not fit into a QR code, or the terminal is too narrow: show the text instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the text is too long for a QR code")]
pub struct TooLong;

/// A code, ready to be shown by `Display`, several lines.
///
/// # Security
/// Whoever photographs it has the text. It stays in the scrollback of most terminals.
#[derive(Clone)]
pub struct Qr {
    dark: Vec<bool>,
    width: usize,
    style: Style,
}

impl Qr {
    /// The code of a text, with the least redundancy: it is scanned from a screen, not from a wet wall. Text of digits,
    /// upper case and `$%*+-./:` gives a smaller code.
    ///
    /// # Errors
    /// [`TooLong`] above about 2,900 bytes.
    pub fn new(text: &str, style: Style) -> Result<Self, TooLong> {
        let code = QrCode::with_error_correction_level(text.as_bytes(), EcLevel::L).map_err(|_| TooLong)?;
        let dark = code.to_colors().into_iter().map(|color| color == Color::Dark).collect();
        Ok(Self { dark, width: code.width(), style })
    }

    /// Columns of the terminal that it needs.
    pub const fn columns(&self) -> usize {
        let modules = self.width + 2 * QUIET;
        match self.style {
            Style::Blocks | Style::BlocksOnLight => modules,
            Style::Plain => 2 * modules,
        }
    }

    /// Whether the module is dark; everything around the code is light.
    fn is_dark(&self, row: usize, column: usize) -> bool {
        let (Some(row), Some(column)) = (row.checked_sub(QUIET), column.checked_sub(QUIET)) else {
            return false;
        };
        row < self.width
            && column < self.width
            && self.dark.get(row * self.width + column).copied().unwrap_or_default()
    }
}

impl fmt::Display for Qr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let modules = self.width + 2 * QUIET;
        let rows = match self.style {
            Style::Blocks | Style::BlocksOnLight => 2,
            Style::Plain => 1,
        };
        for row in (0..modules).step_by(rows) {
            for column in 0..modules {
                let (upper, lower) = (self.is_dark(row, column), self.is_dark(row + 1, column));
                f.write_str(match (self.style, upper, lower) {
                    (Style::Plain, true, _) => "##",
                    (Style::Plain, false, _) => "  ",
                    (Style::Blocks, false, false) | (Style::BlocksOnLight, true, true) => "█",
                    (Style::Blocks, false, true) | (Style::BlocksOnLight, true, false) => "▀",
                    (Style::Blocks, true, false) | (Style::BlocksOnLight, false, true) => "▄",
                    (Style::Blocks, true, true) | (Style::BlocksOnLight, false, false) => " ",
                })?;
            }
            f.write_str("\n")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Qr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dark: _, width: _, style: _ } = self;
        f.write_str("Qr(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::untrusted::Printable;

    /// The dark modules that a drawing shows, read back from its characters.
    fn read_back(drawn: &str, style: Style) -> Vec<Vec<bool>> {
        let mut rows = Vec::new();
        for line in drawn.lines() {
            if style == Style::Plain {
                let chars: Vec<char> = line.chars().collect();
                rows.push(chars.chunks(2).map(|pair| pair == ['#', '#']).collect());
                continue;
            }
            let light = style == Style::BlocksOnLight;
            let (upper, lower) = line
                .chars()
                .map(|c| match c {
                    '█' => (light, light),
                    ' ' => (!light, !light),
                    '▀' => (light, !light),
                    '▄' => (!light, light),
                    other => panic!("unexpected {other}"),
                })
                .unzip();
            rows.push(upper);
            rows.push(lower);
        }
        rows
    }

    #[test]
    fn each_style_draws_every_module_inside_a_quiet_zone() {
        let text = "lapwing:abcdefghijklmnopqrstuvwxyz234567".repeat(8);
        let code = QrCode::with_error_correction_level(text.as_bytes(), EcLevel::L).unwrap();
        let width = code.width();
        for style in [Style::Blocks, Style::BlocksOnLight, Style::Plain] {
            let drawn = Qr::new(&text, style).unwrap();
            let columns = drawn.columns();
            let drawn = drawn.to_string();
            assert!(drawn.lines().all(|line| line.chars().count() == columns));
            let rows = read_back(&drawn, style);
            for (row, modules) in rows.iter().enumerate().take(width + 2 * QUIET) {
                for (column, dark) in modules.iter().enumerate() {
                    let inside =
                        (QUIET..QUIET + width).contains(&row) && (QUIET..QUIET + width).contains(&column);
                    let want = inside && code[(column - QUIET, row - QUIET)] == Color::Dark;
                    assert_eq!(*dark, want, "{style:?} at {row}, {column}");
                }
            }
            assert_eq!(Printable::whole(&drawn).to_string(), drawn, "the way to the screen changes nothing");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert_eq!(Qr::new(&"x".repeat(3000), Style::Blocks).unwrap_err(), TooLong);
        assert!(Qr::new(&"x".repeat(2900), Style::Blocks).is_ok());
    }

    #[test]
    fn the_locale_decides() {
        let with = |all: &'static [(&str, &str)]| {
            Style::for_locale(move |name| {
                all.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(with(&[("LANG", "de_DE.UTF-8")]), Style::Blocks);
        assert_eq!(with(&[("LC_ALL", "C"), ("LANG", "de_DE.UTF-8")]), Style::Plain);
        assert_eq!(with(&[("LC_ALL", ""), ("LC_CTYPE", "C.utf8")]), Style::Blocks);
        assert_eq!(with(&[]), Style::Plain);
    }

    #[test]
    fn debug_shows_nothing_of_the_text() {
        assert_eq!(format!("{:?}", Qr::new("secret", Style::Plain).unwrap()), "Qr(..)");
    }
}
