//! What is shown of files.

use std::collections::BTreeMap;

use lapwing_wire::frame::Refusal;

use super::Fault;
use crate::{
    store::{ChatId, FileRow, MessageRow, Order, Unit, UploadRow},
    untrusted::Untrusted,
};

/// The file of a message.
#[derive(Debug)]
pub struct FileView {
    /// What its sender calls it.
    pub name: Untrusted<String>,
    /// Bytes.
    pub size: u64,
    /// What its sender says that it is.
    pub media: Option<String>,
    /// It was fetched here.
    pub fetched: bool,
    /// Of one that is on its way: how much of it a relay has, in hundredths, and what that said when it last refused.
    pub leaving: Option<(u64, Option<Refusal>)>,
}

/// The file of a message, as it is shown. `None` where its key is gone.
pub(in super::super) fn shown(
    unit: &Unit<'_>,
    place: (ChatId, Order),
    message: &MessageRow,
    row: &FileRow,
) -> Result<Option<FileView>, Fault> {
    let Some((attachment, fetched)) = super::open(unit, place, message, row)? else { return Ok(None) };
    let total = attachment.chunks().map_or(1, |chunks| chunks.total());
    let upload = unit.get::<UploadRow>(&place)?;
    Ok(Some(FileView {
        name: Untrusted::new(attachment.name.as_str().to_owned()),
        size: attachment.size,
        media: attachment.media.as_ref().map(|media| media.as_str().to_owned()),
        fetched,
        leaving: upload.map(|row| (row.done.min(total) * 100 / total, row.refused)),
    }))
}

/// What belongs to messages of a chat.
pub(in super::super) struct Files(BTreeMap<Order, FileRow>);

impl Files {
    /// Of the messages from `first` on.
    pub(in super::super) fn from(
        unit: &Unit<'_>,
        chat: &ChatId,
        first: Option<Order>,
    ) -> Result<Self, Fault> {
        let Some(first) = first else { return Ok(Self(BTreeMap::new())) };
        let before = (*chat, first.saturating_sub(1));
        let rows = unit.range::<FileRow>(chat.as_bytes(), Some(&before), usize::MAX, false)?;
        Ok(Self(rows.into_iter().map(|((_, order), row)| (order, row)).collect()))
    }

    /// Of this message.
    pub(in super::super) fn of(
        &self,
        unit: &Unit<'_>,
        place: (ChatId, Order),
        message: &MessageRow,
    ) -> Result<Option<FileView>, Fault> {
        self.0.get(&place.1).map_or(Ok(None), |row| shown(unit, place, message, row))
    }
}
