//! What threads of the process say to each other, off the data path: small, rare and bounded.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::base::ShardId;
use crate::command::TopicConfig;
use crate::io::Bell;
use crate::shard::ChangeNumber;

/// Messages that wait at most. More than that means that a shard has not turned for minutes.
const WAITING_MAX: usize = 1 << 16;

/// A word to a shard.
#[derive(Debug)]
pub(super) enum Control {
    /// Another shard has made topics: take them over, store them, register them and say so.
    TakeTopics {
        from: ShardId,
        change: ChangeNumber,
        topics: Vec<TopicConfig>,
    },
    /// A shard has done so.
    TopicsTaken { change: ChangeNumber },
    /// The process's settings have changed: take them over, register and say so.
    TakeSettings {
        from: ShardId,
        change: ChangeNumber,
        settings: Vec<(String, String)>,
    },
    /// The name servers have answered.
    Registered { change: ChangeNumber },
    /// Stop in order.
    Stop,
}

/// A word to the thread that started everything.
#[derive(Debug)]
pub(super) enum Report {
    /// A shard serves.
    Ready,
    /// The name servers have answered a shard's first registration, or did not in time.
    Registered,
    /// A shard could not start.
    NotStarted(crate::config::StartError),
    /// A shard's storage has failed for good.
    Failed { shard: ShardId, why: String },
    /// A shard has stopped in order.
    Stopped,
    /// The process was asked to stop.
    Signal(i32),
}

/// The mailbox of one shard.
#[derive(Clone, Default)]
pub(super) struct Mailbox(Arc<Inner>);

#[derive(Default)]
struct Inner {
    waiting: Mutex<VecDeque<Control>>,
    /// Of the shard's ring, once it is there.
    bell: OnceLock<Bell>,
}

impl Mailbox {
    /// Leaves a message and wakes the shard.
    pub(super) fn post(&self, control: Control) {
        let mut waiting = self
            .0
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if WAITING_MAX <= waiting.len() {
            tracing::error!("a shard's mailbox is full; a message was dropped");
            return;
        }
        waiting.push_back(control);
        drop(waiting);
        if let Some(bell) = self.0.bell.get() {
            bell.ring();
        }
    }

    /// From now on the shard is woken.
    pub(super) fn connect(&self, bell: Bell) {
        let first = self.0.bell.set(bell);
        assert!(first.is_ok(), "a mailbox has one shard");
    }

    /// The next message.
    pub(super) fn take(&self) -> Option<Control> {
        self.0
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    }
}
