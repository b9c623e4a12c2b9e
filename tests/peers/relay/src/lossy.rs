//! A link with delay and loss between two ends on this machine.
//!
//! A forwarder of datagrams, because it needs no rights and no kernel module, and drops the same share everywhere.

use std::{collections::BinaryHeap, net::SocketAddr, sync::Arc, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{net::UdpSocket, sync::mpsc, task::JoinSet, time::Instant};

use crate::process::local;

/// What happens to datagrams, each way.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// From one end to the other.
    pub delay: Duration,
    /// Share of datagrams that are lost.
    pub loss: f64,
}

/// A link; it ends when dropped.
pub struct Link {
    /// Where the near end connects to.
    pub address: SocketAddr,
    _tasks: JoinSet<()>,
}

/// A datagram on its way: the heap yields the earliest.
struct Underway {
    due: Instant,
    number: u64,
    bytes: Vec<u8>,
}

impl PartialEq for Underway {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Underway {}
impl PartialOrd for Underway {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Underway {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.due, other.number).cmp(&(self.due, self.number))
    }
}

impl Link {
    /// To a server, for one client.
    pub async fn to(server: SocketAddr, weather: Weather, seed: u64) -> Self {
        let near = Arc::new(UdpSocket::bind(local(0)).await.unwrap());
        let far = Arc::new(UdpSocket::bind(local(0)).await.unwrap());
        for socket in [&near, &far] {
            let wide = socket2::SockRef::from(&**socket);
            wide.set_recv_buffer_size(4 << 20).unwrap();
            wide.set_send_buffer_size(4 << 20).unwrap();
        }
        far.connect(server).await.unwrap();
        let address = near.local_addr().unwrap();
        let (client, known) = tokio::sync::watch::channel(None);
        let (outward, outward_due) = mpsc::unbounded_channel();
        let (homeward, homeward_due) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        let source = Arc::clone(&near);
        tasks.spawn(async move {
            let mut chance = StdRng::seed_from_u64(seed);
            let mut bytes = vec![0; 2048];
            while let Ok((length, from)) = source.recv_from(&mut bytes).await {
                client.send_replace(Some(from));
                if !chance.random_bool(weather.loss)
                    && outward.send((Instant::now(), bytes[..length].to_vec())).is_err()
                {
                    return;
                }
            }
        });
        let source = Arc::clone(&far);
        tasks.spawn(async move {
            let mut chance = StdRng::seed_from_u64(!seed);
            let mut bytes = vec![0; 2048];
            while let Ok(length) = source.recv(&mut bytes).await {
                if !chance.random_bool(weather.loss)
                    && homeward.send((Instant::now(), bytes[..length].to_vec())).is_err()
                {
                    return;
                }
            }
        });
        tasks.spawn(carry(outward_due, weather.delay, async move |bytes: Vec<u8>| {
            far.send(&bytes).await.ok();
        }));
        tasks.spawn(carry(homeward_due, weather.delay, async move |bytes: Vec<u8>| {
            let to = *known.borrow();
            if let Some(to) = to {
                near.send_to(&bytes, to).await.ok();
            }
        }));
        Self { address, _tasks: tasks }
    }
}

/// Delivers each datagram when its time has come.
async fn carry(
    mut coming: mpsc::UnboundedReceiver<(Instant, Vec<u8>)>,
    delay: Duration,
    deliver: impl AsyncFn(Vec<u8>),
) {
    let (mut underway, mut number) = (BinaryHeap::new(), 0);
    loop {
        let due = underway.peek().map(|next: &Underway| next.due);
        tokio::select! {
            came = coming.recv() => {
                let Some((at, bytes)) = came else { return };
                number += 1;
                underway.push(Underway { due: at + delay, number, bytes });
            }
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                while underway.peek().is_some_and(|next| next.due <= Instant::now()) {
                    let Some(next) = underway.pop() else { break };
                    deliver(next.bytes).await;
                }
            }
        }
    }
}
