//! JSON as Java writes it into bodies: objects and bare numbers may stand as keys. The shape of a
//! body is its set of paths, each with the kind of value found there.

use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    Array(Vec<Json>),
    Object(Vec<(Json, Json)>),
}

impl Json {
    pub fn parse(text: &str) -> Result<Json, String> {
        let mut parser = Parser {
            bytes: text.as_bytes(),
            at: 0,
        };
        let value = parser.value(0)?;
        parser.blank();
        match parser.at == text.len() {
            true => Ok(value),
            false => Err(format!(
                "JSON goes on behind its end, at byte {}",
                parser.at
            )),
        }
    }

    pub fn get(&self, key: &str) -> Option<&Json> {
        let Json::Object(pairs) = self else {
            return None;
        };
        pairs
            .iter()
            .find(|(name, _)| matches!(name, Json::Text(text) if text == key))
            .map(|p| &p.1)
    }

    pub fn items(&self) -> &[Json] {
        match self {
            Json::Array(items) => items,
            _ => &[],
        }
    }

    pub fn pairs(&self) -> &[(Json, Json)] {
        match self {
            Json::Object(pairs) => pairs,
            _ => &[],
        }
    }

    /// Text or number as text.
    pub fn text(&self) -> Option<&str> {
        match self {
            Json::Text(text) | Json::Number(text) => Some(text),
            _ => None,
        }
    }

    pub fn number(&self) -> Option<i64> {
        self.text()?.parse().ok()
    }
}

/// Objects whose keys are names of things, not fields: only the kind of their keys is compared.
const MAPS: &[&str] = &[
    "brokerAddrTable",
    "brokerAddrs",
    "clusterAddrTable",
    "consumerTable",
    "filterServerTable",
    "groupTable",
    "messageQueueTable",
    "offsetTable",
    "subscriptionGroupTable",
    "subscriptionTable",
    "topicConfigTable",
];

/// Path → kind (and, if asked for, the value). `[]` and `{}` stand for any item of an array
/// or a map; an empty one has the kind `empty`, which agrees with every content.
pub fn shape(json: &Json, values: Values<'_>) -> BTreeMap<String, String> {
    let mut shape = BTreeMap::new();
    collect(json, "body", values, &mut shape);
    shape
}

/// How to show values in a shape, if they count.
type Values<'a> = Option<&'a dyn Fn(&str) -> String>;

fn collect(json: &Json, path: &str, values: Values<'_>, shape: &mut BTreeMap<String, String>) {
    let scalar = |kind: &str, value: &str| match values {
        Some(show) => format!("{kind} {}", show(value)),
        None => kind.to_owned(),
    };
    let kind = match json {
        Json::Null => "null".to_owned(),
        Json::Bool(value) => scalar("bool", &value.to_string()),
        Json::Number(value) => scalar("number", value),
        Json::Text(value) => scalar("text", value),
        Json::Array(items) if items.is_empty() => "array, empty".to_owned(),
        Json::Array(_) => "array".to_owned(),
        Json::Object(pairs) if pairs.is_empty() => "object, empty".to_owned(),
        Json::Object(_) => "object".to_owned(),
    };
    let earlier = shape.get(path);
    if earlier.is_none_or(|earlier| earlier.ends_with("empty")) {
        shape.insert(path.to_owned(), kind);
    }
    match json {
        Json::Array(items) => {
            for item in items {
                collect(item, &format!("{path}[]"), values, shape);
            }
        }
        Json::Object(pairs) => {
            let name = path.rsplit(['.', ']', '}']).next().unwrap_or_default();
            let is_map = MAPS.contains(&name);
            for (key, value) in pairs {
                let below = match key {
                    Json::Text(name) if !is_map => format!("{path}.{}", field_name(name)),
                    Json::Text(_) => format!("{path}{{text}}"),
                    Json::Number(_) => format!("{path}{{number}}"),
                    _ => {
                        collect(key, &format!("{path}{{key}}"), values, shape);
                        format!("{path}{{object}}")
                    }
                };
                collect(value, &below, values, shape);
            }
        }
        _ => {}
    }
}

/// The name of a field without what its server put into it: a path, a delay level.
fn field_name(name: &str) -> String {
    for prefix in ["commitLogDiskRatio_", "scheduleMessageOffset_"] {
        if name.starts_with(prefix) {
            return format!("{prefix}*");
        }
    }
    name.to_owned()
}

struct Parser<'text> {
    bytes: &'text [u8],
    at: usize,
}

const DEPTH_MAX: usize = 64;

impl Parser<'_> {
    fn blank(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        self.blank();
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Result<(), String> {
        match self.eat(byte) {
            true => Ok(()),
            false => Err(format!(
                "'{}' expected at byte {}",
                char::from(byte),
                self.at
            )),
        }
    }

    fn value(&mut self, depth: usize) -> Result<Json, String> {
        if DEPTH_MAX < depth {
            return Err(format!("deeper than {DEPTH_MAX} at byte {}", self.at));
        }
        self.blank();
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string(),
            _ => self.word(),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json, String> {
        self.expect(b'{')?;
        let mut pairs = Vec::new();
        if self.eat(b'}') {
            return Ok(Json::Object(pairs));
        }
        loop {
            let key = self.value(depth + 1)?;
            self.expect(b':')?;
            pairs.push((key, self.value(depth + 1)?));
            if !self.eat(b',') {
                self.expect(b'}')?;
                return Ok(Json::Object(pairs));
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Json, String> {
        self.expect(b'[')?;
        let mut items = Vec::new();
        if self.eat(b']') {
            return Ok(Json::Array(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            if !self.eat(b',') {
                self.expect(b']')?;
                return Ok(Json::Array(items));
            }
        }
    }

    fn string(&mut self) -> Result<Json, String> {
        let begin = self.at;
        self.at += 1;
        loop {
            match self.peek() {
                Some(b'\\') => self.at += 2,
                Some(b'"') => break,
                Some(_) => self.at += 1,
                None => return Err(format!("a string without end at byte {begin}")),
            }
        }
        self.at += 1;
        let text = serde_json::from_slice(&self.bytes[begin..self.at]);
        text.map(Json::Text)
            .map_err(|cause| format!("string at byte {begin}: {cause}"))
    }

    fn word(&mut self) -> Result<Json, String> {
        let begin = self.at;
        let in_word = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        while self.peek().is_some_and(in_word) {
            self.at += 1;
        }
        let word = std::str::from_utf8(&self.bytes[begin..self.at]).unwrap_or_default();
        match word {
            "null" => Ok(Json::Null),
            "true" => Ok(Json::Bool(true)),
            "false" => Ok(Json::Bool(false)),
            _ if word.parse::<f64>().is_ok() => Ok(Json::Number(word.to_owned())),
            _ => Err(format!("no JSON value at byte {begin}")),
        }
    }
}
