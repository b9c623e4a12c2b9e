//! How much may be under way between the relay and who moves a file.

use futures_util::FutureExt;
use lapwing_wire::{
    capability::Subject,
    frame::{BlobGet, BlobPut, Refusal, RequestBody, ResponseBody},
    ids::BlobHash,
};
use serde_bytes::ByteBuf;

use super::*;
use crate::server::scene::{Peer, Scene, Talk, within};

const PART: usize = 64 << 10;
const RECEIVE: usize = WIDE_RECEIVE as usize;
const SEND: usize = WIDE_SEND as usize;
/// A network may have as much as is free besides: one of it both windows, and no other either.
const SIZE: usize = 2 * (RECEIVE + SEND);

/// Whether so many bytes of the windows are held: somebody from elsewhere could have the rest, and no more.
fn are_held(windows: &Arc<Pool>, bytes: usize) -> bool {
    let elsewhere = Prefix::of(IpAddr::from([198, 51, 100, 1]));
    windows.try_take(elsewhere, SIZE - bytes).is_some()
        && windows.try_take(elsewhere, SIZE - bytes + 1).is_none()
}

/// Bytes that a client may send now although nobody takes any: nothing else runs meanwhile.
fn ahead(peer: &Peer) -> usize {
    let (mut sent, mut streams) = (0, Vec::new());
    while let Some(opened) = peer.connection.open_bi().now_or_never() {
        let (mut requests, answers) = opened.unwrap();
        while let Some(written) = requests.write(&[0; PART]).now_or_never() {
            sent += written.unwrap();
        }
        streams.push((requests, answers));
    }
    sent
}

fn put(scene: &Scene, part: usize) -> RequestBody {
    let blob = vec![7; 2 * PART];
    let number = |bytes: usize| u64::try_from(bytes).unwrap();
    RequestBody::BlobPut(BlobPut {
        hash: BlobHash::of(&blob),
        total: number(blob.len()),
        offset: number(part * PART),
        bytes: ByteBuf::from(&blob[..PART]),
        access: Some(scene.access.public()),
    })
}

fn get() -> RequestBody {
    RequestBody::BlobGet(BlobGet { hash: BlobHash::of(&[7; 2 * PART]), offset: 0 })
}

/// Somebody who has shown the ticket.
async fn known(scene: &Scene) -> (Peer, Talk, tokio::task::JoinHandle<()>) {
    let (peer, served) = scene.visit().await;
    let mut talk = peer.open().await;
    let proof = peer.proof(Subject::Access(scene.access.public()), &scene.access);
    assert_eq!(talk.ask(proof).await, ResponseBody::Done);
    (peer, talk, served)
}

async fn go(peer: Peer, served: tokio::task::JoinHandle<()>) {
    peer.connection.close(0u32.into(), b"");
    within(served).await.unwrap();
}

/// On one thread: what an answer finds was set before it was sent.
#[tokio::test]
async fn wide_windows_are_for_who_moves_a_file_as_long_as_he_is_there_and_not_for_a_stranger() {
    let scene = Scene::new(SIZE).await;
    let windows = Arc::clone(&scene.context.windows);

    // Who is refused moves nothing, and who only proves something neither.
    let (stranger, served) = scene.visit().await;
    let mut talk = stranger.open().await;
    assert_eq!(talk.ask(get()).await, ResponseBody::Refused(Refusal::NotAllowed));
    assert_eq!(talk.ask(put(&scene, 1)).await, ResponseBody::Refused(Refusal::NoAccess));
    assert!(are_held(&windows, 0));
    let may = ahead(&stranger);
    assert!(may > 0 && may <= STRANGER.receive as usize, "{may}");
    go(stranger, served).await;
    let (peer, talk, served) = known(&scene).await;
    assert!(are_held(&windows, 0));
    let may = ahead(&peer);
    assert!(may > STRANGER.receive as usize && may <= KNOWN.receive as usize, "{may}");
    drop(talk);
    go(peer, served).await;

    // Who sends a file may send ahead, and who takes one is sent more; once, however much he moves.
    let (peer, mut talk, served) = known(&scene).await;
    for part in 0..2 {
        let there = ResponseBody::BlobProgress(u64::try_from((part + 1) * PART).unwrap());
        assert_eq!(talk.ask(put(&scene, part)).await, there);
        assert!(are_held(&windows, RECEIVE), "part {part}");
    }
    for _ in 0..2 {
        assert!(matches!(talk.ask(get()).await, ResponseBody::BlobPart(_)));
        assert!(are_held(&windows, RECEIVE + SEND));
    }
    // Without room for another there is none, and the file is moved all the same.
    let (other, mut others, others_end) = known(&scene).await;
    assert!(matches!(others.ask(put(&scene, 0)).await, ResponseBody::BlobProgress(_)));
    assert!(matches!(others.ask(get()).await, ResponseBody::BlobPart(_)));
    assert!(are_held(&windows, RECEIVE + SEND));
    let may = ahead(&other);
    assert!(may <= KNOWN.receive as usize, "{may}");
    go(other, others_end).await;
    assert!(are_held(&windows, RECEIVE + SEND), "they are the first one's");
    let may = ahead(&peer);
    assert!(may > RECEIVE / 4 * 3 && may <= RECEIVE, "{may}");
    go(peer, served).await;
    assert!(are_held(&windows, 0), "they end with the connection");

    // Who knows the name of a file was told by somebody who is no stranger.
    let (peer, served) = scene.visit().await;
    assert!(matches!(peer.open().await.ask(get()).await, ResponseBody::BlobPart(_)));
    assert!(are_held(&windows, SEND));
    go(peer, served).await;
    assert!(are_held(&windows, 0));
}
