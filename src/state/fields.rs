//! The fields of a table, taken out one by one: what is missing has a default, what is wrong says where.

use super::StateError;
use super::json::{Document, Key, Node, Value};
use crate::command::DataVersion;

/// Fields that nobody took yet.
pub(super) struct Fields<'a> {
    document: &'a Document<'a>,
    fields: Vec<(Key, Node)>,
}

impl<'a> Fields<'a> {
    /// The fields of a value that must be a table; `null` is an empty one, as Java reads it.
    pub fn of(document: &'a Document<'a>, name: &str, node: Node) -> Result<Self, StateError> {
        let fields = match node.value {
            Value::Table(fields) => fields,
            Value::Null => Vec::new(),
            _ => return Err(document.fail(node.at, format!("{name} is no table {{…}}"))),
        };
        Ok(Self { document, fields })
    }

    /// The last field of this name; an absent one and `null` are the same.
    fn take(&mut self, name: &str) -> Option<Node> {
        let mut taken = None;
        self.fields.retain_mut(|(key, node)| {
            let wanted = matches!(key, Key::Text(text) if text == name);
            if wanted {
                taken = Some(std::mem::replace(node, Node::new(Value::Null)));
            }
            !wanted
        });
        taken.filter(|node| node.value != Value::Null)
    }

    /// A table in this table; empty where it is missing.
    pub fn table(&mut self, name: &str) -> Result<Self, StateError> {
        let node = self.take(name).unwrap_or_else(|| Node::new(Value::Null));
        Fields::of(self.document, name, node)
    }

    /// A whole number that fits its type. Numbers in quotes are numbers too.
    pub fn integer<T: TryFrom<i64>>(&mut self, name: &str, default: T) -> Result<T, StateError> {
        match self.take(name) {
            Some(node) => integer(self.document, name, &node),
            None => Ok(default),
        }
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, name: &str, default: bool) -> Result<bool, StateError> {
        let Some(node) = self.take(name) else {
            return Ok(default);
        };
        match &node.value {
            Value::Bool(value) => Ok(*value),
            _ => Err(self
                .document
                .fail(node.at, format!("{name} is neither true nor false"))),
        }
    }

    /// A text and where it stands.
    pub fn text(&mut self, name: &str) -> Result<Option<(usize, String)>, StateError> {
        let Some(node) = self.take(name) else {
            return Ok(None);
        };
        match node.value {
            Value::Text(text) => Ok(Some((node.at, text))),
            _ => Err(self.document.fail(node.at, format!("{name} is no text"))),
        }
    }

    /// Names and texts, sorted.
    pub fn texts(&mut self, name: &str) -> Result<Vec<(String, String)>, StateError> {
        let mut texts = Vec::new();
        for (key, node) in self.table(name)?.rest() {
            match node.value {
                Value::Text(text) => texts.push((key.into_text(), text)),
                _ => {
                    return Err(self
                        .document
                        .fail(node.at, format!("a value in {name} is no text")));
                }
            }
        }
        texts.sort();
        Ok(texts)
    }

    /// `dataVersion`; zeros where it is missing.
    pub fn version(&mut self) -> Result<DataVersion, StateError> {
        let mut fields = self.table("dataVersion")?;
        Ok(DataVersion {
            counter: fields.integer("counter", 0)?,
            state_version: fields.integer("stateVersion", 0)?,
            timestamp_ms: fields.integer("timestamp", 0)?,
        })
    }

    /// What nobody took, in the order of the file.
    pub fn rest(self) -> Vec<(Key, Node)> {
        self.fields
    }
}

/// A whole number that fits its type.
pub(super) fn integer<T: TryFrom<i64>>(
    document: &Document<'_>,
    name: &str,
    node: &Node,
) -> Result<T, StateError> {
    let digits = match &node.value {
        Value::Number(digits) | Value::Text(digits) => digits.as_str(),
        _ => return Err(document.fail(node.at, format!("{name} is no whole number"))),
    };
    let number = digits.parse::<i64>();
    let number = number
        .map_err(|_| document.fail(node.at, format!("{name} is no whole number: {digits}")))?;
    T::try_from(number)
        .map_err(|_| document.fail(node.at, format!("{name} is out of range: {number}")))
}

/// `dataVersion` as Apache writes it.
pub(super) fn version_node(version: DataVersion) -> Node {
    Node::table([
        ("counter", Node::number(version.counter)),
        ("stateVersion", Node::number(version.state_version)),
        ("timestamp", Node::number(version.timestamp_ms)),
    ])
}

/// Names and texts as a table.
pub(super) fn texts_node(texts: &[(String, String)]) -> Node {
    Node::table(
        texts
            .iter()
            .map(|(name, text)| (name.as_str(), Node::text(text))),
    )
}

/// Fields of a newer or other broker, kept so that our writing does not lose them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Kept(Vec<(Key, Node)>);

impl Kept {
    pub(super) fn new(mut fields: Vec<(Key, Node)>) -> Self {
        fields.retain(|(_, node)| node.value != Value::Null);
        Self(fields)
    }

    /// Whether there is nothing to keep.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0
            .iter()
            .any(|(key, _)| matches!(key, Key::Text(text) if text == name))
    }

    /// Puts known and kept fields into one table, sorted by name as Apache's are.
    pub(super) fn join(&self, known: Vec<(&str, Node)>) -> Node {
        let known = known
            .into_iter()
            .map(|(name, node)| (Key::Text(name.to_owned()), node));
        let mut fields: Vec<_> = known.chain(self.0.iter().cloned()).collect();
        fields.sort_by_cached_key(|(key, _)| key.clone().into_text());
        Node::new(Value::Table(fields))
    }
}
