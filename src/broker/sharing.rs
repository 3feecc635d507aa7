//! What a shard tells the other shards and the name servers: topics it has made, settings that have changed.

use super::control::Control;
use super::settings_change;
use super::worker::Parts;
use crate::command::{Answer, Ticket, TopicConfig};
use crate::io::Io;
use crate::shard::ChangeNumber;

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

/// Tells the name servers what this shard has now.
pub(super) fn register<I>(parts: &mut Parts<I>, change: ChangeNumber) {
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
    let topics = shard.advertised_topics();
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
    registrar.update(*id, topics, shard.topics.version(), Some(done));
}
