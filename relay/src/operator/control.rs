//! The socket on which a running relay answers.

use std::{future::Future, path::Path, sync::Arc, time::Duration};

use lapwing_wire::{codec, time::Timestamp};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{Ask, Desk, Reply};
use crate::{
    clock::Clock,
    store::{KeptStore, Row, StoreError},
};

/// Longest question; the longest that a command asks has some hundred bytes. Above, it was not understood.
const MAX_QUESTION: u64 = 4 << 10;
/// Longest answer: a list of some thousand tickets.
const MAX_LINE: u64 = 1 << 20;
/// How long either side may take for one line, or for a piece of a backup.
const PATIENCE: Duration = Duration::from_secs(10);
/// After a connection that the system could not hand over, because too many files are open: it would say so again at once.
const PAUSE: Duration = Duration::from_millis(100);
/// How long those who have asked are answered when the relay stops.
const LAST_WORD: Duration = Duration::from_secs(1);
/// Bytes of records in one piece, about.
const PIECE: usize = 256 << 10;
/// Longest piece: the records of a piece, and one of the largest.
const MAX_PIECE: usize = 1 << 20;
/// Pieces that wait for the reader.
const PIECES: usize = 4;

/// Answers on the control socket until stopped. The socket's file is replaced and removed.
///
/// # Errors
/// What the system says about the socket's path.
pub fn listen(path: &Path) -> std::io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // The folder is 0700, so nobody connects before the mode is set.
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves a control socket until stopped.
pub async fn serve(listener: UnixListener, desk: Arc<Desk>, clock: Arc<dyn Clock>, stop: CancellationToken) {
    let mut calls = JoinSet::new();
    let own = nix::unistd::Uid::effective().as_raw();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = calls.join_next(), if !calls.is_empty() => {}
            call = listener.accept() => {
                let Ok((stream, _)) = call else {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                };
                if stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0) {
                    let (desk, now) = (Arc::clone(&desk), clock.now());
                    calls.spawn(reply(stream, desk, now));
                }
            }
        }
    }
    // Who asked it to stop hears that it does.
    let answered = async { while calls.join_next().await.is_some() {} };
    tokio::time::timeout(LAST_WORD, answered).await.ok();
}

async fn reply(stream: UnixStream, desk: Arc<Desk>, now: Timestamp) -> std::io::Result<()> {
    let (from, mut to) = stream.into_split();
    let answered = within(async {
        let mut line = String::new();
        BufReader::new(from.take(MAX_QUESTION)).read_line(&mut line).await?;
        let reply = match serde_json::from_str::<Ask>(&line) {
            Ok(ask) => desk.answer(ask, now).await,
            Err(_) => Reply::Failed {
                message: "the question was not understood".into(),
                hint: "type the command with the version of lapwing-relay that runs".into(),
            },
        };
        write_line(&mut to, &reply).await?;
        Ok(reply)
    });
    match answered.await? {
        Reply::Rows => send_rows(&mut to, Arc::clone(desk.store())).await,
        _ => Ok(()),
    }
}

async fn write_line(to: &mut OwnedWriteHalf, line: &impl serde::Serialize) -> std::io::Result<()> {
    let mut text = serde_json::to_string(line)?;
    text.push('\n');
    to.write_all(text.as_bytes()).await
}

/// Pieces of a length (u32) and that many bytes, and an empty one behind the last: a stream that ends without it is not whole.
async fn send_rows(to: &mut OwnedWriteHalf, store: Arc<dyn KeptStore>) -> std::io::Result<()> {
    let (mut pieces, reading) = rows(store);
    while let Some(piece) = pieces.recv().await {
        let bytes = codec::encode(&piece);
        let length = u32::try_from(bytes.len()).map_err(|_| std::io::ErrorKind::InvalidData)?;
        within(async {
            to.write_all(&length.to_be_bytes()).await?;
            to.write_all(&bytes).await
        })
        .await?;
    }
    if reading.await.is_ok_and(|read| read.is_ok()) {
        within(to.write_all(&[0; 4])).await?;
    }
    Ok(())
}

/// Reads the records of a backup on a thread of its own, in pieces. Whoever stops taking them ends the reading.
pub fn rows(
    store: Arc<dyn KeptStore>,
) -> (mpsc::Receiver<Vec<Row>>, tokio::task::JoinHandle<Result<(), StoreError>>) {
    let (sender, pieces) = mpsc::channel(PIECES);
    let reading = tokio::task::spawn_blocking(move || {
        let (mut piece, mut bytes) = (Vec::new(), 0);
        store.rows(&mut |row| {
            bytes += row.length();
            piece.push(row);
            if bytes < PIECE {
                return Ok(());
            }
            bytes = 0;
            sender.blocking_send(std::mem::take(&mut piece)).map_err(|_| StoreError::Closed)
        })?;
        sender.blocking_send(piece).map_err(|_| StoreError::Closed)
    });
    (pieces, reading)
}

async fn within<T>(work: impl Future<Output = std::io::Result<T>>) -> std::io::Result<T> {
    tokio::time::timeout(PATIENCE, work)
        .await
        .unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut)))
}

/// What follows the answer to [`Ask::Rows`].
#[derive(Debug)]
pub struct Rest(BufReader<OwnedReadHalf>);

impl Rest {
    /// The next piece; `None` behind the last one.
    ///
    /// # Errors
    /// What the system says; the relay went away or could not read on.
    pub async fn next(&mut self) -> std::io::Result<Option<Vec<Row>>> {
        // The relay may be busy with others: only a relay that is gone ends this.
        let mut length = [0; 4];
        self.0.read_exact(&mut length).await?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length == 0 {
            return Ok(None);
        }
        if length > MAX_PIECE {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        let mut bytes = vec![0; length];
        within(async { self.0.read_exact(&mut bytes).await }).await?;
        codec::decode(&bytes, MAX_PIECE).map(Some).map_err(|_| std::io::ErrorKind::InvalidData.into())
    }
}

/// Asks a running relay to end, and waits for its word no longer than `patience`: whether it said that it will. `None` if none runs
/// there.
///
/// # Errors
/// What the system says about the socket.
pub async fn wish_end(path: &Path, patience: Duration) -> std::io::Result<Option<bool>> {
    let Some(stream) = connect(path).await? else { return Ok(None) };
    let answer = tokio::time::timeout(patience, answer_of(stream, &Ask::Stop)).await;
    Ok(Some(matches!(answer, Ok(Ok((Reply::Done, _))))))
}

/// Asks a running relay. `None` if none runs there. What follows the answer is for [`Ask::Rows`] only.
///
/// # Errors
/// What the system says; a relay that does not answer in ten seconds is an error.
pub async fn ask(path: &Path, question: &Ask) -> std::io::Result<Option<(Reply, Rest)>> {
    match connect(path).await? {
        Some(stream) => answer_of(stream, question).await.map(Some),
        None => Ok(None),
    }
}

async fn connect(path: &Path) -> std::io::Result<Option<UnixStream>> {
    use std::io::ErrorKind;
    match UnixStream::connect(path).await {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => Ok(None),
        other => other.map(Some),
    }
}

async fn answer_of(stream: UnixStream, question: &Ask) -> std::io::Result<(Reply, Rest)> {
    let (from, mut to) = stream.into_split();
    let mut from = BufReader::new(from);
    let reply = within(async {
        write_line(&mut to, question).await?;
        let mut line = String::new();
        (&mut from).take(MAX_LINE).read_line(&mut line).await?;
        Ok(serde_json::from_str(&line)?)
    });
    Ok((reply.await?, Rest(from)))
}
