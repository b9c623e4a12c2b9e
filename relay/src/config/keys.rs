//! What is wrong with the keys of a configuration: those that mean nothing, that are missing, that need a restart,
//! and those whose value is of another kind.

use toml::{Table, Value};

use super::{Config, ConfigError};

impl Config {
    /// Whether a configuration that can be read says under which name the relay is reached; else its tickets say `localhost`.
    pub fn names_host(text: &str) -> bool {
        names(&text.parse::<Table>().unwrap_or_default(), "network", "host")
    }

    /// Names of the keys that differ from `other` and are read at start only.
    pub fn needs_restart(&self, other: &Self) -> Vec<String> {
        let table = |config: &Self| Table::try_from(config).unwrap_or_default();
        let (ours, theirs) = (table(self), table(other));
        let sections = |of: &Table, name: &str| of.get(name).and_then(Value::as_table).cloned();
        let mut names = Vec::new();
        for section in ["network", "storage", "metrics"] {
            let theirs = sections(&theirs, section).unwrap_or_default();
            for (key, value) in sections(&ours, section).unwrap_or_default() {
                let is_read_again = section == "storage" && key == "reserve";
                if !is_read_again && theirs.get(&key) != Some(&value) {
                    names.push(format!("{section}.{key}"));
                }
            }
        }
        names
    }
}

/// Names the keys of `table` that are not `known`.
pub(super) fn find_unknown(table: &Table, known: &Table, prefix: &str, unknown: &mut Vec<String>) {
    for (key, value) in table {
        match (value, known.get(key)) {
            (_, None) => unknown.push(format!("{prefix}{key}")),
            (Value::Table(inner), Some(Value::Table(known))) => {
                find_unknown(inner, known, &format!("{prefix}{key}."), unknown);
            }
            _ => {}
        }
    }
}

/// The first value that is of another kind than what belongs there. Found by reading one at a time: the error of the whole names
/// no key, and speaks of the program's types.
pub(super) fn find_wrong(table: &Table, known: &Table) -> Option<ConfigError> {
    let wrong = |key, why| Some(ConfigError::Kind { key, why });
    for (section, keys) in table {
        let Some(Value::Table(known)) = known.get(section) else { continue };
        let Value::Table(keys) = keys else {
            return wrong(section.clone(), format!("a section, `[{section}]` on a line of its own"));
        };
        for (key, value) in keys {
            let Some(default) = known.get(key) else { continue };
            let one = Table::from_iter([(key.clone(), value.clone())]);
            let one = Table::from_iter([(section.clone(), Value::Table(one))]);
            if let Err(error) = Value::Table(one).try_into::<Config>() {
                return wrong(format!("{section}.{key}"), belongs(section, key, value, default, &error));
            }
        }
    }
    None
}

fn belongs(section: &str, key: &str, value: &Value, default: &Value, error: &toml::de::Error) -> String {
    match (default, section, key) {
        (Value::Integer(_), _, "port") => "a whole number from 0 to 65535, without quotes".into(),
        (Value::Integer(_), _, _) => "a whole number from 0 on, without quotes".into(),
        (Value::Boolean(_), _, _) => "true or false, without quotes".into(),
        (_, "storage", "engine") => "\"fjall\" or \"sled\"".into(),
        (_, "network", "listen") => "an IP address of this machine in quotes; \"::\" is all of them".into(),
        (Value::String(default), _, _) if !value.is_str() => format!("text in quotes, as \"{default}\""),
        // Of what was written as text the units say themselves what is wrong.
        _ => error.message().replace('\n', " "),
    }
}

/// Whether a key is given.
pub(super) fn names(table: &Table, section: &str, key: &str) -> bool {
    table.get(section).is_some_and(|section| section.get(key).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_at_start_only_is_named() {
        let started = Config::default();
        assert_eq!(started.needs_restart(&started), Vec::<String>::new());
        let text = "[network]\nport = 443\n[storage]\nreserve = \"1 GiB\"\nengine = \"sled\"\n[limits]\nopen = true\n[metrics]\nlisten = \"[::1]:1\"";
        let (changed, _) = Config::parse(text).unwrap();
        assert_eq!(changed.needs_restart(&started), ["network.port", "storage.engine", "metrics.listen"]);
    }

    #[test]
    fn unknown_keys_are_named() {
        let (_, unknown) = Config::parse("typo = 1\n[limits]\nmailbox_sice = \"1 MiB\"\n").unwrap();
        assert_eq!(unknown, ["limits.mailbox_sice", "typo"]);
    }

    #[test]
    fn a_value_of_another_kind_is_named_with_what_belongs_there() {
        for (text, key, why) in [
            ("[network]\nport = 99999", "network.port", "from 0 to 65535"),
            ("[network]\nport = \"443\"", "network.port", "without quotes"),
            ("[network]\nmax_connections = -1", "network.max_connections", "a whole number from 0 on"),
            ("[network]\nlisten = \"here\"", "network.listen", "an IP address"),
            ("[network]\nhost = 1", "network.host", "text in quotes"),
            ("[limits]\nopen = \"yes\"", "limits.open", "true or false"),
            ("[limits]\nmailbox_size = \"many\"", "limits.mailbox_size", "`many` is no size like"),
            ("[limits]\nretention = 30", "limits.retention", "text in quotes, as \"30days\""),
            ("[limits]\nretention = \"30 moons\"", "limits.retention", "`30 moons` is no duration like"),
            ("[storage]\nengine = \"redis\"", "storage.engine", "\"fjall\" or \"sled\""),
            ("[access]\nmailboxes = 1.5", "access.mailboxes", "a whole number"),
            ("network = 1", "network", "a section"),
        ] {
            let said = Config::parse(text).unwrap_err();
            let ConfigError::Kind { key: named, why: told } = &said else { panic!("{text}: {said}") };
            assert!(named == key && told.contains(why), "{said}");
            for word in ["u16", "u64", "usize", "i64", "expected", "invalid", "variant"] {
                assert!(!said.to_string().contains(word), "{said}");
            }
        }
    }
}
