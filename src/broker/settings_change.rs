//! Which settings may change while the broker runs, and whether a change that is asked for is one (25).

use crate::command::{Refusal, RefusalKind};
use crate::config::keys;

/// Everything that a running shard can take over.
const DYNAMIC: &[&str] = &[
    "autoCreateSubscriptionGroup",
    "autoCreateTopicEnable",
    "brokerPermission",
    "cleanFileForciblyEnable",
    "defaultQueryMaxNum",
    "deleteWhen",
    "diskMaxUsedSpaceRatio",
    "diskSpaceCleanForciblyRatio",
    "diskSpaceWarningLevelRatio",
    "fileReservedTime",
    "longPollingEnable",
    "maxMessageSize",
    "maxTransferBytesOnMessageInDisk",
    "maxTransferBytesOnMessageInMemory",
    "maxTransferCountOnMessageInDisk",
    "maxTransferCountOnMessageInMemory",
    "notifyConsumerIdsChangedEnable",
    "shortPollingTimeMills",
    "syncFlushTimeout",
];

type Pairs = Vec<(String, String)>;

/// What of it is a change. All or nothing: one that cannot be refuses the others too. Keys that mean nothing
/// here are passed over, as Apache's broker passes over those that it does not know.
pub(super) fn check(
    in_force: &[(String, String)],
    asked: &[(String, String)],
) -> Result<Pairs, Refusal> {
    let mut changes = Pairs::new();
    for (name, value) in asked {
        let Some(key) = keys::find(name) else {
            tracing::info!(key = %name, "a setting that means nothing here was to be changed");
            continue;
        };
        let value = key.check(value.trim()).map_err(|why| {
            let allowed = key.kind.allowed();
            let text = format!("{name}={value}: {why}; allowed is {allowed}");
            Refusal::new(RefusalKind::InvalidParameter, text)
        })?;
        let same = |(known, old): &(String, String)| known == key.name && *old == value;
        if in_force.iter().any(same) {
            continue;
        }
        if !DYNAMIC.contains(&key.name) {
            let text = format!(
                "{} cannot change while the broker runs: set it in the configuration file and start the \
                 broker again",
                key.name
            );
            return Err(Refusal::new(RefusalKind::NoPermission, text));
        }
        changes.push((key.name.to_owned(), value));
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Pairs {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        list.iter().map(owned).collect()
    }

    #[test]
    fn every_dynamic_key_is_known() {
        for name in DYNAMIC {
            assert!(keys::find(name).is_some(), "{name}");
        }
    }

    #[test]
    fn only_real_changes_of_dynamic_settings_are_made() {
        let in_force = pairs(&[("traceOn", "true"), ("brokerPermission", "6")]);
        let asked = pairs(&[
            ("traceOn", "true"),
            ("flushDiskTypeX", "?"),
            ("brokerPermission", " 4 "),
            ("fileReservedTime", "48"),
        ]);
        let changes = check(&in_force, &asked).unwrap();
        assert_eq!(
            changes,
            pairs(&[("brokerPermission", "4"), ("fileReservedTime", "48")])
        );
        let refused = check(&in_force, &pairs(&[("brokerPermission", "9")])).unwrap_err();
        assert_eq!(refused.kind, RefusalKind::InvalidParameter);
        assert!(
            refused.text.contains("allowed is 2 or 4 or 6"),
            "{}",
            refused.text
        );
        let refused = check(&in_force, &pairs(&[("listenPort", "1234")])).unwrap_err();
        assert_eq!(refused.kind, RefusalKind::NoPermission);
    }
}
