//! Who is connected: producers and consumers by group, what groups subscribe to, and telling members of
//! changes (P§2.6).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;

use super::filter::Filter;
use super::topics::{self, PERM_READ, PERM_WRITE};
use super::{Outbound, Reply, Shard, Touched};
use crate::command::{
    Answer, ClientConnection, ConnectionId, ConsumeFrom, ConsumeType, ConsumerData, Heartbeat,
    MessageModel, Notice, Peer, RefusalKind, Subscription, Ticket,
};
use crate::io::Io;

/// A client that sent no heartbeat for this long is gone (P§2.6).
const SILENT_NS_MAX: u64 = 120_000_000_000;

/// One client of a group.
#[derive(Debug, Clone)]
pub struct Member {
    /// Free text, compared byte for byte.
    pub client_id: String,
    /// Its address.
    pub address: SocketAddr,
    /// As the protocol spells it.
    pub language: String,
    /// As it reports.
    pub version: i32,
    /// Last heartbeat.
    pub seen_ns: u64,
    /// Last heartbeat, wall milliseconds.
    pub seen_ms: u64,
    /// Of the last heartbeat that carried subscriptions.
    fingerprint: i32,
}

impl Member {
    /// As lists of connections show it.
    #[must_use]
    pub fn connection(&self) -> ClientConnection {
        ClientConnection {
            client_id: self.client_id.clone(),
            address: self.address,
            language: self.language.clone(),
            version: self.version,
        }
    }
}

/// A subscription, ready for use.
#[derive(Debug, Clone)]
pub struct Known {
    /// As the client said it.
    pub subscription: Subscription,
    /// Made of its expression.
    pub filter: Rc<Filter>,
}

/// Consumers that share the work.
#[derive(Debug)]
pub struct ConsumerGroup {
    /// Who pulls.
    pub consume_type: ConsumeType,
    /// One gets a message, or all.
    pub message_model: MessageModel,
    /// Where new queues start.
    pub consume_from: ConsumeFrom,
    /// By topic.
    pub subscriptions: BTreeMap<String, Known>,
    /// By connection.
    pub members: BTreeMap<ConnectionId, Member>,
}

/// All clients of a shard.
#[derive(Debug, Default)]
pub struct Clients {
    consumers: BTreeMap<String, ConsumerGroup>,
    producers: BTreeMap<String, BTreeMap<ConnectionId, Member>>,
}

impl Clients {
    /// A consumer group that has members.
    #[must_use]
    pub fn group(&self, group: &str) -> Option<&ConsumerGroup> {
        self.consumers.get(group)
    }

    /// How a connected group's messages are shared.
    #[must_use]
    pub fn message_model(&self, group: &str) -> Option<MessageModel> {
        self.consumers.get(group).map(|group| group.message_model)
    }

    /// Consumer groups that have members.
    pub fn consumer_groups(&self) -> impl Iterator<Item = (&String, &ConsumerGroup)> {
        self.consumers.iter()
    }

    /// Producer groups that have members.
    pub fn producer_groups(
        &self,
    ) -> impl Iterator<Item = (&String, &BTreeMap<ConnectionId, Member>)> {
        self.producers.iter()
    }

    /// Members of a producer group.
    #[must_use]
    pub fn producers(&self, group: &str) -> Option<&BTreeMap<ConnectionId, Member>> {
        self.producers.get(group)
    }

    /// Every group in which a connection consumes.
    fn groups_of(&self, connection: ConnectionId) -> Vec<String> {
        self.consumers
            .iter()
            .filter(|(_, group)| group.members.contains_key(&connection))
            .map(|(name, _)| name.clone())
            .collect()
    }
}

impl Shard {
    pub(super) fn heartbeat(
        &mut self,
        io: &mut impl Io,
        peer: &Peer<'_>,
        ticket: Ticket,
        heartbeat: Heartbeat,
    ) -> Reply {
        let (now_ns, now_ms) = (io.now_ns(), io.wall_ms());
        let member = Member {
            client_id: heartbeat.client_id,
            address: peer.address,
            language: peer.language.to_owned(),
            version: peer.version,
            seen_ns: now_ns,
            seen_ms: now_ms,
            fingerprint: heartbeat.fingerprint,
        };
        for group in heartbeat.producers {
            let members = self.clients.producers.entry(group).or_default();
            members.retain(|connection, known| {
                *connection == peer.connection || known.client_id != member.client_id
            });
            members.insert(peer.connection, member.clone());
        }
        let mut subscription_changed = heartbeat.fingerprint == 0;
        let mut changed_groups = BTreeSet::new();
        let mut new_topics = Vec::new();
        for data in heartbeat.consumers {
            let Some(config) = self.group_or_default(&data.group, now_ms) else {
                continue;
            };
            if self.make_retry_topic(&data.group, config.retry_queue_count, now_ms) {
                new_topics.push(topics::retry_topic(&data.group));
            }
            let name = data.group.clone();
            let outcome = self.register_consumer(
                peer.connection,
                &member,
                data,
                heartbeat.without_subscriptions,
            );
            subscription_changed |= outcome.must_tell;
            if outcome.changed && config.notify_ids_changed {
                changed_groups.insert(name);
            }
        }
        let answer = Answer::Heartbeat {
            subscription_changed,
        };
        let reply = if new_topics.is_empty() {
            Reply::Now(answer)
        } else {
            let touched = Touched::Topics(new_topics);
            self.begin_change(Vec::new(), touched, Some((ticket, answer)));
            Reply::Later
        };
        for group in changed_groups {
            self.notify_members(&group);
        }
        reply
    }

    /// The topic through which a group's failed messages come back; true if it was made now.
    pub(super) fn make_retry_topic(&mut self, group: &str, queues: i32, now_ms: u64) -> bool {
        let name = topics::retry_topic(group);
        let Some(queue_count) = u32::try_from(queues).ok().filter(|count| 0 < *count) else {
            return false;
        };
        if self.topics.get(&name).is_some() || topics::check_name(&name).is_err() {
            return false;
        }
        let config = topics::plain(&name, queue_count, PERM_READ | PERM_WRITE);
        self.topics.put(config, now_ms);
        true
    }

    fn register_consumer(
        &mut self,
        connection: ConnectionId,
        member: &Member,
        data: ConsumerData,
        without_subscriptions: bool,
    ) -> Registered {
        let groups = &mut self.clients.consumers;
        let group = groups.entry(data.group).or_insert_with(|| ConsumerGroup {
            consume_type: data.consume_type,
            message_model: data.message_model,
            consume_from: data.consume_from,
            subscriptions: BTreeMap::new(),
            members: BTreeMap::new(),
        });
        group.consume_type = data.consume_type;
        group.message_model = data.message_model;
        group.consume_from = data.consume_from;
        let before = group.members.len();
        // A client that connected again replaces itself; the old channel's end must not remove it.
        group
            .members
            .retain(|known, old| *known == connection || old.client_id != member.client_id);
        let mut fresh = member.clone();
        let known = group.members.get(&connection);
        let known_fingerprint = known.map(|known| known.fingerprint);
        let mut changed = known.is_none() || before != group.members.len();
        if without_subscriptions {
            // The short form: what it leaves out must not be erased. Who is unknown sends the full one.
            let must_tell =
                known_fingerprint != Some(member.fingerprint) || group.subscriptions.is_empty();
            fresh.fingerprint = known_fingerprint.unwrap_or(0);
            group.members.insert(connection, fresh);
            return Registered { changed, must_tell };
        }
        let must_tell = known_fingerprint != Some(member.fingerprint);
        group.members.insert(connection, fresh);
        changed |= group.subscribe(data.subscriptions);
        Registered { changed, must_tell }
    }

    /// Tells every member of a group that its members or topics have changed.
    pub(super) fn notify_members(&mut self, name: &str) {
        let Some(group) = self.clients.consumers.get(name) else {
            return;
        };
        if group.message_model == MessageModel::Broadcasting
            || !self.settings.notify_members_changed
        {
            return;
        }
        for connection in group.members.keys() {
            let notice = Notice::MembersChanged {
                group: name.to_owned(),
            };
            self.outbox.push(Outbound::Notice(*connection, notice));
        }
    }

    pub(super) fn unregister(
        &mut self,
        peer: &Peer<'_>,
        client_id: &str,
        producer_group: Option<&str>,
        consumer_group: Option<&str>,
    ) -> Reply {
        let is_it = |connection: &ConnectionId, member: &Member| {
            *connection == peer.connection && member.client_id == client_id
        };
        if let Some(name) = producer_group
            && let Some(members) = self.clients.producers.get_mut(name)
        {
            members.retain(|connection, member| !is_it(connection, member));
            if members.is_empty() {
                self.clients.producers.remove(name);
            }
        }
        if let Some(name) = consumer_group {
            self.remove_members(name, is_it);
        }
        Reply::Now(Answer::Done)
    }

    /// Takes members out of a consumer group and tells the others.
    fn remove_members(&mut self, name: &str, which: impl Fn(&ConnectionId, &Member) -> bool) {
        let Some(group) = self.clients.consumers.get_mut(name) else {
            return;
        };
        let before = group.members.len();
        group
            .members
            .retain(|connection, member| !which(connection, member));
        if group.members.len() == before {
            return;
        }
        if group.members.is_empty() {
            self.clients.consumers.remove(name);
            return;
        }
        if self
            .groups
            .get(name)
            .is_none_or(|config| config.notify_ids_changed)
        {
            self.notify_members(name);
        }
    }

    pub(super) fn group_members(&self, name: &str) -> Reply {
        let Some(group) = self.clients.group(name) else {
            let text = format!("no consumer for this group, {name}");
            return Self::refuse(RefusalKind::SystemError, text);
        };
        let mut ids: Vec<String> = group
            .members
            .values()
            .map(|member| member.client_id.clone())
            .collect();
        ids.sort_unstable();
        ids.dedup();
        Reply::Now(Answer::Members(ids))
    }

    /// A connection is gone: its clients leave their groups at once, its pulls are forgotten.
    pub fn disconnected(&mut self, connection: ConnectionId) {
        self.forget_fetches(connection);
        self.forget_returning(connection);
        self.forget_queries(connection);
        self.clients.producers.retain(|_, members| {
            members.remove(&connection);
            !members.is_empty()
        });
        for group in self.clients.groups_of(connection) {
            self.remove_members(&group, |known, _| *known == connection);
        }
    }

    /// Connections whose clients have sent no heartbeat for too long; the caller closes them.
    #[must_use]
    pub fn silent_clients(&self, now_ns: u64) -> Vec<ConnectionId> {
        let silent = |member: &Member| SILENT_NS_MAX <= now_ns.saturating_sub(member.seen_ns);
        let consumers = self
            .clients
            .consumers
            .values()
            .flat_map(|group| &group.members);
        let producers = self.clients.producers.values().flatten();
        let connections: BTreeSet<ConnectionId> = consumers
            .chain(producers)
            .filter(|(_, member)| silent(member))
            .map(|(connection, _)| *connection)
            .collect();
        connections.into_iter().collect()
    }
}

struct Registered {
    /// The group's members or topics have changed.
    changed: bool,
    /// The client must send its subscriptions in full.
    must_tell: bool,
}

impl ConsumerGroup {
    /// Takes the subscriptions of a full heartbeat in; true if the set of topics has changed.
    fn subscribe(&mut self, subscriptions: Vec<Subscription>) -> bool {
        let mut changed = false;
        let topics: BTreeSet<String> = subscriptions.iter().map(|one| one.topic.clone()).collect();
        for subscription in subscriptions {
            match self.subscriptions.get(&subscription.topic) {
                Some(known) if subscription.version <= known.subscription.version => continue,
                Some(_) => (),
                None => changed = true,
            }
            let filter = Rc::new(Filter::of_subscription(&subscription));
            self.subscriptions.insert(
                subscription.topic.clone(),
                Known {
                    subscription,
                    filter,
                },
            );
        }
        let before = self.subscriptions.len();
        self.subscriptions.retain(|topic, _| topics.contains(topic));
        changed || before != self.subscriptions.len()
    }
}
