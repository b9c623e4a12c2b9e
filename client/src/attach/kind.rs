//! What sort of file it is, told by its bytes: the name decides nothing.

use std::io;

use super::layout::{Bytes, Scan};

/// Bytes that tell.
const HEAD: usize = 64;

/// A sort of file, as far as it matters here: what it says about its maker beside its content, and whether that can be
/// left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// JPEG.
    Jpeg,
    /// PNG, animated too.
    Png,
    /// WebP, animated too.
    WebP,
    /// Text without markup: there is nothing beside its content.
    Text,
    /// Something else, in words: what it says beside its content stays in it.
    Other(&'static str, Option<&'static str>),
}

impl Kind {
    /// The sort of these bytes.
    ///
    /// # Errors
    /// They cannot be read.
    pub(super) fn of(from: &dyn Bytes) -> io::Result<Self> {
        let mut head = [0; HEAD];
        let length = usize::try_from(from.size()).unwrap_or(usize::MAX).min(HEAD);
        let head = head.get_mut(..length).unwrap_or_default();
        from.fill(0, head)?;
        if head.is_empty() {
            return Ok(Self::Text);
        }
        Ok(match by_head(head) {
            Some(kind) => kind,
            None if is_text(from)? => Self::Text,
            None => Self::Other("file of an unknown kind", None),
        })
    }

    /// Its media type, where it is known.
    #[must_use]
    pub const fn media_type(self) -> Option<&'static str> {
        match self {
            Self::Jpeg => Some("image/jpeg"),
            Self::Png => Some("image/png"),
            Self::WebP => Some("image/webp"),
            Self::Text => Some("text/plain"),
            Self::Other(_, media) => media,
        }
    }

    /// In words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Jpeg => "JPEG picture",
            Self::Png => "PNG picture",
            Self::WebP => "WebP picture",
            Self::Text => "text",
            Self::Other(words, _) => words,
        }
    }
}

fn by_head(head: &[u8]) -> Option<Kind> {
    const BEGINS: [(&[u8], &str, &str); 13] = [
        (b"GIF8", "GIF picture", "image/gif"),
        (b"%PDF", "PDF document", "application/pdf"),
        (b"PK\x03\x04", "archive or office document", "application/zip"),
        (b"\x1f\x8b", "archive", "application/gzip"),
        (b"7z\xbc\xaf\x27\x1c", "archive", "application/x-7z-compressed"),
        (b"\xd0\xcf\x11\xe0", "office document", "application/x-ole-storage"),
        (b"{\\rtf", "office document", "application/rtf"),
        (b"II*\0", "TIFF or raw picture", "image/tiff"),
        (b"MM\0*", "TIFF or raw picture", "image/tiff"),
        (b"\x1a\x45\xdf\xa3", "video", "video/x-matroska"),
        (b"ID3", "sound", "audio/mpeg"),
        (b"OggS", "sound or video", "application/ogg"),
        (b"fLaC", "sound", "audio/flac"),
    ];
    if head.starts_with(b"\xff\xd8\xff") {
        return Some(Kind::Jpeg);
    }
    if head.starts_with(b"\x89PNG\r\n\x1a\n") {
        return Some(Kind::Png);
    }
    if head.starts_with(b"RIFF") {
        return Some(match head.get(8..12) {
            Some(b"WEBP") => Kind::WebP,
            Some(b"WAVE") => Kind::Other("sound", Some("audio/wav")),
            _ => Kind::Other("video", Some("video/x-msvideo")),
        });
    }
    if head.get(4..8) == Some(b"ftyp") {
        let is = |brands: &[&[u8]]| head.get(8..12).is_some_and(|brand| brands.contains(&brand));
        return Some(if is(&[b"heic", b"heix", b"hevc", b"mif1", b"msf1"]) {
            Kind::Other("HEIC picture", Some("image/heic"))
        } else if is(&[b"avif", b"avis"]) {
            Kind::Other("AVIF picture", Some("image/avif"))
        } else if is(&[b"M4A ", b"M4B "]) {
            Kind::Other("sound", Some("audio/mp4"))
        } else {
            Kind::Other("video", Some("video/mp4"))
        });
    }
    let known = BEGINS.iter().find(|(begin, _, _)| head.starts_with(begin));
    known.map(|(_, words, media)| Kind::Other(words, Some(media)))
}

/// Whether it is UTF-8 without control characters and without markup, which names programs, people and folders.
fn is_text(from: &dyn Bytes) -> io::Result<bool> {
    let mut scan = Scan::new(from);
    let mut rest: Vec<u8> = Vec::new();
    let mut first = true;
    loop {
        let bytes = scan.next_bytes()?;
        if bytes.is_empty() {
            return Ok(rest.is_empty());
        }
        rest.extend_from_slice(bytes);
        let count = bytes.len();
        scan.consume(count);
        let (valid, tail) = match std::str::from_utf8(&rest) {
            Ok(text) => (text, 0),
            // A character that goes on behind the buffer has at most three bytes of it.
            Err(error) if error.error_len().is_none() => {
                let valid = rest.get(..error.valid_up_to()).unwrap_or_default();
                (std::str::from_utf8(valid).unwrap_or_default(), rest.len() - error.valid_up_to())
            }
            Err(_) => return Ok(false),
        };
        if std::mem::take(&mut first)
            && valid.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}').starts_with('<')
        {
            return Ok(false);
        }
        if valid.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{c}')) {
            return Ok(false);
        }
        rest.drain(..rest.len() - tail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> Kind {
        Kind::of(&bytes.to_vec()).unwrap()
    }

    #[test]
    fn kinds_are_told_by_their_bytes() {
        assert_eq!(of(b"\xff\xd8\xff\xe0"), Kind::Jpeg);
        assert_eq!(of(b"\x89PNG\r\n\x1a\n...."), Kind::Png);
        assert_eq!(of(b"RIFF\x10\0\0\0WEBPVP8 "), Kind::WebP);
        assert_eq!(of(b"\0\0\0\x18ftypheic").words(), "HEIC picture");
        assert_eq!(of(b"\0\0\0\x18ftypisom").words(), "video");
        assert_eq!(of(b"%PDF-1.7").media_type(), Some("application/pdf"));
        assert_eq!(of(b"PK\x03\x04....").words(), "archive or office document");
        assert_eq!(of(&[0, 1, 2, 3]), Kind::Other("file of an unknown kind", None));
        assert_eq!(of(b"\xff"), Kind::Other("file of an unknown kind", None));
    }

    #[test]
    fn text_is_text_to_its_end_and_without_markup() {
        assert_eq!(of(b""), Kind::Text);
        assert_eq!(of("Пароль: ford\r\n\tsix o'clock".as_bytes()), Kind::Text);
        let long = "ж".repeat(100_001);
        assert_eq!(of(long.as_bytes()), Kind::Text);
        assert_eq!(of(&[b"x", long.as_bytes()].concat()), Kind::Text);
        assert_ne!(of(&long.as_bytes()[..200_001]), Kind::Text, "a cut character");
        assert_ne!(of(&[long.as_bytes(), &[0]].concat()), Kind::Text);
        assert_ne!(of(b" \n<svg inkscape:export-filename='/home/ann/x.png'/>"), Kind::Text);
        assert_ne!(of("\u{feff}<?xml version='1.0'?>".as_bytes()), Kind::Text);
        assert_ne!(of(b"{\\rtf1 {\\author ann}}"), Kind::Text);
    }
}
