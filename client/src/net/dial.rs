//! From a host name to the first address that works: both address families in turn, each a little after the other
//! (RFC 8305, without its DNS half, which the system's resolver does).

use std::{net::SocketAddr, time::Duration};

use tokio::{
    net::lookup_host,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::transport::ConnectError;

/// How long an address is tried alone before the next one is tried beside it: RFC 8305 section 5.
pub(super) const HEAD_START: Duration = Duration::from_millis(250);

/// Most addresses tried for one name: whoever answers for the name could otherwise make the client knock anywhere.
const MAX_ADDRESSES: usize = 6;

/// The addresses of a host, in the order in which to try them.
pub(super) async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, ConnectError> {
    let found: Vec<SocketAddr> =
        lookup_host((host, port)).await.map_err(|_| ConnectError::Unreachable)?.collect();
    if found.is_empty() { Err(ConnectError::Unreachable) } else { Ok(in_turn(found)) }
}

/// Families in turn, starting with the one that the resolver put first; within a family the resolver's order.
fn in_turn(found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = found.first().is_some_and(SocketAddr::is_ipv6);
    let mut unique: Vec<SocketAddr> = Vec::new();
    for address in found {
        if !unique.contains(&address) {
            unique.push(address);
        }
    }
    let (preferred, others): (Vec<_>, Vec<_>) =
        unique.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let (mut preferred, mut others) = (preferred.into_iter(), others.into_iter());
    let mut order = Vec::new();
    loop {
        let pair = [preferred.next(), others.next()];
        if pair == [None, None] {
            break;
        }
        order.extend(pair.into_iter().flatten());
    }
    order.truncate(MAX_ADDRESSES);
    order
}

/// The first attempt that works. The others are dropped. If none works, the most telling error.
pub(super) async fn first_that_works<T, F>(
    addresses: Vec<SocketAddr>,
    attempt: impl Fn(SocketAddr) -> F,
) -> Result<T, ConnectError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, ConnectError>> + Send + 'static,
{
    let mut attempts = JoinSet::new();
    let mut addresses = addresses.into_iter().peekable();
    let mut worst = ConnectError::Unreachable;
    while let Some(address) = addresses.next() {
        attempts.spawn(attempt(address));
        let next_start = Instant::now() + HEAD_START;
        loop {
            let ended = tokio::select! {
                ended = attempts.join_next() => ended,
                () = sleep_until(next_start), if addresses.peek().is_some() => break,
            };
            match ended {
                Some(Ok(Ok(connected))) => return Ok(connected),
                Some(Ok(Err(error))) => worst = more_telling(worst, error),
                // An attempt that panicked has failed in a way of its own; the others go on.
                Some(Err(_)) => worst = more_telling(worst, ConnectError::Protocol),
                None => break,
            }
            if addresses.peek().is_some() {
                break;
            }
        }
    }
    Err(worst)
}

/// Another key says more than a strange answer, which says more than silence.
fn more_telling(a: ConnectError, b: ConnectError) -> ConnectError {
    let rank = |error| match error {
        ConnectError::Unreachable | ConnectError::Slow => 0,
        ConnectError::Protocol => 1,
        ConnectError::WrongKey => 2,
    };
    if rank(b) > rank(a) { b } else { a }
}

#[cfg(test)]
mod tests {
    use tokio::time::{pause, sleep};

    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn families_take_turns() {
        let found = ["[::1]:1", "[::2]:1", "[::2]:1", "[::3]:1", "10.0.0.1:1", "10.0.0.2:1"].map(address);
        let want = ["[::1]:1", "10.0.0.1:1", "[::2]:1", "10.0.0.2:1", "[::3]:1"].map(address);
        assert_eq!(in_turn(found.to_vec()), want);
        assert_eq!(in_turn(vec![]), []);
    }

    #[test]
    fn a_name_with_many_addresses_is_not_a_list_of_targets() {
        let many = (1..=50).map(|n| SocketAddr::from(([10, 0, 0, n], 1))).collect();
        assert_eq!(in_turn(many).len(), MAX_ADDRESSES);
    }

    #[tokio::test]
    async fn numbers_need_no_resolver_and_nonsense_is_unreachable() {
        assert_eq!(resolve("127.0.0.1", 7).await.unwrap(), [address("127.0.0.1:7")]);
        assert_eq!(resolve("::1", 7).await.unwrap(), [address("[::1]:7")]);
        assert_eq!(resolve("", 7).await.unwrap_err(), ConnectError::Unreachable);
    }

    #[tokio::test]
    async fn a_silent_address_costs_a_head_start() {
        pause();
        let begin = Instant::now();
        let addresses = vec![address("10.0.0.1:1"), address("10.0.0.2:1")];
        let got = first_that_works(addresses, |address| async move {
            if address.ip().to_string().ends_with(".1") {
                sleep(Duration::from_secs(60)).await;
                return Err(ConnectError::Unreachable);
            }
            Ok(address)
        });
        assert_eq!(got.await, Ok(address("10.0.0.2:1")));
        // The paused clock moves in whole milliseconds, rounded up.
        let waited = begin.elapsed();
        assert!(waited >= HEAD_START && waited <= HEAD_START + Duration::from_millis(1), "{waited:?}");
    }

    #[tokio::test]
    async fn a_failure_starts_the_next_at_once_and_the_most_telling_is_reported() {
        pause();
        let begin = Instant::now();
        let addresses = ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"].map(address).to_vec();
        let got = first_that_works(addresses, |address| async move {
            Err::<(), _>(match address.ip().to_string().as_str() {
                "10.0.0.1" => ConnectError::Protocol,
                "10.0.0.2" => ConnectError::WrongKey,
                _ => ConnectError::Unreachable,
            })
        });
        assert_eq!(got.await, Err(ConnectError::WrongKey));
        assert_eq!(begin.elapsed(), Duration::ZERO);
    }
}
