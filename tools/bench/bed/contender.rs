//! Who is measured, and under which load.

use crate::Cpus;
use std::path::{Path, PathBuf};

/// A server's command line with places to be filled, and its name in the report.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contender {
    pub name: String,
    pub words: Vec<String>,
    /// As given to `--flush`; empty where nothing was.
    pub flush: String,
    pub is_peer: bool,
    /// It has records of its own to be read: none need be sent to it.
    pub has_records: bool,
    /// CPUs it may use, where not that of all servers.
    pub cpus: Option<Cpus>,
    /// The control group it runs in.
    pub group: Option<PathBuf>,
}

/// One load: the generator's command and its arguments.
#[derive(Debug, Clone, PartialEq)]
pub struct Work {
    pub name: String,
    pub kind: String,
    pub words: Vec<String>,
    /// Seconds it may take beside its window, above what is usual.
    pub limit_s: f64,
}

impl Work {
    /// A topic may not have dots.
    pub fn topic(&self) -> String {
        self.name.replace('.', "_")
    }

    pub fn has(&self, option: &str) -> bool {
        self.value(option).is_some()
    }

    /// What follows an option, the last time it is given.
    pub fn value(&self, option: &str) -> Option<&str> {
        let mut found = None;
        for (at, word) in self.words.iter().enumerate() {
            if word == option {
                found = Some(self.words.get(at + 1).map_or("", String::as_str));
            } else if let Some(rest) = word.strip_prefix(option)
                && let Some(value) = rest.strip_prefix('=')
            {
                found = Some(value);
            }
        }
        found
    }

    pub fn number(&self, option: &str) -> Option<f64> {
        self.value(option)?.parse().ok()
    }
}

pub struct Places<'a> {
    pub store: &'a Path,
    pub port: u16,
    pub nameserver_port: u16,
}

/// What --flush without more says about when a message is acknowledged: `sync-dsync` is `sync`.
pub fn flush_family(flush: &str) -> &str {
    match flush.split('-').next().unwrap_or("") {
        "none" => "async",
        family => family,
    }
}

impl Contender {
    /// Whether it has to be sent what that load reads.
    pub fn is_to_prepare(&self, work: &Work) -> bool {
        work.kind == "consume" && !self.has_records
    }

    /// Its command line at a port, with the name server's beside it.
    pub fn filled_at(&self, store: &Path, port: u16) -> Vec<String> {
        self.filled(&Places {
            store,
            port,
            nameserver_port: port + 20,
        })
    }

    /// Its command line with the places filled.
    pub fn filled(&self, places: &Places<'_>) -> Vec<String> {
        let family = flush_family(&self.flush);
        let policy = match family {
            "sync" => "SYNC_FLUSH",
            _ => "ASYNC_FLUSH",
        };
        // A peer knows the two families and not our ways to sync.
        let flush = if self.is_peer { family } else { &self.flush };
        let fill = |word: &String| {
            word.replace("{store}", &places.store.to_string_lossy())
                .replace("{port}", &places.port.to_string())
                .replace("{nameserver-port}", &places.nameserver_port.to_string())
                .replace("{flush}", flush)
                .replace("{flush-disk-type}", policy)
        };
        self.words.iter().map(fill).collect()
    }
}
