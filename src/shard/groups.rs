//! Settings of consumer groups.

use std::collections::BTreeMap;

use crate::command::{DataVersion, GroupConfig};

/// All groups, and how often they have changed.
#[derive(Debug, Default)]
pub struct Groups {
    table: BTreeMap<String, GroupConfig>,
    version: DataVersion,
    changes: u64,
}

/// Groups that every broker knows (P§3.11).
const SYSTEM: [&str; 8] = [
    "TOOLS_CONSUMER",
    "FILTERSRV_CONSUMER",
    "SELF_TEST_C_GROUP",
    "CID_ONSAPI_PERMISSION",
    "CID_ONSAPI_OWNER",
    "CID_ONSAPI_PULL",
    "CID_ONS-HTTP-PROXY",
    "CID_RMQ_SYS_TRANS",
];

impl Groups {
    /// What was stored.
    #[must_use]
    pub fn load(configs: Vec<GroupConfig>, version: DataVersion) -> Self {
        let table = configs
            .into_iter()
            .map(|config| (config.name.clone(), config))
            .collect();
        Self {
            table,
            version,
            changes: 0,
        }
    }

    /// Adds the groups that every broker has.
    pub fn add_system(&mut self, now_ms: u64) {
        for name in SYSTEM {
            if !self.table.contains_key(name) {
                self.put(GroupConfig::with_defaults(name), now_ms);
            }
        }
    }

    /// A group's settings.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&GroupConfig> {
        self.table.get(name)
    }

    /// Takes settings in, new or changed.
    pub fn put(&mut self, config: GroupConfig, now_ms: u64) {
        self.table.insert(config.name.clone(), config);
        self.changed(now_ms);
    }

    /// Forgets a group.
    pub fn remove(&mut self, name: &str, now_ms: u64) -> bool {
        let removed = self.table.remove(name).is_some();
        if removed {
            self.changed(now_ms);
        }
        removed
    }

    fn changed(&mut self, now_ms: u64) {
        self.version.counter += 1;
        self.version.timestamp_ms = now_ms as i64;
        self.changes += 1;
    }

    /// All groups, by name.
    pub fn iter(&self) -> impl Iterator<Item = &GroupConfig> {
        self.table.values()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// As clients see it.
    #[must_use]
    pub const fn version(&self) -> DataVersion {
        self.version
    }

    /// Number of changes since start.
    #[must_use]
    pub const fn changes(&self) -> u64 {
        self.changes
    }
}
