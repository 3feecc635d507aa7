//! What values keys take: how they are checked, and what is said to be allowed.

use std::net::IpAddr;

use crate::base::{self, Feature};

/// What values a key takes.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number in these bounds.
    Number(u64, u64),
    /// One of these words: as stored, and how else it may be written.
    Choice(&'static [(&'static str, &'static str)]),
    /// Letters, digits and `_-.%|`, at most this many.
    Name(usize),
    /// A folder or file.
    Path,
    /// An IP address.
    Address,
    /// `embedded`, or `host:port` separated by `;`.
    NameServers,
    /// Hours of the day, separated by `;`.
    Hours,
    /// Times such as `1s 5s 10m 2h`.
    Levels,
    /// Names of what a ring may have, separated by `,`.
    Features,
    /// A level of the log, or directives such as `info,corelane::log=debug`.
    Log,
}

use Kind::{Address, Bool, Choice, Features, Hours, Levels, Log, Name, NameServers, Number, Path};

pub(super) const MINUTE_MS: u64 = 60_000;
const LEVELS_MAX: usize = 255;

impl Kind {
    /// The value as it is kept, or why it cannot be.
    pub fn check(self, value: &str) -> Result<String, String> {
        match self {
            Bool => one_of(value, &["true", "false"]),
            Number(min, max) => number(value, min, max).map(|number| number.to_string()),
            Choice(words) => words
                .iter()
                .find(|(word, other)| *word == value || (!other.is_empty() && *other == value))
                .map(|(word, _)| (*word).to_owned())
                .ok_or_else(|| "it is not one of the known words".to_owned()),
            Name(len_max) => name(value, len_max),
            Path if value.contains(',') => Err("it names several folders".to_owned()),
            Path => Ok(value.to_owned()),
            Address => address(value).map(|address| address.to_string()),
            NameServers => name_servers(value).map(|_| value.to_owned()),
            Hours => hours(value).map(|_| value.to_owned()),
            Levels => levels(value).map(|_| value.to_owned()),
            Features => features(value).map(|_| value.to_owned()),
            Log => log(value),
        }
    }

    /// What [`Kind::check`] lets through, to be read behind "allowed is".
    #[must_use]
    pub fn allowed(self) -> String {
        match self {
            Bool => "true or false".to_owned(),
            Number(min, max) if min == max => format!("{min}"),
            Number(min, max) => format!("a whole number from {min} to {max}"),
            Choice(words) => words
                .iter()
                .map(|(word, other)| match *other {
                    "" => (*word).to_owned(),
                    other => format!("{word} ({other})"),
                })
                .collect::<Vec<_>>()
                .join(" or "),
            Name(len_max) => format!("1 to {len_max} letters, digits and _ - . % |"),
            Path => "one path".to_owned(),
            Address => "an IP address such as 192.0.2.7".to_owned(),
            NameServers => "embedded, or host:port, several separated by ;".to_owned(),
            Hours => "hours from 00 to 23, several separated by ;".to_owned(),
            Levels => {
                format!("1 to {LEVELS_MAX} times such as 1s 5s 10m 2h 1d, separated by blanks")
            }
            Features => {
                let names = Feature::ALL.map(Feature::name);
                format!("{}, several separated by ,", names.join(" or "))
            }
            Log => "error, warn, info, debug, trace or off, or directives such as \
                    info,corelane::log=debug"
                .to_owned(),
        }
    }

    /// Whether an empty value means "not set": where a word or number belongs, it is a mistake.
    pub(super) fn may_be_empty(self) -> bool {
        matches!(self, Name(_) | Path | Address | NameServers | Features)
    }
}

fn one_of(value: &str, words: &[&str]) -> Result<String, String> {
    match words.iter().find(|word| **word == value) {
        Some(word) => Ok((*word).to_owned()),
        None => Err(format!("it is neither {}", words.join(" nor "))),
    }
}

fn number(value: &str, min: u64, max: u64) -> Result<u64, String> {
    if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("it is not a whole number".to_owned());
    }
    match value.parse() {
        Ok(number) if number < min => Err("it is too small".to_owned()),
        Ok(number) if number <= max => Ok(number),
        _ => Err("it is too large".to_owned()),
    }
}

fn name(value: &str, len_max: usize) -> Result<String, String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "_-.%|".contains(c);
    if let Some(wrong) = value.chars().find(|c| !is_allowed(*c)) {
        return Err(format!("it contains {wrong:?}"));
    }
    // Names become folders.
    if value == "." || value == ".." {
        return Err("it names a folder".to_owned());
    }
    if len_max < value.len() {
        return Err(format!("it has {} characters", value.len()));
    }
    Ok(value.to_owned())
}

fn address(value: &str) -> Result<IpAddr, String> {
    value
        .parse()
        .map_err(|_| "it is not an IP address".to_owned())
}

/// Empty for `embedded`.
pub(super) fn name_servers(value: &str) -> Result<Vec<String>, String> {
    if value == "embedded" {
        return Ok(Vec::new());
    }
    let mut servers = Vec::new();
    for server in value
        .split(';')
        .map(str::trim)
        .filter(|server| !server.is_empty())
    {
        let Some((host, port)) = server.rsplit_once(':') else {
            return Err(format!("'{server}' has no port"));
        };
        let host_is_name = |c: char| c.is_ascii_alphanumeric() || "-._[]:".contains(c);
        if host.is_empty() || !host.chars().all(host_is_name) {
            return Err(format!("'{server}' has no host"));
        }
        number(port, 1, 65_535).map_err(|why| format!("the port of '{server}': {why}"))?;
        servers.push(server.to_owned());
    }
    if servers.is_empty() {
        return Err("it names no server".to_owned());
    }
    Ok(servers)
}

pub(super) fn hours(value: &str) -> Result<Vec<u8>, String> {
    let hours = value.split(';').map(|hour| match hour.trim().parse() {
        Ok(hour) if hour < 24 => Ok(hour),
        _ => Err(format!("'{hour}' is no hour")),
    });
    hours.collect()
}

pub(super) fn features(value: &str) -> Result<base::Features, String> {
    base::Features::parse(value).map_err(|name| format!("'{name}' is no optional feature"))
}

/// In milliseconds.
pub(super) fn levels(value: &str) -> Result<Vec<u64>, String> {
    let levels: Result<Vec<_>, _> = value.split_ascii_whitespace().map(level).collect();
    match levels?.as_slice() {
        [] => Err("it names no time".to_owned()),
        levels if LEVELS_MAX < levels.len() => Err(format!("it names {} times", levels.len())),
        levels => Ok(levels.to_vec()),
    }
}

fn level(text: &str) -> Result<u64, String> {
    let unit_ms = match text.chars().last() {
        Some('s') => 1_000,
        Some('m') => MINUTE_MS,
        Some('h') => 60 * MINUTE_MS,
        Some('d') => 24 * 60 * MINUTE_MS,
        _ => return Err(format!("'{text}' does not end in s, m, h or d")),
    };
    let count = number(&text[..text.len() - 1], 0, 36_500);
    count
        .map(|count| count * unit_ms)
        .map_err(|_| format!("'{text}' is no time"))
}

fn log(value: &str) -> Result<String, String> {
    const LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace", "off"];
    for directive in value.split(',') {
        let (target, level) = directive
            .rsplit_once('=')
            .unwrap_or(("corelane", directive));
        if !LEVELS.contains(&level) {
            return Err(format!("'{level}' is no level"));
        }
        let is_target = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        if target.is_empty() || !target.chars().all(is_target) {
            return Err(format!("'{target}' is no module"));
        }
    }
    Ok(value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::find;

    #[test]
    fn values_are_refused_with_their_reason() {
        let cases = [
            ("listenPort", "-1", "it is not a whole number"),
            ("listenPort", "2", "it is too small"),
            ("listenPort", "65535", "it is too large"),
            ("listenPort", "99999999999999999999", "it is too large"),
            ("messageIndexEnable", "yes", "it is neither true nor false"),
            ("flushDiskType", "SYNC", "it is not one of the known words"),
            ("brokerName", "a/b", "it contains '/'"),
            ("brokerName", "..", "it names a folder"),
            ("storePathCommitLog", "/a,/b", "it names several folders"),
            ("brokerIP1", "localhost", "it is not an IP address"),
            ("namesrvAddr", "a:1;b", "'b' has no port"),
            ("namesrvAddr", ":1", "':1' has no host"),
            ("namesrvAddr", "a:0", "the port of 'a:0': it is too small"),
            ("namesrvAddr", ";", "it names no server"),
            ("deleteWhen", "04;24", "'24' is no hour"),
            (
                "messageDelayLevel",
                "1s 5",
                "'5' does not end in s, m, h or d",
            ),
            ("messageDelayLevel", "1s xm", "'xm' is no time"),
            ("messageDelayLevel", " ", "it names no time"),
            ("log", "loud", "'loud' is no level"),
            ("kernelWithout", "send-zc,zc", "'zc' is no optional feature"),
            (
                "enablePropertyFilter",
                "true",
                "it is not one of the known words",
            ),
        ];
        for (name, value, why) in cases {
            let key = find(name).unwrap();
            assert_eq!(key.check(value), Err(why.to_owned()), "{name}={value}");
        }
        assert_eq!(
            find("flush").unwrap().check("sync"),
            Ok("SYNC_FLUSH".to_owned())
        );
        assert_eq!(
            find("log")
                .unwrap()
                .check("info,corelane::log=debug")
                .unwrap()
                .len(),
            24
        );
        assert_eq!(
            levels("1s 2m 3h 1d").unwrap(),
            [1000, 120_000, 10_800_000, 86_400_000]
        );
        assert_eq!(hours("04; 5").unwrap(), [4, 5]);
    }
}
