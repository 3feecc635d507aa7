//! What a shard tells the other shards and the name servers: topics it has made, settings that have changed.

use std::sync::Arc;

use super::control::Control;
use super::registration::News;
use super::settings_change;
use super::worker::Parts;
use crate::command::{Answer, DataVersion, Ticket, TopicConfig};
use crate::io::Io;
use crate::shard::{ChangeNumber, Touched};

fn tell_others<I>(parts: &Parts<I>, control: impl Fn() -> Control) {
    for (index, mailbox) in parts.mailboxes.iter().enumerate() {
        if index != usize::from(parts.id.0) {
            mailbox.post(control());
        }
    }
}

/// The other shards take topics over; each says when it has them.
pub(super) fn share_topics<I>(parts: &Parts<I>, change: ChangeNumber, topics: &[TopicConfig]) {
    tell_others(parts, || Control::TakeTopics {
        from: parts.id,
        change,
        topics: topics.to_vec(),
    });
}

/// 25: the configuration is the process's, so that every shard takes the change over. `None`: the answer
/// comes when all have.
pub(super) fn change_settings<I: Io>(
    parts: &mut Parts<I>,
    ticket: Ticket,
    properties: &[(String, String)],
) -> Option<Answer> {
    let in_force = &parts.shard.settings.properties;
    let settings = match settings_change::check(in_force, properties) {
        Ok(settings) => settings,
        Err(refusal) => return Some(Answer::Refused(refusal)),
    };
    if settings.is_empty() {
        return Some(Answer::Done);
    }
    apply_settings(parts, &settings);
    let change = parts.shard.begin_settings_change(ticket);
    tell_others(parts, || Control::TakeSettings {
        from: parts.id,
        change,
        settings: settings.clone(),
    });
    None
}

/// Takes settings in that were checked.
pub(super) fn apply_settings<I: Io>(parts: &mut Parts<I>, settings: &[(String, String)]) {
    tracing::info!(?settings, "settings changed, until the next start");
    let now_ms = parts.io.wall_ms();
    parts.shard.change_settings(settings, now_ms);
    parts.keeper.change_rules(settings);
}

/// Tells the name servers what is new.
pub(super) fn register<I>(
    parts: &mut Parts<I>,
    change: ChangeNumber,
    (touched, version): (&Touched, DataVersion),
) {
    let Parts {
        shard,
        registrar,
        mailbox,
        id,
        ..
    } = parts;
    let Some(registrar) = registrar else {
        return shard.change_registered(change);
    };
    let news = match touched {
        Touched::All => News::All(Arc::new(shard.advertised_topics())),
        Touched::Topics(names) => News::Changed(shard.advertised(names)),
    };
    let mailbox = mailbox.clone();
    let done: super::registration::Done = Box::new(move |result| {
        if let Err(why) = result {
            tracing::warn!(
                why,
                "not all name servers know the topics of this shard yet"
            );
        }
        mailbox.post(Control::Registered { change });
    });
    registrar.update(*id, &news, version, Some(done));
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::open::tests::opened;
    use super::*;
    use crate::shard::{Outbound, Shard, plain_topic};
    use crate::sim::{Faults, Sim};

    /// What name servers are to be told of.
    fn registers(shard: &mut Shard) -> Vec<(Touched, DataVersion)> {
        let mut outbox = Vec::new();
        shard.swap_outbox(&mut outbox);
        let told = outbox.into_iter().filter_map(|outbound| match outbound {
            Outbound::Register(_, touched, version) => Some((touched, version)),
            _ => None,
        });
        told.collect()
    }

    #[test]
    fn each_change_has_a_version_of_its_own_and_settings_touch_all() {
        let mut io = Sim::with_faults(1, Faults::none());
        let (mut shard, ..) = opened(&mut io, Path::new("/store"));
        registers(&mut shard);
        for name in ["A", "B"] {
            shard.take_over_topics(vec![plain_topic(name, 4, 6)], 1);
        }
        let settings = [("brokerPermission".to_owned(), "4".to_owned())];
        shard.change_settings(&settings, 1);
        shard.take_over_settings();
        let told = registers(&mut shard);
        let touched: Vec<_> = told.iter().map(|(touched, _)| touched.clone()).collect();
        let topics = ["A", "B"].map(Touched::topic);
        assert_eq!(touched[..2], topics);
        assert_eq!(touched[2..], [Touched::All]);
        let versions: Vec<_> = told.iter().map(|(_, version)| version.counter).collect();
        assert!(
            versions.is_sorted_by(|one, next| one < next),
            "{versions:?}"
        );
        assert!(
            shard
                .advertised_topics()
                .iter()
                .all(|topic| topic.perm & 2 == 0)
        );
        io.kill();
    }
}
