//! Attributes of topics and groups, and the `+key=value,-key` changes that administrators ask for (P§2.10).

/// What values an attribute takes.
enum Values {
    OneOf(&'static [&'static str]),
    Number(i64, i64),
}

/// One attribute that is known.
struct Attribute {
    name: &'static str,
    /// Whether it may change once the topic is there.
    changeable: bool,
    values: Values,
}

const OF_TOPICS: [Attribute; 4] = [
    Attribute {
        name: "queue.type",
        changeable: false,
        values: Values::OneOf(&["SimpleCQ", "BatchCQ"]),
    },
    Attribute {
        name: "cleanup.policy",
        changeable: false,
        values: Values::OneOf(&["DELETE", "COMPACTION"]),
    },
    Attribute {
        name: "message.type",
        changeable: true,
        values: Values::OneOf(&[
            "UNSPECIFIED",
            "NORMAL",
            "FIFO",
            "DELAY",
            "TRANSACTION",
            "MIXED",
        ]),
    },
    Attribute {
        name: "reserve.time",
        changeable: true,
        values: Values::Number(-1, i64::MAX),
    },
];

const OF_GROUPS: [Attribute; 1] = [Attribute {
    name: "priority.factor",
    changeable: true,
    values: Values::Number(0, 100),
}];

type Pairs = Vec<(String, String)>;

/// What a topic's attributes become; `None` for a topic that is new.
pub(super) fn of_topic(current: Option<&Pairs>, changes: &Pairs) -> Result<Pairs, String> {
    change(&OF_TOPICS, "topic", current, changes)
}

/// What a group's attributes become.
pub(super) fn of_group(current: Option<&Pairs>, changes: &Pairs) -> Result<Pairs, String> {
    change(&OF_GROUPS, "group", current, changes)
}

fn change(
    known: &[Attribute],
    what: &str,
    current: Option<&Pairs>,
    changes: &Pairs,
) -> Result<Pairs, String> {
    let mut pairs = current.cloned().unwrap_or_default();
    let mut seen: Vec<&str> = Vec::new();
    for (signed, value) in changes {
        let (adds, key) = match (signed.strip_prefix('+'), signed.strip_prefix('-')) {
            (Some(key), _) => (true, key),
            (_, Some(key)) => (false, key),
            _ => {
                return Err(format!(
                    "wrong format key: {signed}; write +{signed} or -{signed}"
                ));
            }
        };
        if seen.contains(&key) {
            return Err(format!("key in add and delete list: {key}"));
        }
        seen.push(key);
        if current.is_none() && !adds {
            return Err(format!(
                "only add attribute is supported while creating {what}. key: {key}"
            ));
        }
        let Some(attribute) = known.iter().find(|attribute| attribute.name == key) else {
            return Err(format!("unsupported key: {key}"));
        };
        let at = pairs.iter().position(|(name, _)| name == key);
        if current.is_some() && !attribute.changeable {
            // To say again what holds is no change.
            let same = adds && at.is_some_and(|at| pairs[at].1 == *value);
            if !same {
                return Err(format!(
                    "attempt to update an unchangeable attribute. key: {key}"
                ));
            }
        }
        match (adds, at) {
            (true, at) => {
                attribute.check(value)?;
                match at {
                    Some(at) => pairs[at].1.clone_from(value),
                    None => pairs.push((key.to_owned(), value.clone())),
                }
            }
            (false, Some(at)) => drop(pairs.remove(at)),
            (false, None) => return Err(format!("attempt to delete a nonexistent key: {key}")),
        }
    }
    pairs.sort_unstable();
    Ok(pairs)
}

impl Attribute {
    fn check(&self, value: &str) -> Result<(), String> {
        let fits = match &self.values {
            Values::OneOf(words) => words.contains(&value),
            Values::Number(min, max) => value
                .parse::<i64>()
                .is_ok_and(|number| (*min..=*max).contains(&number)),
        };
        if fits {
            return Ok(());
        }
        let allowed = match &self.values {
            Values::OneOf(words) => format!("one of {}", words.join(", ")),
            Values::Number(min, i64::MAX) => format!("a number from {min} on"),
            Values::Number(min, max) => format!("a number from {min} to {max}"),
        };
        let name = self.name;
        Err(format!(
            "value of {name} is {value:?}, allowed is {allowed}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Pairs {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        list.iter().map(owned).collect()
    }

    #[test]
    fn attributes_are_added_changed_and_taken_away() {
        let new = of_topic(
            None,
            &pairs(&[("+message.type", "FIFO"), ("+cleanup.policy", "DELETE")]),
        )
        .unwrap();
        assert_eq!(
            new,
            pairs(&[("cleanup.policy", "DELETE"), ("message.type", "FIFO")])
        );
        let changed = of_topic(
            Some(&new),
            &pairs(&[("+message.type", "NORMAL"), ("+cleanup.policy", "DELETE")]),
        );
        assert_eq!(changed.unwrap()[1].1, "NORMAL");
        let fewer = of_topic(Some(&new), &pairs(&[("-message.type", "")])).unwrap();
        assert_eq!(fewer, pairs(&[("cleanup.policy", "DELETE")]));
        assert_eq!(of_topic(Some(&new), &Vec::new()).unwrap(), new);
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_reason() {
        let current = pairs(&[("cleanup.policy", "DELETE")]);
        let cases: [(Option<&Pairs>, &[(&str, &str)], &str); 8] = [
            (None, &[("-message.type", "")], "only add attribute"),
            (None, &[("message.type", "FIFO")], "wrong format"),
            (None, &[("+colour", "red")], "unsupported key: colour"),
            (None, &[("+message.type", "ODD")], "allowed is one of"),
            (None, &[("+reserve.time", "-2")], "a number from -1 on"),
            (
                Some(&current),
                &[("+cleanup.policy", "COMPACTION")],
                "unchangeable",
            ),
            (Some(&current), &[("-message.type", "")], "nonexistent key"),
            (
                Some(&current),
                &[("+message.type", "FIFO"), ("-message.type", "")],
                "add and delete",
            ),
        ];
        for (current, changes, reason) in cases {
            let why = of_topic(current, &pairs(changes)).unwrap_err();
            assert!(why.contains(reason), "{changes:?}: {why}");
        }
        assert!(of_group(None, &pairs(&[("+priority.factor", "101")])).is_err());
    }
}
