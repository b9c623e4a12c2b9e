//! Pictures without what they say beside what is seen: no place, time, camera, owner, comment, thumbnail, profile.
//!
//! By allow-list: what a decoder needs to show the picture is kept, everything else is left out, whatever it is called,
//! and also what follows behind the picture's end (a film, a second picture, what a careless program left of a cropped
//! one). Of a JPEG's EXIF the orientation is kept, as a number from 1 to 8, in a record of its own; without it many
//! photographs would lie on their side.
//!
//! No library does this: those for EXIF leave the rest, and `img-parts` keeps everything behind a JPEG's first scan as it
//! is. So the three containers are walked here; no pixel is decoded.
//!
//! Invariants: ATT-06 what is not known to be needed is not sent; a picture that cannot be walked to its end is no picture
//! (`None`), never one that is sent as it is; a walk is bounded by the file's length.
//!
//! Known gaps: the picture itself says much: faces, signs, shadows, and to an expert the camera, by its tables of
//! quantisation and its noise. Colours of a file with a profile of its own change a little.
//!
//! Sources: ITU-T T.81 annex B; TIFF 6.0; PNG, third edition; RFC 9649.

use std::io;

use super::{
    kind::Kind,
    layout::{Bytes, Layout},
};

mod jpeg;
mod png;
mod webp;

#[cfg(test)]
mod tests;

/// ATT-06: what is sent of a picture. `None` where it is not whole.
///
/// # Errors
/// It cannot be read.
pub(super) fn strip(kind: Kind, from: &dyn Bytes) -> io::Result<Option<Layout>> {
    let layout = match kind {
        Kind::Jpeg => jpeg::layout(from)?,
        Kind::Png => png::layout(from)?,
        Kind::WebP => webp::layout(from)?,
        Kind::Text | Kind::Other(..) => None,
    };
    Ok(layout.filter(|layout| !layout.is_scattered()))
}
