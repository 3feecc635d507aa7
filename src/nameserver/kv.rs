//! The NameServer's settings store: values by namespace and key, kept in RocketMQ's `kvConfig.json`.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

/// Where the queue numbers of globally ordered topics are: `broker-a:4;broker-b:4` by topic.
pub const ORDER_NAMESPACE: &str = "ORDER_TOPIC_CONFIG";

/// Names and values together: far more than operators type, far less than a machine has.
const SIZE_MAX: usize = 8 * 1024 * 1024;

/// What an entry takes besides its text, about.
const ENTRY_OVERHEAD: usize = 128;

/// The values, and whether they were stored.
#[derive(Debug, Default)]
pub struct Kv {
    table: Table,
    /// Bytes of all entries.
    size: usize,
    dirty: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct File<'a> {
    config_table: &'a Table,
}

type Table = BTreeMap<String, BTreeMap<String, String>>;

impl Kv {
    /// Takes the bytes of a `kvConfig.json`.
    pub fn load(bytes: &[u8]) -> Result<Self, String> {
        let table = read(bytes).map_err(|error| {
            format!(
                "kvConfig.json is not what RocketMQ stores: {error}; repair the file or remove it"
            )
        })?;
        let size = table
            .iter()
            .flat_map(|(namespace, values)| {
                values
                    .iter()
                    .map(|(key, value)| entry_size(namespace, key, value))
            })
            .sum();
        Ok(Self {
            table,
            size,
            dirty: false,
        })
    }

    /// The bytes to store, if something changed since the last call.
    pub fn take_dirty(&mut self) -> Option<Vec<u8>> {
        if !std::mem::take(&mut self.dirty) {
            return None;
        }
        let file = File {
            config_table: &self.table,
        };
        Some(serde_json::to_vec(&file).expect("maps of text are always JSON"))
    }

    /// 100.
    pub fn put(&mut self, namespace: &str, key: &str, value: &str) -> Result<(), String> {
        let before = self.value(namespace, key);
        if before == Some(value) {
            return Ok(());
        }
        let freed = before.map_or(0, |before| entry_size(namespace, key, before));
        let size = self.size - freed + entry_size(namespace, key, value);
        if SIZE_MAX < size {
            return Err(format!(
                "{namespace}/{key} does not fit: this NameServer keeps at most {SIZE_MAX} bytes of such values; delete some"
            ));
        }
        self.size = size;
        let values = self.table.entry(namespace.to_owned()).or_default();
        values.insert(key.to_owned(), value.to_owned());
        self.dirty = true;
        Ok(())
    }

    /// 101.
    #[must_use]
    pub fn value(&self, namespace: &str, key: &str) -> Option<&str> {
        self.table.get(namespace)?.get(key).map(String::as_str)
    }

    /// 102.
    pub fn delete(&mut self, namespace: &str, key: &str) {
        let Some(values) = self.table.get_mut(namespace) else {
            return;
        };
        if let Some(value) = values.remove(key) {
            self.size -= entry_size(namespace, key, &value);
            if values.is_empty() {
                self.table.remove(namespace);
            }
            self.dirty = true;
        }
    }

    /// 219; `None` where the namespace has nothing.
    #[must_use]
    pub fn namespace(&self, namespace: &str) -> Option<&BTreeMap<String, String>> {
        self.table.get(namespace)
    }
}

fn read(bytes: &[u8]) -> serde_json::Result<Table> {
    let mut file: BTreeMap<String, Value> = serde_json::from_slice(bytes)?;
    match file.remove("configTable") {
        None | Some(Value::Null) => Ok(Table::new()),
        Some(table) => serde_json::from_value(table),
    }
}

fn entry_size(namespace: &str, key: &str, value: &str) -> usize {
    ENTRY_OVERHEAD + namespace.len() + key.len() + value.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_handed_out_once_and_loads_again() {
        let mut kv = Kv::default();
        assert_eq!(kv.take_dirty(), None);
        kv.put(ORDER_NAMESPACE, "T", "a:4;b:4").unwrap();
        let stored = kv.take_dirty().unwrap();
        assert_eq!(
            String::from_utf8(stored.clone()).unwrap(),
            r#"{"configTable":{"ORDER_TOPIC_CONFIG":{"T":"a:4;b:4"}}}"#
        );
        assert_eq!(kv.take_dirty(), None, "nothing changed since");
        let mut again = Kv::load(&stored).unwrap();
        assert_eq!(again.value(ORDER_NAMESPACE, "T"), Some("a:4;b:4"));
        assert_eq!(
            again.take_dirty(),
            None,
            "what was loaded is stored already"
        );
        again.delete(ORDER_NAMESPACE, "T");
        assert_eq!(
            again.take_dirty().as_deref(),
            Some(&br#"{"configTable":{}}"#[..])
        );
        assert_eq!(again.size, 0);
    }

    #[test]
    fn values_are_bounded() {
        let mut kv = Kv::default();
        let large = "v".repeat(SIZE_MAX / 2);
        kv.put("n", "1", &large).unwrap();
        assert!(kv.put("n", "2", &large).is_err());
        assert_eq!(kv.value("n", "2"), None);
        kv.delete("n", "1");
        kv.put("n", "2", &large).unwrap();
    }

    #[test]
    fn a_file_of_something_else_is_named() {
        assert!(Kv::load(b"[]").unwrap_err().contains("kvConfig.json"));
        assert!(Kv::load(b"{}").is_ok());
        assert!(Kv::load(br#"{"configTable":null}"#).is_ok());
    }
}
