//! Files on their way to a relay and from one: in parts, a few at a time, going on where a link or a program ended.
//!
//! Invariants: DRV-02 for files: what the relay has of one is asked for before anything of it is sent; DRV-05 nothing is
//! asked for again and again without getting on. ATT-01 nothing of a part is handed on before it is genuine.

use std::{collections::HashSet, path::PathBuf, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesOrdered};
use lapwing_protocol::attachment::{Attachment, CHUNK, Chunks};
use lapwing_wire::{
    address::{RelayAddress, RelayKey},
    frame::{BlobGet, Refusal, RequestBody, ResponseBody},
};

use super::{
    Compartment, Driver, Next, Trouble,
    line::{Line, Work},
};
use crate::{
    attach::{Source, SourceError},
    engine::{
        Event,
        files::{self, Moved, Upload},
    },
    net::{ConnectError, LinkError},
    store::Unit,
};

/// Parts on their way at once: half a megabyte of memory, and enough for a megabyte a second at 500 ms of round trip.
const IN_FLIGHT: usize = 8;

/// Parts between two notes of how far a file has come: a mebibyte, which is what a killed program may send twice.
const NOTED_EVERY: u64 = 16;

/// How often a link is made anew, or a relay that is busy asked again, without getting on in between.
const TRIES: u32 = 3;

/// Before a relay that is busy is asked again. One that is short of memory has waited for seconds already.
const BUSY_PAUSE: Duration = Duration::from_secs(1);

const CHUNK_BYTES: u64 = CHUNK as u64;

/// What came of sending files.
#[derive(Debug, Default)]
pub struct UploadReport {
    /// A message was put on its way, or given up: there is something to settle.
    pub changed: bool,
    /// It was ended by who watched it.
    pub ended: bool,
    /// Relays that could not be used.
    pub trouble: Vec<Trouble>,
    /// Files that cannot be read now, and wait.
    pub unread: Vec<(PathBuf, SourceError)>,
}

/// Why a file was not fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError<E> {
    /// The relay cannot be used.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The relay gives nothing of it now. Later may help.
    #[error("the relay does not give this file now")]
    Busy,
    /// The relay has no such blob, or not any more.
    #[error("the relay does not have this file")]
    Gone,
    /// ATT-01: what the relay gave is not what was sealed.
    #[error("the relay gave something else than the file")]
    NotGenuine,
    /// The taker refused.
    #[error("what was fetched could not be taken")]
    Taker(E),
}

/// Told of each part of a file that is sent: bytes that the relay has, and bytes of all.
pub type Watch<'a> = dyn FnMut(&Upload, u64, u64) -> Next + 'a;

/// Takes the bytes of a file, in order, with the number of parts that came and of all.
pub type Take<'a, E> = dyn FnMut(&[u8], u64, u64) -> Result<(), E> + 'a;

/// Why sending one file stopped.
enum Stop {
    /// Who watched wants it.
    Asked,
    /// Nothing more can be done with it now.
    Later,
    /// The link ended; how much the relay had by then.
    Lost(u64),
    /// The relay cannot be used.
    Relay(ConnectError),
}

impl Driver {
    /// Sends the files that wait, one after the other. What is cut off is gone on with by the next call.
    pub async fn upload(&mut self, compartments: &[Compartment], watch: &mut Watch<'_>) -> UploadReport {
        let mut report = UploadReport::default();
        let mut failed: HashSet<RelayKey> = HashSet::new();
        for compartment in compartments {
            let waiting = files::uploads(&Unit::new(&*compartment.base), None).unwrap_or_default();
            for upload in waiting {
                if failed.contains(upload.relay.key()) {
                    continue;
                }
                match self.upload_one(compartment, &upload, watch, &mut report).await {
                    Ok(()) | Err(Stop::Later | Stop::Lost(_)) => {}
                    Err(Stop::Asked) => {
                        report.ended = true;
                        return report;
                    }
                    Err(Stop::Relay(error)) => {
                        failed.insert(*upload.relay.key());
                        report.trouble.push(Trouble { relay: upload.relay.clone(), error });
                    }
                }
            }
        }
        report
    }

    async fn upload_one(
        &mut self,
        compartment: &Compartment,
        upload: &Upload,
        watch: &mut Watch<'_>,
        report: &mut UploadReport,
    ) -> Result<(), Stop> {
        let source = match Source::open(&upload.path, upload.whole) {
            Ok(source) if source.size() == upload.attachment.size => source,
            Ok(_) => return Err(self.lost(compartment, upload, SourceError::Changed, report)),
            // It may come back: a disk that is not there now.
            Err(error @ (SourceError::Missing | SourceError::Denied | SourceError::Unreadable)) => {
                report.unread.push((upload.path.clone(), error));
                return Err(Stop::Later);
            }
            Err(error) => return Err(self.lost(compartment, upload, error, report)),
        };
        let Some(chunks) = upload.attachment.chunks() else {
            return Err(self.lost(compartment, upload, SourceError::TooLarge, report));
        };
        let mut before = 0;
        let mut tries = 0;
        let mut conflicts = 0;
        loop {
            let line = self.line(&upload.relay).await.map_err(Stop::Relay)?;
            match self.send_parts(compartment, upload, &source, &chunks, &line, watch).await {
                Ok(Moved::Refused(Refusal::Conflict)) => {
                    // ATT-04: the bytes have another name: the file was changed, or the relay lost some.
                    let is_same = source.hash(&chunks, &mut |_| {}) == Ok(upload.attachment.hash);
                    conflicts += 1;
                    if !is_same {
                        return Err(self.lost(compartment, upload, SourceError::Changed, report));
                    }
                    if conflicts == TRIES {
                        self.note(compartment, upload, Moved::Refused(Refusal::Conflict));
                        return Err(Stop::Later);
                    }
                }
                Ok(moved) => {
                    report.changed |= matches!(moved, Moved::Whole | Moved::Refused(Refusal::TooLarge));
                    self.note(compartment, upload, moved);
                    return Ok(());
                }
                Err(Stop::Lost(done)) => {
                    self.lines.remove(upload.relay.key());
                    tries = if done > before { 0 } else { tries + 1 };
                    before = before.max(done);
                    if tries == TRIES {
                        return Err(Stop::Relay(ConnectError::Unreachable));
                    }
                }
                Err(stop) => return Err(stop),
            }
        }
    }

    /// Sends parts from where the relay has it on. Answers how it ended, short of the link.
    async fn send_parts(
        &mut self,
        compartment: &Compartment,
        upload: &Upload,
        source: &Source,
        chunks: &Chunks,
        line: &Line,
        watch: &mut Watch<'_>,
    ) -> Result<Moved, Stop> {
        let total = chunks.total();
        let part = |at: u64| {
            let index = u32::try_from(at / CHUNK_BYTES).unwrap_or(u32::MAX);
            let mut sealed = Vec::new();
            source.seal(chunks, index, &mut sealed).map(|()| sealed)
        };
        let request = |at: u64, bytes: Vec<u8>| {
            let unit = Unit::new(&*compartment.base);
            files::put_request(&unit, upload, at, total, bytes).map_err(|_| Stop::Later)
        };
        let first = match part(0) {
            Ok(bytes) => bytes,
            Err(error) => return Ok(Moved::Lost(error)),
        };
        // The first part alone: its answer says how much is there already.
        let (proofs, body) = request(0, first)?;
        let answers = line.carry_out(vec![Work { op: 0, proofs, body }]).await;
        let mut done = match answers.into_iter().next() {
            Some((_, answer)) => match progress(answer, total, 0)? {
                Ok(done) => done,
                Err(refusal) => return Ok(Moved::Refused(refusal)),
            },
            None => return Err(Stop::Later),
        };
        let (mut noted, mut asked) = (done, false);
        let mut stalls = 0;
        while done < total && !asked {
            // What was answered may end within a part of another size: nobody else sends parts of this blob.
            let start = done / CHUNK_BYTES * CHUNK_BYTES;
            let (mut next, mut waiting) = (start, FuturesOrdered::new());
            while next < total || !waiting.is_empty() {
                while !asked && next < total && waiting.len() < IN_FLIGHT {
                    let bytes = match part(next) {
                        Ok(bytes) => bytes,
                        Err(error) => return Ok(Moved::Lost(error)),
                    };
                    let (_, body) = request(next, bytes)?;
                    waiting.push_back(line.link.request(body));
                    next += CHUNK_BYTES;
                }
                let Some(answer) = waiting.next().await else { break };
                match progress(answer, total, done)? {
                    Ok(now) => done = done.max(now),
                    Err(refusal) => return Ok(Moved::Refused(refusal)),
                }
                asked |= watch(upload, done, total) == Next::End;
                if done >= noted + NOTED_EVERY * CHUNK_BYTES && done < total {
                    self.note(compartment, upload, Moved::To(done));
                    noted = done;
                }
            }
            stalls = if done > start { 0 } else { stalls + 1 };
            if stalls == TRIES {
                return Err(Stop::Later);
            }
        }
        if done >= total {
            return Ok(Moved::Whole);
        }
        self.note(compartment, upload, Moved::To(done));
        Err(Stop::Asked)
    }

    /// Fetches a file: its bytes are handed to `take` in order, each part as soon as it is genuine.
    ///
    /// # Errors
    /// [`FetchError`]; what was taken by then must not be used.
    pub async fn fetch<E>(
        &mut self,
        attachment: &Attachment,
        take: &mut Take<'_, E>,
    ) -> Result<(), FetchError<E>> {
        let chunks = attachment.chunks().ok_or(FetchError::NotGenuine)?;
        let (mut index, mut tries) = (0, 0);
        loop {
            let before = index;
            let line = self.line(&attachment.relay).await?;
            match fetch_parts(&line, attachment, &chunks, &mut index, take).await {
                Ok(()) => return Ok(()),
                Err(Broken::Given(error)) => return Err(error),
                Err(broken) => {
                    tries = if index > before { 0 } else { tries + 1 };
                    let is_busy = matches!(broken, Broken::Busy);
                    match (is_busy, tries == TRIES) {
                        (true, true) => return Err(FetchError::Busy),
                        // On the same link: another one is more work for a relay that has too much.
                        (true, false) => tokio::time::sleep(BUSY_PAUSE).await,
                        (false, true) => return Err(ConnectError::Unreachable.into()),
                        (false, false) => drop(self.lines.remove(attachment.relay.key())),
                    }
                }
            }
        }
    }

    /// The link to a relay, made where there is none.
    async fn line(&mut self, relay: &RelayAddress) -> Result<Arc<Line>, ConnectError> {
        if let Some(line) = self.lines.get(relay.key()) {
            return Ok(Arc::clone(line));
        }
        let line = Arc::new(Line::new(self.heirs.connect(&self.transport, relay).await?));
        self.lines.insert(*relay.key(), Arc::clone(&line));
        Ok(line)
    }

    /// Tells the engine. What it refuses (a full compartment) is told again by what comes next.
    fn note(&mut self, compartment: &Compartment, upload: &Upload, moved: Moved) {
        let _ = self.handle(compartment, Event::File { place: upload.place, moved });
    }

    fn lost(
        &mut self,
        compartment: &Compartment,
        upload: &Upload,
        error: SourceError,
        report: &mut UploadReport,
    ) -> Stop {
        self.note(compartment, upload, Moved::Lost(error));
        report.changed = true;
        Stop::Later
    }
}

/// How much of a blob an answer says is there.
fn progress(
    answer: Result<ResponseBody, LinkError>,
    total: u64,
    done: u64,
) -> Result<Result<u64, Refusal>, Stop> {
    match answer {
        Ok(ResponseBody::BlobProgress(now)) => Ok(Ok(now.min(total))),
        Ok(ResponseBody::Refused(refusal)) => Ok(Err(refusal)),
        Err(LinkError::Closed | LinkError::Timeout) => Err(Stop::Lost(done)),
        // No answer to the question: asked again another time.
        Ok(_) | Err(_) => Err(Stop::Later),
    }
}

/// Why the parts of a file came no further.
enum Broken<E> {
    /// The link ended.
    Link,
    /// The relay gives none now.
    Busy,
    /// It cannot be had.
    Given(FetchError<E>),
}

/// Fetches the parts from `index` on.
async fn fetch_parts<E>(
    line: &Line,
    attachment: &Attachment,
    chunks: &Chunks,
    index: &mut u32,
    take: &mut Take<'_, E>,
) -> Result<(), Broken<E>> {
    let (mut next, mut waiting) = (*index, FuturesOrdered::new());
    loop {
        while next < chunks.count() && waiting.len() < IN_FLIGHT {
            let get = BlobGet { hash: attachment.hash, offset: u64::from(next) * CHUNK_BYTES };
            waiting.push_back(line.link.request(RequestBody::BlobGet(get)));
            next += 1;
        }
        let Some(answer) = waiting.next().await else { return Ok(()) };
        let mut part = match answer {
            // ATT-02: a blob of another length is not this file's.
            Ok(ResponseBody::BlobPart(part)) if part.total == chunks.total() => part.bytes.into_vec(),
            Ok(ResponseBody::Refused(Refusal::NotAllowed)) => return Err(Broken::Given(FetchError::Gone)),
            Ok(ResponseBody::Refused(Refusal::Busy)) => return Err(Broken::Busy),
            Err(LinkError::Closed | LinkError::Timeout) => return Err(Broken::Link),
            Ok(_) | Err(_) => return Err(Broken::Given(FetchError::NotGenuine)),
        };
        let bytes = chunks.open(*index, &mut part).map_err(|_| Broken::Given(FetchError::NotGenuine))?;
        take(bytes, u64::from(*index) + 1, u64::from(chunks.count()))
            .map_err(|error| Broken::Given(FetchError::Taker(error)))?;
        *index += 1;
    }
}
