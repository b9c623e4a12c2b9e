//! One connection: its streams and its notices.

use std::sync::Arc;

use lapwing_wire::{capability::ChannelBinding, frame::encode_frame, labels};
use quinn::{Connection, VarInt};
use tokio::task::JoinSet;

use super::{
    Context, DRAIN,
    crowd::Seat,
    exchange::{self, Budget, End, within},
};
use crate::service::ConnectionState;

/// The relay stops.
pub(super) const STOPPED: VarInt = VarInt::from_u32(0);
/// The client broke the protocol.
const BROKEN: VarInt = VarInt::from_u32(1);
/// The client does not read, or does not finish what it began.
const STALLED: VarInt = VarInt::from_u32(2);

/// Serves a connection until either side ends it.
pub(super) async fn serve(connection: Connection, seat: Arc<Seat>, context: &Arc<Context>) {
    let mut binding = [0; 32];
    if connection.export_keying_material(&mut binding, labels::EXPORTER, b"").is_err() {
        connection.close(BROKEN, b"");
        return;
    }
    let state = Arc::new(context.service.connect(ChannelBinding::from_bytes(binding)));
    let entry = context.crowd.enter(connection.clone(), seat);
    let budget = Budget::new();
    // Where nobody needs a ticket everybody may create, which takes large frames.
    if context.service.limits().open_creation {
        entry.visit.make_room();
        budget.admit();
    }
    let mut streams = JoinSet::new();
    let mut notices = JoinSet::new();
    notices.spawn(notify(connection.clone(), Arc::clone(context), Arc::clone(&state)));
    let end = loop {
        tokio::select! {
            biased;
            () = context.stop.cancelled() => break None,
            Some(ended) = streams.join_next(), if !streams.is_empty() => {
                match ended {
                    Ok(End::Finished) => {}
                    Ok(end) => break Some(end),
                    Err(_) => break Some(End::Broken),
                }
            }
            Some(ended) = notices.join_next(), if !notices.is_empty() => {
                break Some(ended.unwrap_or(End::Broken));
            }
            stream = connection.accept_bi() => {
                let Ok((answers, requests)) = stream else { break Some(End::Gone) };
                let (context, state, budget) = (Arc::clone(context), Arc::clone(&state), Arc::clone(&budget));
                let visit = Arc::clone(&entry.visit);
                streams.spawn(async move {
                    exchange::serve(answers, requests, &context, (&state, &visit), &budget).await
                });
            }
        }
    };
    match end {
        None | Some(End::Gone | End::Finished) => {}
        Some(End::Broken) => connection.close(BROKEN, b""),
        Some(End::Stalled) => connection.close(STALLED, b""),
    }
    if end.is_some() {
        notices.abort_all();
    }
    // What the streams began is done, although the client may have gone. The seat is free when all of it has ended, so there
    // is never more of it than seats have. A relay that stops waits for so long.
    let stopped = async {
        context.stop.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        () = async { while streams.join_next().await.is_some() {} } => {}
        () = stopped => {}
    }
    if end.is_none() {
        connection.close(STOPPED, b"");
    }
}

/// Sends notices for as long as the connection lives. Opens its stream with the first one.
async fn notify(connection: Connection, context: Arc<Context>, state: Arc<ConnectionState>) -> End {
    let mut stream = None;
    loop {
        let notice = context.service.next_notice(&state).await;
        let Ok(frame) = encode_frame(&notice) else { return End::Broken };
        if stream.is_none() {
            match within(context.stall_timeout, connection.open_uni()).await {
                Some(Ok(opened)) => stream = Some(opened),
                Some(Err(_)) => return End::Gone,
                None => return End::Stalled,
            }
        }
        let Some(open) = &mut stream else { continue };
        match within(context.stall_timeout, open.write_all(&frame)).await {
            Some(Ok(())) => {}
            Some(Err(_)) => return End::Gone,
            None => return End::Stalled,
        }
    }
}
