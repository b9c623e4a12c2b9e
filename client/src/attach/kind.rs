//! What sort of file it is, told by its bytes: the name decides nothing.

use std::io;

use super::layout::{Bytes, Scan};

/// Bytes that tell.
const HEAD: usize = 64;
const UNKNOWN: Kind = Kind::Other("file of an unknown kind", None);

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
    /// Text that begins as no format of some program: there is nothing beside its content.
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
        match by_head(head) {
            Some(kind) => Ok(kind),
            None => by_letters(from),
        }
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

/// ATT-06: a format that is written in letters: such files name programs, people and folders. `None` for what a person wrote.
fn by_first_letters(text: &str) -> Option<Kind> {
    let text = text.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    let begins = |start: &str| text.get(..start.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(start));
    let other = |words, media| Some(Kind::Other(words, Some(media)));
    if begins("<") {
        return Some(UNKNOWN);
    }
    if begins("%!") {
        return other("PostScript picture or document", "application/postscript");
    }
    if begins("%PDF") {
        return other("PDF document", "application/pdf");
    }
    if begins("{\\rtf") {
        return other("office document", "application/rtf");
    }
    if is_pixmap(text) {
        return other("Netpbm picture", "image/x-portable-anymap");
    }
    if begins("! XPM") {
        return other("XPM picture", "image/x-xpixmap");
    }
    // Programs sign in a comment before the picture itself.
    let mut code = text;
    while let Some((comment, rest)) = code.strip_prefix("/*").and_then(|rest| rest.split_once("*/")) {
        if comment.trim_start().get(..3).is_some_and(|word| word.eq_ignore_ascii_case("xpm")) {
            return other("XPM picture", "image/x-xpixmap");
        }
        code = rest.trim_start();
    }
    if code.starts_with("#define") {
        return other("XBM picture or program", "image/x-xbitmap");
    }
    if begins("BEGIN:VC") {
        return other("address card or calendar", "text/vcard");
    }
    is_mail(text).then_some(Kind::Other("mail or saved page", Some("message/rfc822")))
}

/// Whether it begins as the pictures of Netpbm do: `P1` to `P7`, and then numbers, words of its own or a remark. Their pixels may
/// be letters too.
fn is_pixmap(text: &str) -> bool {
    let Some(rest) =
        text.strip_prefix(['P', 'p']).and_then(|rest| rest.strip_prefix(|c| ('1'..='7').contains(&c)))
    else {
        return false;
    };
    let is_own = |rest: &str| {
        let words = ["WIDTH", "HEIGHT", "DEPTH", "MAXVAL", "TUPLTYPE"];
        rest.starts_with(|c: char| c == '#' || c.is_ascii_digit())
            || words.iter().any(|word| rest.starts_with(word))
    };
    rest.starts_with('#') || (rest.starts_with(char::is_whitespace) && is_own(rest.trim_start()))
}

/// Whether it begins with the head of a mail, as web pages that are saved in one file do: lines with names, of which one is no
/// word that a person begins a note with.
fn is_mail(text: &str) -> bool {
    const NAMES: [&str; 13] = [
        "mime-version",
        "from",
        "sender",
        "received",
        "return-path",
        "delivered-to",
        "reply-to",
        "message-id",
        "in-reply-to",
        "content-type",
        "content-transfer-encoding",
        "snapshot-content-location",
        "user-agent",
    ];
    let name = |line: &str| line.split_once(':').map(|(name, _)| name.trim_end().to_ascii_lowercase());
    let is_name = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let mut head = text.lines().take_while(|line| !line.trim().is_empty()).peekable();
    // As mails lie in a mailbox, and as changes of programs are passed on.
    let first = head.next_if(|line| line.starts_with("From ")).is_some();
    if !first && !head.peek().and_then(|line| name(line)).is_some_and(|name| is_name(&name)) {
        return false;
    }
    head.filter_map(name)
        .any(|name| NAMES.contains(&name.as_str()) || (name.starts_with("x-") && is_name(&name)))
}

/// What is no picture by its first bytes: text if it is UTF-8 without control characters and no format of some program.
fn by_letters(from: &dyn Bytes) -> io::Result<Kind> {
    let mut scan = Scan::new(from);
    let mut rest: Vec<u8> = Vec::new();
    let mut first = true;
    loop {
        let bytes = scan.next_bytes()?;
        if bytes.is_empty() {
            return Ok(if rest.is_empty() { Kind::Text } else { UNKNOWN });
        }
        rest.extend_from_slice(bytes);
        let count = bytes.len();
        scan.consume(count);
        let (valid, tail, is_valid) = match std::str::from_utf8(&rest) {
            Ok(text) => (text, 0, true),
            Err(error) => {
                let valid = rest.get(..error.valid_up_to()).unwrap_or_default();
                let valid = std::str::from_utf8(valid).unwrap_or_default();
                // A character that goes on behind the buffer has at most three bytes of it.
                (valid, rest.len() - error.valid_up_to(), error.error_len().is_none())
            }
        };
        if std::mem::take(&mut first)
            && let Some(kind) = by_first_letters(valid)
        {
            return Ok(kind);
        }
        if !is_valid || valid.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{c}')) {
            return Ok(UNKNOWN);
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

    #[test]
    fn att_06_formats_that_are_written_in_letters_are_no_text() {
        let formats: [(&str, &[&str]); 8] = [
            ("PostScript picture or document", &["%!PS-Adobe-3.0 EPSF-3.0\n%%For: ann\n", "%!\n", "%!ps\n"]),
            ("PDF document", &["%PDF-1.4\n% /Author (ann)\n", "%pdf-1.4"]),
            ("office document", &["{\\RTF1 {\\author ann}}"]),
            (
                "Netpbm picture",
                &[
                    "P3\n# CREATOR: GIMP, of ann\n1 1\n255\n1 2 3\n",
                    "P1 2 2\n0 1 1 0\n",
                    "P2# ann\n1 1 9 9",
                    "P6\n# ann\n1 1\n255\nabc",
                    "P7\nWIDTH 1\nHEIGHT 1\n",
                    "p2\t1 1 9 9",
                ],
            ),
            (
                "XPM picture",
                &["/* XPM */\nstatic char *ann[] = {", "/*xpm*/", "/* by ann */\n/* XPM */", "! XPM2\n"],
            ),
            (
                "XBM picture or program",
                &["#define ann_width 16\n", "/* Created with GIMP, by ann */\r\n#define x_width 1\n"],
            ),
            ("address card or calendar", &["BEGIN:VCARD\r\nFN:Ann\r\n", "begin:vcalendar\n"]),
            (
                "mail or saved page",
                &[
                    "MIME-Version: 1.0\r\n",
                    "From: <Saved by Blink>\r\nSnapshot-Content-Location: file:///home/ann/x.html\r\n",
                    "mime-version: 1.0\n",
                    "Subject: the ford\nTo: ford@example.org\nMessage-ID: <1@ann>\n\nSix o'clock.\n",
                    "From 0123abcd Mon Sep 17 00:00:00 2001\nFrom: Ann <ann@example.org>\n",
                    "Date: Mon, 17 Sep 2001 00:00:00 +0000\nX-Mailer: hers\n",
                ],
            ),
        ];
        for (words, all) in formats {
            for bytes in all {
                for before in ["", "\u{feff}", "\u{feff}\r\n \t", "\n\n"] {
                    let file = format!("{before}{bytes}");
                    assert_eq!(of(file.as_bytes()).words(), words, "{file:?}");
                    // Nothing that follows makes it another.
                    let long = [file.as_bytes(), &[b'x'; 200_000], b"\xff\0"].concat();
                    assert_eq!(of(&long).words(), words, "{file:?}, and more");
                }
            }
        }
    }

    #[test]
    fn what_people_write_is_text_although_it_begins_like_one_of_them() {
        for text in [
            "P1 comes at six, P2 later",
            "P3",
            "Plan: at six\nFrom the ford to the mill",
            "From the river we go on.\nTo: nobody",
            "Subject: tomorrow\nDate: Monday\n\nFrom: here on by foot",
            "http://ford.example: look",
            "100 %! Come.",
            "/* hush */ six",
            "# define the place",
            "ж: From: x",
        ] {
            assert_eq!(of(text.as_bytes()), Kind::Text, "{text}");
        }
    }
}
