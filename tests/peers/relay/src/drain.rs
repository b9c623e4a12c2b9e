//! Who comes back and finds a full mailbox, over a bad line.

use std::time::{Duration, Instant};

use lapwing_wire::frame::{Ack, Notice, RequestBody, Response, ResponseBody, Window};

use crate::{
    appends::message,
    link::{HYBRID, Keys, Link, append, client_config, endpoint},
    lossy::{self, Weather},
    process::{Disk, local},
    ratios::{Better, Comparison, Run},
    servers::{Programs, Relay},
};

/// Envelopes that wait.
const WAITING: u64 = 128;
/// Each way: 300 ms round trip.
const WEATHER: Weather = Weather { delay: Duration::from_millis(150), loss: 0.05 };
/// Longest that taking them may take.
const MOST: f64 = 3000.0;

/// As many times as wanted, each with other losses.
pub async fn measure(programs: &Programs, disk: &Disk, rounds: usize) -> Vec<String> {
    let mut missed = Vec::new();
    let calm = Weather { loss: 0.0, ..WEATHER };
    for (weather, what) in [(calm, "no loss"), (WEATHER, "5 % loss each way")] {
        let what = format!("drain of {WAITING} envelopes of 1 KiB, 300 ms round trip, {what}");
        let mut table = Comparison::new(what.clone(), "ms", Better::Less);
        for round in 0..rounds {
            let relay = programs.relay(disk);
            let [open, drained, settled] = drain(&relay, weather, round as u64).await;
            let millis = |time: Duration| Run { value: time.as_secs_f64() * 1e3, ..Run::default() };
            table.add("on an open connection", "", None, millis(drained));
            table.add("and acknowledged", "", None, millis(drained + settled));
            table.add("with handshake and proof", "", None, millis(open + drained));
        }
        table.print_values();
        if table.ours() > MOST {
            missed.push(format!("{what}: {:.0} ms, must be at most {MOST}", table.ours()));
        }
    }
    missed
}

/// Time until the connection is open and proved, until all envelopes are here, and until their deletion is answered.
async fn drain(relay: &Relay, weather: Weather, seed: u64) -> [Duration; 3] {
    let keys = Keys::generate();
    let server = local(relay.address.port());
    let mut writer = Link::connect(endpoint(), client_config(relay.address.key(), HYBRID), server).await;
    writer.create(&keys, relay.ticket.secret()).await;
    writer.writes(&keys).await;
    for number in 0..WAITING {
        let answer = writer.ask(append(keys.id(), message(0, number))).await;
        assert!(matches!(answer, ResponseBody::Stored(_)), "it is stored");
    }
    let bad = lossy::Link::to(server, weather, seed).await;
    let begun = Instant::now();
    let mut reader = Link::connect(endpoint(), client_config(relay.address.key(), HYBRID), bad.address).await;
    reader.reads(&keys).await;
    let open = begun.elapsed();
    let begun = Instant::now();
    let window = reader.subscribe(&keys).await;
    let mut taken: Vec<u64> = window.items.iter().map(|item| item.place.seq.value()).collect();
    if taken.len() < WAITING as usize {
        let mut notices = reader.notices().await;
        while taken.len() < WAITING as usize {
            let Notice::Window(Window { items, .. }) = notices.next().await;
            taken.extend(items.iter().map(|item| item.place.seq.value()));
        }
    }
    let drained = begun.elapsed();
    assert!(taken.into_iter().eq(1..=WAITING), "all of them, in order");
    let begun = Instant::now();
    let upto = window.newest;
    let ack = Ack { mailbox: keys.id(), upto, also: Vec::new() };
    let (_, frame) = reader.encode(RequestBody::Ack(ack));
    reader.requests.write_all(&frame).await.unwrap();
    let answer: Response = reader.answers.next().await;
    assert_eq!(answer.body, ResponseBody::Done);
    [open, drained, begun.elapsed()]
}
