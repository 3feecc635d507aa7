//! Keys with their values and where these came from: what was said, checked, and nothing else.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use super::keys::{self, Key};
use super::{Flag, StartError, accepted, demands, properties};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// Worked out: from what.
    Derived(&'static str),
    /// A line of the configuration file.
    File {
        /// The file, as it was named.
        path: String,
        /// From 1.
        line: usize,
    },
    /// The command line: which flag.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => out.write_str("default"),
            Self::Derived(from) => write!(out, "default: {from}"),
            Self::File { path, line } => write!(out, "{path}:{line}"),
            Self::Flag(flag) => out.write_str(flag),
        }
    }
}

/// A key that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// One of [`keys::KEYS`].
    pub key: &'static str,
    /// As [`Key::check`] returned it.
    pub value: String,
    /// Who said so.
    pub origin: Origin,
}

/// Something to log once at the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// Probably a mistake.
    Warning(String),
    /// Good to know.
    Info(String),
}

/// What was said so far.
#[derive(Debug, Default)]
pub(super) struct Values {
    said: BTreeMap<&'static str, (String, Origin)>,
    /// Keys of Apache's broker that have no effect here, in the order of the file.
    without_effect: Vec<String>,
    pub notes: Vec<Note>,
}

impl Values {
    pub fn read_file(&mut self, path: &Path, bytes: &[u8]) -> Result<(), StartError> {
        let path = path.display().to_string();
        let properties = properties::parse(bytes).map_err(|malformed| {
            let what = format!("{path}:{}", malformed.line);
            StartError::new("read", what, malformed.why, "correct the line")
        })?;
        for property in properties {
            let origin = Origin::File {
                path: path.clone(),
                line: property.line,
            };
            self.say(&property.key, &property.value, origin)?;
        }
        Ok(())
    }

    pub fn read_flags(&mut self, flags: &[Flag]) -> Result<(), StartError> {
        for flag in flags {
            self.say(&flag.key, &flag.value, Origin::Flag(flag.flag.clone()))?;
        }
        if !self.without_effect.is_empty() {
            let names = self.without_effect.join(", ");
            self.notes
                .push(Note::Info(format!("without effect here: {names}")));
        }
        Ok(())
    }

    fn say(&mut self, name: &str, value: &str, origin: Origin) -> Result<(), StartError> {
        if let Some(demand) = demands::find(name, value) {
            if demand.stops {
                let what = format!("with {name}={value} ({origin})");
                let cause = format!("it asks for {}", demand.asks_for);
                return Err(StartError::new("start", what, cause, demand.remedy));
            }
            let asks_for = demand.asks_for;
            self.notes.push(Note::Warning(format!(
                "{name}={value} ({origin}) asks for {asks_for}, which this broker does not have"
            )));
            return Ok(());
        }
        match keys::find(name) {
            Some(key) => self.say_known(key, name, value, origin),
            None if accepted::is_accepted(name) || demands::names().any(|known| known == name) => {
                if !self.without_effect.iter().any(|known| known == name) {
                    self.without_effect.push(name.to_owned());
                }
                Ok(())
            }
            None => {
                self.notes.push(Note::Warning(format!(
                    "{name} ({origin}) is not a known key and has no effect; the nearest known key is {}",
                    nearest(name)
                )));
                Ok(())
            }
        }
    }

    fn say_known(
        &mut self,
        key: &'static Key,
        name: &str,
        value: &str,
        origin: Origin,
    ) -> Result<(), StartError> {
        if value.is_empty() && key.kind.may_be_empty() {
            return Ok(());
        }
        let value = key.check(value).map_err(|why| {
            let what = format!("{name}={value} ({origin})");
            StartError::new(
                "use",
                what,
                why,
                format!("allowed is {}", key.kind.allowed()),
            )
        })?;
        let is_file = |origin: &Origin| matches!(origin, Origin::File { .. });
        if let Some((_, before)) = self.said.get(key.name)
            && is_file(before) == is_file(&origin)
        {
            let name = key.name;
            self.notes.push(Note::Warning(format!(
                "{name} is set twice ({before} and {origin}); the last one counts"
            )));
        }
        self.said.insert(key.name, (value, origin));
        Ok(())
    }

    /// What was said of a key, if anything.
    pub fn said(&self, name: &str) -> Option<&str> {
        self.said.get(name).map(|(value, _)| value.as_str())
    }

    /// What is in force: said or default.
    pub fn text(&self, name: &'static str) -> &str {
        let key = keys::find(name).unwrap_or_else(|| panic!("{name} is not in the table"));
        self.said(name).unwrap_or(key.default)
    }

    /// A number that [`Key::check`] has seen.
    pub fn number<T: TryFrom<u64>>(&self, name: &'static str) -> T {
        let number = self
            .text(name)
            .parse::<u64>()
            .ok()
            .and_then(|number| T::try_from(number).ok());
        number.unwrap_or_else(|| panic!("{name}={} does not fit its type", self.text(name)))
    }

    /// A switch that [`Key::check`] has seen.
    pub fn boolean(&self, name: &'static str) -> bool {
        self.text(name) == "true"
    }

    /// Gives a key the value that follows from host and other settings, unless something was said.
    pub fn derive(&mut self, name: &'static str, value: String, from: &'static str) {
        self.said
            .entry(name)
            .or_insert((value, Origin::Derived(from)));
    }

    /// `key=value` with its origin, as messages quote it.
    pub fn quote(&self, name: &'static str) -> String {
        match self.said.get(name) {
            Some((value, origin)) => format!("{name}={value} ({origin})"),
            None => format!("{name}={} (default)", self.text(name)),
        }
    }

    /// Everything in force, in the order of the table.
    pub fn entries(&self) -> Vec<Entry> {
        let entries = keys::KEYS.iter().map(|key| {
            let said = self.said.get(key.name).cloned();
            let (value, origin) = said.unwrap_or((key.default.to_owned(), Origin::Default));
            Entry {
                key: key.name,
                value,
                origin,
            }
        });
        entries.collect()
    }
}

/// The known key that a misspelt one probably means.
fn nearest(name: &str) -> &'static str {
    let honoured = keys::KEYS
        .iter()
        .flat_map(|key| std::iter::once(key.name).chain(key.alias));
    let known = honoured.chain(demands::names()).chain(accepted::names());
    let lower = name.to_lowercase();
    let distance = |known: &str| strsim::damerau_levenshtein(&lower, &known.to_lowercase());
    known
        .min_by_key(|known| distance(known))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_known_for_one_thing() {
        for name in accepted::names() {
            assert!(keys::find(name).is_none(), "{name} has an effect");
            assert!(
                demands::names().all(|known| known != name),
                "{name} asks for something"
            );
        }
    }

    #[test]
    fn misspelt_keys_have_a_neighbour() {
        assert_eq!(nearest("listenport"), "listenPort");
        assert_eq!(nearest("flushDiscType"), "flushDiskType");
        assert_eq!(nearest("brokerIp1"), "brokerIP1");
        assert_eq!(nearest("storePathRoot"), "storePathRootDir");
        assert_eq!(
            nearest("sendMesageThreadPoolNum"),
            "sendMessageThreadPoolNums"
        );
    }
}
