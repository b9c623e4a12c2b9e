//! Whether a host is one that others can reach: told before it stands in tickets, which nobody can change.

use std::net::IpAddr;

/// Longest host name, and longest part of one (RFC 1035).
const MAX_NAME: usize = 253;
const MAX_PART: usize = 63;

/// Why nobody could reach a relay under this name or address, as far as its text tells; `None` if somebody could.
pub fn host_fault(host: &str) -> Option<&'static str> {
    if host.is_empty() {
        return Some("it is empty");
    }
    if host.starts_with('[') {
        return Some("an IPv6 address is written without brackets");
    }
    if let Ok(address) = host.parse::<IpAddr>() {
        return address_fault(address.to_canonical());
    }
    if host.contains(['/', '@']) {
        return Some("the name or address alone, with nothing before it or behind it");
    }
    if host.contains(':') {
        return Some("it is no IPv6 address, and a port is given by itself (--port, network.port)");
    }
    if !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte)) {
        return Some("letters, digits, dots and hyphens only; other names are written in their xn-- form");
    }
    // The dot behind the last part says that the name is whole.
    let name = host.strip_suffix('.').unwrap_or(host);
    if name.len() > MAX_NAME || name.split('.').any(|part| part.len() > MAX_PART) {
        return Some("a name has at most 253 letters, and 63 between two dots");
    }
    if name.split('.').any(str::is_empty) {
        return Some("there is nothing before, between or behind its dots");
    }
    if name.split('.').any(|part| part.starts_with('-') || part.ends_with('-')) {
        return Some("no part of a name begins or ends with a hyphen");
    }
    let last = name.rsplit('.').next().unwrap_or_default();
    last.bytes().all(|byte| byte.is_ascii_digit()).then_some(
        "it is no IPv4 address: that has four numbers from 0 to 255, and no name ends with a number",
    )
}

fn address_fault(address: IpAddr) -> Option<&'static str> {
    if address.is_unspecified() {
        return Some("it stands for all addresses of this machine: others need one of them");
    }
    let is_of_many = address.is_multicast() || matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    is_of_many.then_some("it is not the address of one machine")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_nobody_can_reach_are_refused_with_the_reason() {
        let long = "a".repeat(64);
        for (host, reason) in [
            ("", "empty"),
            ("[::1]", "without brackets"),
            ("0.0.0.0", "all addresses"),
            ("::", "all addresses"),
            ("::ffff:0.0.0.0", "all addresses"),
            ("255.255.255.255", "one machine"),
            ("ff02::1", "one machine"),
            ("224.0.0.1", "one machine"),
            ("relay://h", "alone"),
            ("h:443", "--port"),
            ("1::2::3", "no IPv6 address"),
            ("käse.example", "xn--"),
            ("not a host", "letters, digits"),
            ("a..b", "between"),
            (".", "between"),
            (".a", "before"),
            ("-a.example", "hyphen"),
            ("a-.example", "hyphen"),
            ("256.1.1.1", "no IPv4 address"),
            ("1.2.3", "no IPv4 address"),
            ("7", "no IPv4 address"),
            (long.as_str(), "63"),
        ] {
            let fault = host_fault(host);
            assert!(fault.is_some_and(|fault| fault.contains(reason)), "{host}: {fault:?}");
        }
        for host in [
            "relay.example.org",
            "Relay.Example.ORG.",
            "h",
            "localhost",
            "xn--kse-qla.example",
            "a_b.example",
            "1.2.3.4",
            "127.0.0.1",
            "::1",
            "2001:db8::1",
            "4you.example",
        ] {
            assert_eq!(host_fault(host), None, "{host}");
        }
    }
}
