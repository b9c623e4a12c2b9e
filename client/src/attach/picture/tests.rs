//! Pictures made by hand, each with a canary in every place where a program may put something about its owner.

use proptest::prelude::*;

use super::*;

/// Stands for what must not be sent.
const CANARY: &[u8] = b"GPS 53.9045 27.5615 Minsk";

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(bytes, needle).is_some()
}

fn stripped(kind: Kind, bytes: &[u8]) -> Option<Vec<u8>> {
    let from = bytes.to_vec();
    let layout = strip(kind, &from).unwrap()?;
    let mut out = vec![0; usize::try_from(layout.size()).unwrap()];
    layout.fill(&from, 0, &mut out).unwrap();
    Some(out)
}

fn segment(marker: u8, contents: &[u8]) -> Vec<u8> {
    let length = u16::try_from(contents.len() + 2).unwrap();
    [&[0xff, marker][..], &length.to_be_bytes(), contents].concat()
}

/// EXIF with an orientation, and a place behind it.
fn exif(orientation: u8, little: bool) -> Vec<u8> {
    let tiff: Vec<u8> = if little {
        [&b"II*\0"[..], &[8, 0, 0, 0, 2, 0], &[0x0f, 1, 2, 0, 4, 0, 0, 0, b'c', b'a', b'm', 0]]
            .concat()
            .into_iter()
            .chain([0x12, 1, 3, 0, 1, 0, 0, 0, orientation, 0, 0, 0, 0, 0, 0, 0])
            .collect()
    } else {
        [&b"MM\0*"[..], &[0, 0, 0, 8, 0, 2], &[1, 0x0f, 0, 2, 0, 0, 0, 4, b'c', b'a', b'm', 0]]
            .concat()
            .into_iter()
            .chain([1, 0x12, 0, 3, 0, 0, 0, 1, 0, orientation, 0, 0, 0, 0, 0, 0])
            .collect()
    };
    [&b"Exif\0\0"[..], &tiff, CANARY].concat()
}

/// A progressive JPEG with two scans, a restart, a stuffed byte, and the canary in and behind everything.
fn jpeg(orientation: u8, little: bool) -> Vec<u8> {
    let noise = |prefix: &[u8]| [prefix, CANARY].concat();
    [
        vec![0xff, 0xd8],
        segment(0xe0, &noise(b"JFIF\0\x01\x01\0\0\x01\0\x01\x05\x05")),
        segment(0xe1, &exif(orientation, little)),
        segment(0xe1, &noise(b"http://ns.adobe.com/xap/1.0/\0")),
        segment(0xe2, &noise(b"ICC_PROFILE\0\x01\x01")),
        segment(0xe2, &noise(b"MPF\0")),
        segment(0xed, &noise(b"Photoshop 3.0\08BIM")),
        segment(0xee, &noise(b"Adobe\0\x64\0\0\0\0\x01")),
        segment(0xfe, CANARY),
        segment(0xdb, &[0; 65]),
        segment(0xc2, &[8, 0, 8, 0, 8, 1, 1, 0x11, 0]),
        segment(0xc4, &[0; 17]),
        segment(0xdd, &[0, 1]),
        segment(0xda, &[1, 1, 0, 0, 0, 0]),
        vec![0x12, 0xff, 0x00, 0x34, 0xff, 0xd0, 0x56],
        segment(0xfe, CANARY),
        segment(0xe1, &noise(b"Exif\0\0")),
        vec![0xff],
        segment(0xda, &[1, 1, 0, 1, 5, 0]),
        vec![0x78, 0x9a],
        vec![0xff, 0xd9],
        noise(b"\0\0\0\x18ftypmp42 a film behind the picture"),
        vec![0xff, 0xd8],
        segment(0xe1, &exif(6, true)),
        vec![0xff, 0xd9],
    ]
    .concat()
}

fn chunk(kind: &[u8; 4], contents: &[u8]) -> Vec<u8> {
    // No decoder reads these: the checksum stands for itself.
    [&u32::try_from(contents.len()).unwrap().to_be_bytes()[..], kind, contents, b"crc!"].concat()
}

fn png() -> Vec<u8> {
    [
        b"\x89PNG\r\n\x1a\n".to_vec(),
        chunk(b"IHDR", &[0, 0, 0, 1, 0, 0, 0, 1, 8, 0, 0, 0, 0]),
        chunk(b"tEXt", &[b"Comment\0", CANARY].concat()),
        chunk(b"zTXt", CANARY),
        chunk(b"iTXt", &[b"XML:com.adobe.xmp\0\0\0\0\0", CANARY].concat()),
        chunk(b"eXIf", CANARY),
        chunk(b"tIME", &[7, 0xea, 1, 1, 0, 0, 0]),
        chunk(b"iCCP", CANARY),
        chunk(b"gAMA", CANARY),
        chunk(b"sRGB", &[0]),
        chunk(b"prVt", CANARY),
        chunk(b"IDAT", b"pixels"),
        chunk(b"IDAT", b"and more"),
        chunk(b"tEXt", CANARY),
        chunk(b"IEND", &[]),
        CANARY.to_vec(),
    ]
    .concat()
}

fn riff(kind: &[u8; 4], contents: &[u8]) -> Vec<u8> {
    let padding = &[0u8][..contents.len() % 2];
    [kind, &u32::try_from(contents.len()).unwrap().to_le_bytes()[..], contents, padding].concat()
}

fn webp() -> Vec<u8> {
    let frame = [&[0; 16][..], &riff(b"VP8L", b"odd"), &riff(b"junk", CANARY)].concat();
    let chunks = [
        b"WEBP".to_vec(),
        riff(b"VP8X", &[0b0011_1110, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        riff(b"ICCP", CANARY),
        riff(b"ANIM", &[0; 6]),
        riff(b"ANMF", &frame),
        riff(b"VP8 ", b"pixels"),
        riff(b"EXIF", CANARY),
        riff(b"XMP ", CANARY),
    ]
    .concat();
    let riff = [b"RIFF", &u32::try_from(chunks.len()).unwrap().to_le_bytes()[..], &chunks].concat();
    [&riff, CANARY].concat()
}

#[test]
fn att_06_a_jpeg_keeps_its_picture_and_its_orientation() {
    for (orientation, little) in [(6, true), (8, false)] {
        let bytes = jpeg(orientation, little);
        assert!(contains(&bytes, CANARY) && contains(&bytes, b"cam"));
        let out = stripped(Kind::Jpeg, &bytes).unwrap();
        for gone in [CANARY, b"cam", b"JFIF", b"ICC", b"MPF", b"ns.adobe", b"8BIM", b"ftyp", b"Minsk"] {
            assert!(!contains(&out, gone), "{}", String::from_utf8_lossy(gone));
        }
        for kept in [&[0x12, 0xff, 0x00, 0x34, 0xff, 0xd0, 0x56][..], &[0x78, 0x9a, 0xff, 0xd9]] {
            assert!(contains(&out, kept));
        }
        assert!(contains(&out, &[b"Adobe", &[0, 100, 0, 0, 0, 0, 1][..]].concat()));
        assert!(contains(&out, &[1, 0x12, 0, 3, 0, 0, 0, 1, 0, orientation]));
        assert!(out.ends_with(&[0xff, 0xd9]));
        assert_eq!(stripped(Kind::Jpeg, &out).unwrap(), out, "what is clean stays as it is");
    }
    assert!(!contains(&stripped(Kind::Jpeg, &jpeg(1, true)).unwrap(), b"Exif"));
    assert!(!contains(&stripped(Kind::Jpeg, &jpeg(77, true)).unwrap(), b"Exif"));
}

#[test]
fn att_06_a_png_keeps_what_a_decoder_needs() {
    let out = stripped(Kind::Png, &png()).unwrap();
    let expected = [
        b"\x89PNG\r\n\x1a\n".to_vec(),
        chunk(b"IHDR", &[0, 0, 0, 1, 0, 0, 0, 1, 8, 0, 0, 0, 0]),
        chunk(b"sRGB", &[0]),
        chunk(b"IDAT", b"pixels"),
        chunk(b"IDAT", b"and more"),
        chunk(b"IEND", &[]),
    ];
    assert_eq!(out, expected.concat());
}

#[test]
fn att_06_a_webp_keeps_pictures_and_frames() {
    let out = stripped(Kind::WebP, &webp()).unwrap();
    let chunks = [
        b"WEBP".to_vec(),
        riff(b"VP8X", &[0b0001_0010, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        riff(b"ANIM", &[0; 6]),
        riff(b"ANMF", &[&[0; 16][..], &riff(b"VP8L", b"odd")].concat()),
        riff(b"VP8 ", b"pixels"),
    ]
    .concat();
    let expected = [b"RIFF", &u32::try_from(chunks.len()).unwrap().to_le_bytes()[..], &chunks].concat();
    assert_eq!(out, expected);
}

#[test]
fn att_06_what_is_cut_is_no_picture() {
    for (kind, bytes, end) in [
        (Kind::Jpeg, jpeg(6, true), None),
        (Kind::Png, png(), Some(CANARY.len())),
        (Kind::WebP, webp(), Some(25)),
    ] {
        let end = end.map_or_else(
            || memchr::memmem::find(&bytes, &[0x78, 0x9a, 0xff, 0xd9]).unwrap() + 4,
            |behind| bytes.len() - behind,
        );
        assert!(stripped(kind, &bytes[..end]).is_some());
        for cut in 0..end {
            assert!(stripped(kind, &bytes[..cut]).is_none(), "{kind:?} cut at {cut} of {end}");
        }
    }
}

#[test]
fn fields_that_have_another_length_hide_nothing() {
    let mut frame = vec![8, 0, 8, 0, 8, 1, 1, 0x11, 0];
    frame.extend_from_slice(CANARY);
    let bytes = [
        vec![0xff, 0xd8],
        segment(0xc0, &frame),
        segment(0xda, &[1, 1, 0, 0, 63, 0]),
        vec![0x12, 0xff, 0xd9],
    ]
    .concat();
    assert!(stripped(Kind::Jpeg, &bytes).is_none());
    let long = [b"\x89PNG\r\n\x1a\n".to_vec(), chunk(b"IHDR", &[&[0; 13][..], CANARY].concat())].concat();
    assert!(stripped(Kind::Png, &long).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a damaged picture looks like: never a panic, and never a canary that stands in a place of its own.
    #[test]
    fn att_06_damaged_pictures_do_no_harm(
        which in 0..3usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let (kind, mut bytes) =
            [(Kind::Jpeg, jpeg(6, true)), (Kind::Png, png()), (Kind::WebP, webp())][which].clone();
        for (at, byte) in &changes {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        if let Some(out) = stripped(kind, &bytes) {
            prop_assert!(out.len() <= bytes.len() + 64);
            if kind != Kind::Jpeg {
                // Damage may make a chunk of pixels of what was none, and then it is the picture.
                let again = stripped(kind, &out);
                prop_assert_eq!(again, Some(out));
            }
        }
        bytes.truncate(cut.index(bytes.len()));
        let _ = stripped(kind, &bytes);
    }

    /// Random bytes behind each signature.
    #[test]
    fn random_bytes_do_no_harm(which in 0..3usize, tail in prop::collection::vec(any::<u8>(), 0..300)) {
        let (kind, begin): (Kind, &[u8]) = [
            (Kind::Jpeg, &b"\xff\xd8\xff"[..]),
            (Kind::Png, b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR"),
            (Kind::WebP, b"RIFF\x10\0\0\0WEBP"),
        ][which];
        let _ = stripped(kind, &[begin, &tail].concat());
    }

    /// A canary in a segment or chunk that is not needed is found in what was given, and not in what is sent.
    #[test]
    fn att_06_planted_canaries_are_gone(marker in 0xe0..=0xefu8, kind in "[a-z][a-zA-Z][A-Z][a-z]") {
        let clean = stripped(Kind::Jpeg, &jpeg(1, true)).unwrap();
        let planted = [&clean[..2], &segment(marker, CANARY), &clean[2..]].concat();
        prop_assert!(contains(&planted, CANARY));
        prop_assert_eq!(stripped(Kind::Jpeg, &planted).unwrap(), clean);
        let clean = stripped(Kind::Png, &png()).unwrap();
        let kind: [u8; 4] = kind.as_bytes().try_into().unwrap();
        prop_assume!(!matches!(&kind, b"fdAT" | b"tRNS"));
        let planted = [&clean[..33], &chunk(&kind, CANARY), &clean[33..]].concat();
        prop_assert!(contains(&planted, CANARY));
        prop_assert_eq!(stripped(Kind::Png, &planted).unwrap(), clean);
    }
}
