//! The files that an operator installs beside the program.

use std::{collections::BTreeMap, process::Command};

use lapwing_relay::config::Config;

const UNIT: &str = include_str!("../../lapwing-relay.service");
const SYSCTL: &str = include_str!("../../60-lapwing-relay.conf");

/// Settings of the unit, `Section.Key` to values in their order.
fn settings() -> BTreeMap<String, Vec<String>> {
    let (mut found, mut section) = (BTreeMap::<String, Vec<String>>::new(), String::new());
    for line in UNIT.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.to_owned();
            continue;
        }
        let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("no setting: {line}"));
        assert!(!section.is_empty() && !key.contains(' '), "{line}");
        found.entry(format!("{section}.{key}")).or_default().push(value.to_owned());
    }
    found
}

#[test]
fn the_unit_runs_the_program_as_it_is_and_leaves_it_few_rights() {
    let settings = settings();
    let one = |key: &str| match settings.get(key).map(Vec::as_slice) {
        Some([value]) => value.as_str(),
        other => panic!("{key}: {other:?}"),
    };
    let words: Vec<_> = one("Service.ExecStart").split(' ').collect();
    assert_eq!(words, ["/usr/local/bin/lapwing-relay", "serve", "--dir", "/var/lib/lapwing-relay"]);
    // The words are understood by this very program.
    let help =
        Command::new(env!("CARGO_BIN_EXE_lapwing-relay")).args(&words[1..]).arg("--help").output().unwrap();
    assert!(help.status.success());
    assert!(one("Service.ExecReload").contains("-HUP"));
    for (key, value) in [
        ("Service.User", "lapwing-relay"),
        ("Service.StateDirectory", "lapwing-relay"),
        ("Service.StateDirectoryMode", "0700"),
        ("Service.UMask", "0077"),
        ("Service.LimitCORE", "0"),
        ("Service.MemorySwapMax", "0"),
        ("Service.MemoryMax", "75%"),
        ("Service.NoNewPrivileges", "yes"),
        ("Service.ProtectSystem", "strict"),
        ("Service.ProtectHome", "yes"),
        ("Service.PrivateTmp", "yes"),
        ("Service.PrivateDevices", "yes"),
        ("Service.CapabilityBoundingSet", "CAP_NET_BIND_SERVICE"),
        ("Service.RestrictAddressFamilies", "AF_INET AF_INET6 AF_UNIX"),
        ("Service.MemoryDenyWriteExecute", "yes"),
        ("Service.SystemCallArchitectures", "native"),
    ] {
        assert_eq!(one(key), value, "{key}");
    }
    // Longer than the relay drains.
    assert!(one("Service.TimeoutStopSec").parse::<u64>().unwrap() >= 10);
    if let Ok(checked) = Command::new("systemd-analyze")
        .args(["verify", "--man=no", concat!(env!("CARGO_MANIFEST_DIR"), "/lapwing-relay.service")])
        .output()
    {
        let said = String::from_utf8_lossy(&checked.stderr).into_owned();
        let wrong: Vec<_> = said.lines().filter(|line| line.contains("lapwing-relay.service")).collect();
        // The program is not installed where tests run.
        let wrong: Vec<_> = wrong.iter().filter(|line| !line.contains("is not executable")).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
    }
}

#[test]
fn the_system_is_asked_for_the_buffers_that_are_configured() {
    let wanted = Config::default().network.socket_buffer.0.to_string();
    let set: Vec<_> = SYSCTL.lines().filter(|line| !line.starts_with('#')).collect();
    let lines = ["net.core.rmem_max", "net.core.wmem_max"].map(|name| format!("{name} = {wanted}"));
    assert_eq!(set, lines);
}
