//! The network: socket buffers, the port, the way in from outside.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use lapwing_wire::address::RelayKey;

use super::{Answer, Finding};
use crate::{
    config::{Config, Size},
    place::Place,
    probe, server,
};

/// Bytes of a socket buffer with which a relay of some hundred people does not lose packets in bursts.
const ENOUGH: u64 = 2 << 20;
/// Addresses of a name that are tried.
const MAX_ADDRESSES: usize = 4;

/// `is_known` says that the configuration is the relay's own: the default port says nothing about it.
pub(super) async fn examine(place: &Place, config: &Config, is_known: bool, answer: &Answer) -> Vec<Finding> {
    let limit = |name: &str| {
        std::fs::read_to_string(format!("/proc/sys/net/core/{name}"))
            .ok()
            .and_then(|text| text.trim().parse().ok())
    };
    let mut found = vec![buffers(config.network.socket_buffer.0, limit("rmem_max"), limit("wmem_max"))];
    let status = match answer {
        Answer::Status(status) => status,
        Answer::NotRunning if is_known => {
            found.push(port(config.network.port, server::try_bind(&config.server())));
            return found;
        }
        Answer::NotRunning | Answer::None(_) => return found,
    };
    let address =
        status.address.as_ref().and_then(|text| text.parse::<lapwing_wire::address::RelayAddress>().ok());
    let own = place.secret().ok().and_then(|secret| secret.public().ok());
    let (Some(address), Some(own)) = (address, own) else { return found };
    let alpn = config.network.alpn.as_bytes();
    let local = SocketAddr::new(reachable(config.network.listen), address.port());
    let shown = probe::shown(local, alpn).await;
    found.push(judge("local", &format!("on this machine ({local})"), shown, &own));
    found.push(outside(address.host(), address.port(), alpn, &own).await);
    found
}

fn buffers(wanted: u64, receive: Option<u64>, send: Option<u64>) -> Finding {
    let (Some(receive), Some(send)) = (receive, send) else {
        return Finding::note(
            "buffers",
            "the system's limit of UDP buffers cannot be read here",
            "`lapwing-relay status` shows what a running relay was granted",
        );
    };
    let message = format!("the system grants {} and {}", Size(receive).rounded(), Size(send).rounded());
    let least = receive.min(send);
    if least >= wanted {
        return Finding::fine("buffers", message);
    }
    let message = format!("{message}; {} are configured: a busy relay loses packets", Size(wanted).rounded());
    let advice = format!(
        "sysctl -w net.core.rmem_max={wanted} net.core.wmem_max={wanted}, then start the relay again. For good: \
         relay/60-lapwing-relay.conf into /etc/sysctl.d/"
    );
    if least < ENOUGH {
        Finding::care("buffers", message, advice)
    } else {
        Finding::note("buffers", message, advice)
    }
}

/// Whether a relay that does not run could listen.
fn port(port: u16, tried: io::Result<()>) -> Finding {
    match tried {
        Ok(()) => Finding::note(
            "port",
            "it is free; the relay does not run",
            "start it: lapwing-relay serve, and look again",
        ),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Finding::care(
            "port",
            format!("UDP port {port} is not for this user"),
            "the systemd unit has the right: `systemctl start lapwing-relay`, and look again; without it choose a network.port above 1023",
        ),
        Err(error) => Finding::care(
            "port",
            format!("UDP port {port} cannot be used: {error}"),
            "stop what uses it (`ss -ulpn`), or choose another network.port",
        ),
    }
}

/// Where a socket that listens on all addresses is reached.
fn reachable(listen: IpAddr) -> IpAddr {
    match listen {
        IpAddr::V6(all) if all.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V4(all) if all.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        one => one,
    }
}

async fn outside(host: &str, port: u16, alpn: &[u8], own: &RelayKey) -> Finding {
    let found: Vec<_> = match tokio::net::lookup_host((host, port)).await {
        Ok(found) => found.take(MAX_ADDRESSES).collect(),
        Err(_) => Vec::new(),
    };
    if found.is_empty() {
        return Finding::care(
            "address",
            format!("the name {host} does not resolve"),
            "set its A or AAAA record, or put the IP address into network.host and hand out the new address",
        );
    }
    let mut best = None;
    for address in &found {
        best = probe::shown(*address, alpn).await.or(best);
        if best.as_ref() == Some(own) {
            break;
        }
    }
    let is_private = found.iter().all(|address| is_private(address.ip()));
    match best {
        Some(key) if key == *own && is_private => Finding::note(
            "address",
            format!("{host} is an address of this network only"),
            "people elsewhere need a public name or address in network.host",
        ),
        other => judge("address", &format!("at its address ({host}, port {port})"), other, own),
    }
}

fn judge(check: &'static str, at: &str, shown: Option<RelayKey>, own: &RelayKey) -> Finding {
    match shown {
        Some(key) if key == *own => Finding::fine(check, format!("it answers {at}")),
        Some(_) => Finding::care(
            check,
            format!("another relay answers {at}"),
            "the name or the port leads to another machine or program; people are told of a wrong key",
        ),
        None => Finding::care(
            check,
            format!("nothing answers {at}"),
            "open the UDP port in the firewall of the host and of the provider, forward it at the router. Some routers do not \
             lead back inside: then ask somebody outside to run `lapwing relay add -`",
        ),
    }
}

fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_private() || v4.is_loopback() || v4.is_link_local(),
        IpAddr::V6(v6) => v6 == Ipv6Addr::LOCALHOST || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn buffers_are_compared_with_what_is_configured() {
        assert_eq!(buffers(8 << 20, Some(8 << 20), Some(8 << 20)).level, Level::Fine);
        assert_eq!(buffers(8 << 20, Some(212_992), Some(8 << 20)).level, Level::Care);
        assert_eq!(buffers(8 << 20, Some(4 << 20), Some(4 << 20)).level, Level::Note);
        assert_eq!(buffers(8 << 20, None, Some(1)).level, Level::Note);
    }

    #[test]
    fn a_port_that_is_only_not_this_users_is_told_from_one_that_is_taken() {
        assert_eq!(port(443, Ok(())).level, Level::Note);
        let [denied, taken] = [io::ErrorKind::PermissionDenied, io::ErrorKind::AddrInUse]
            .map(|kind| port(443, Err(kind.into())));
        assert_eq!([denied.level, taken.level], [Level::Care; 2]);
        let advice = [denied, taken].map(|finding| finding.advice.unwrap_or_default());
        assert!(advice[0].contains("systemctl start") && advice[1].contains("ss -ulpn"), "{advice:?}");
    }

    #[test]
    fn answers_are_told_apart() {
        let [own, other] = [RelayKey::of_spki(b"own"), RelayKey::of_spki(b"other")];
        assert_eq!(judge("local", "here", Some(own), &own).level, Level::Fine);
        assert_eq!(judge("local", "here", Some(other), &own).level, Level::Care);
        assert_eq!(judge("local", "here", None, &own).level, Level::Care);
    }
}
