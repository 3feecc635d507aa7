//! The verbs that receive: consume, and pull in two kinds.
#![allow(deprecated)] // The crate keeps its classic pull consumer, and keeps warning of it.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use rocketmq_client_rust::{
    ClientResult, ConsumeConcurrentlyContext, ConsumeConcurrentlyStatus, ConsumeOrderlyContext, ConsumeOrderlyStatus,
    DefaultLitePullConsumer, DefaultMQPullConsumer, DefaultMQPushConsumer, MQPushConsumer, MessageListenerConcurrently,
    MessageListenerOrderly, PullStatus,
};
use rocketmq_model::common::consumer::consume_from_where::ConsumeFromWhere;
use rocketmq_model::common::message::message_ext::MessageExt;
use rocketmq_model::common::message::message_queue::MessageQueue;
use rocketmq_protocol::protocol::heartbeat::message_model::MessageModel;
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::flags::Flags;
use crate::lines::{Progress, print, received};
use crate::{Outcome, Runtime, client_config, text_of};

const PULL_COUNT: i32 = 32;
/// Shutdown waits, queue by queue, for the pulls that the library has parked in the broker.
const SUSPEND_MAX: Duration = Duration::from_secs(1);

struct Listener {
    progress: Arc<Progress>,
    fail_until: i32,
}

impl Listener {
    /// Whether all of them were handled; one that was not ends it.
    fn handle(&self, messages: &[&MessageExt], queue: &MessageQueue) -> bool {
        for message in messages {
            let mut line = received(message, queue.broker_name());
            let ok = message.reconsume_times() >= self.fail_until;
            line["ok"] = json!(ok);
            print(&line);
            if !ok {
                return false;
            }
            self.progress.add(&line);
        }
        true
    }
}

impl MessageListenerConcurrently for Listener {
    fn consume_message(
        &self,
        messages: &[&MessageExt],
        context: &ConsumeConcurrentlyContext,
    ) -> ClientResult<ConsumeConcurrentlyStatus> {
        if self.handle(messages, context.get_message_queue()) {
            return Ok(ConsumeConcurrentlyStatus::ConsumeSuccess);
        }
        Ok(ConsumeConcurrentlyStatus::ReconsumeLater)
    }
}

impl MessageListenerOrderly for Listener {
    fn consume_message(
        &self,
        messages: &[&MessageExt],
        context: &mut ConsumeOrderlyContext,
    ) -> ClientResult<ConsumeOrderlyStatus> {
        if self.handle(messages, context.get_message_queue()) {
            return Ok(ConsumeOrderlyStatus::Success);
        }
        Ok(ConsumeOrderlyStatus::SuspendCurrentQueueAMoment)
    }
}

pub async fn consume(flags: Flags, runtime: Runtime) -> Outcome<()> {
    let model = match flags.model.as_str() {
        "broadcasting" => MessageModel::Broadcasting,
        _ => MessageModel::Clustering,
    };
    let mut builder = DefaultMQPushConsumer::builder(runtime)
        .client_config(client_config(&flags))
        .consumer_group(flags.group.clone())
        .consume_from_where(ConsumeFromWhere::ConsumeFromFirstOffset)
        .message_model(model);
    if let Some(times) = flags.max_reconsume {
        builder = builder.max_reconsume_times(times);
    }
    let mut consumer = builder.build();
    let progress = Arc::new(Progress::new(flags.count));
    let listener = Listener { progress: progress.clone(), fail_until: flags.fail_until };
    match flags.listener.as_str() {
        "orderly" => consumer.register_message_listener_orderly(listener),
        _ => consumer.register_message_listener_concurrently(listener),
    }
    consumer.subscribe(flags.topic.as_str(), without_spaces(&flags.subscription)).await.map_err(text_of)?;
    consumer.start().await.map_err(text_of)?;
    print(&json!({"ready": true}));
    let closed = stdin_closed();
    tokio::select! {
        () = progress.reached.notified() => {}
        () = closed.notified() => {}
        () = sleep(Duration::from_secs(flags.timeout)) => {}
    }
    sleep(Duration::from_secs(flags.linger)).await;
    consumer.shutdown().await;
    print(&json!({"handled": progress.count()}));
    Ok(())
}

/// The library takes the spaces of "a || b" for parts of the tags, and then matches none.
fn without_spaces(expression: &str) -> String {
    expression.replace(' ', "")
}

/// A thread, because a read of stdin cannot be taken back.
fn stdin_closed() -> Arc<Notify> {
    let closed = Arc::new(Notify::new());
    let tell = closed.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while matches!(std::io::stdin().read(&mut buffer), Ok(1..)) {}
        tell.notify_one();
    });
    closed
}

pub async fn pull(flags: Flags, runtime: Runtime) -> Outcome<()> {
    let progress = Arc::new(Progress::new(flags.count));
    match flags.kind.as_str() {
        "lite" => lite_pull(&flags, runtime, &progress).await?,
        _ => classic_pull(&flags, runtime, &progress).await?,
    }
    print(&json!({"handled": progress.count()}));
    Ok(())
}

/// A new group begins at the first offset; the library assigns the queues.
async fn lite_pull(flags: &Flags, runtime: Runtime, progress: &Progress) -> Outcome<()> {
    let config = client_config(flags);
    let consumer = DefaultLitePullConsumer::builder(runtime)
        .name_server_addr(flags.namesrv.as_str())
        .instance_name(config.get_instance_name().as_str())
        .consumer_group(flags.group.clone())
        .consume_from_where(ConsumeFromWhere::ConsumeFromFirstOffset)
        .broker_suspend_max_time_millis(SUSPEND_MAX.as_millis() as u64)
        .build()
        .map_err(text_of)?;
    consumer
        .subscribe_with_expression(&flags.topic, &without_spaces(&flags.subscription))
        .await
        .map_err(text_of)?;
    consumer.start().await.map_err(text_of)?;
    print(&json!({"ready": true}));
    let reading = async {
        while progress.count() < flags.count {
            for message in consumer.poll_with_timeout(500).await {
                let line = received(&message, message.broker_name());
                print(&line);
                progress.add(&line);
            }
        }
    };
    let _ = timeout(Duration::from_secs(flags.timeout), reading).await;
    consumer.commit_all().await.map_err(text_of)?;
    consumer.shutdown().await;
    Ok(())
}

async fn classic_pull(flags: &Flags, runtime: Runtime, progress: &Progress) -> Outcome<()> {
    let consumer = DefaultMQPullConsumer::builder(runtime)
        .name_server_addr(flags.namesrv.as_str())
        .broker_suspend_max_time(SUSPEND_MAX)
        .consumer_group(flags.group.clone())
        .build()
        .map_err(text_of)?;
    consumer.start().await.map_err(text_of)?;
    let queues = consumer.fetch_subscribe_message_queues(&flags.topic).await.map_err(text_of)?;
    print(&json!({"ready": true}));
    let mut offsets = vec![0; queues.len()];
    let reading = async {
        while progress.count() < flags.count {
            let before = offsets.clone();
            for (queue, offset) in queues.iter().zip(&mut offsets) {
                *offset = pull_once(&consumer, queue, *offset, flags, progress).await;
            }
            if offsets == before {
                sleep(Duration::from_millis(100)).await;
            }
        }
    };
    let _ = timeout(Duration::from_secs(flags.timeout), reading).await;
    eprintln!("pull: offsets not stored, the classic pull consumer of rocketmq-client-rust 1.0.0 has no way to");
    consumer.shutdown().await.map_err(|error| text_of(error).into())
}

async fn pull_once(
    consumer: &DefaultMQPullConsumer,
    queue: &MessageQueue,
    offset: i64,
    flags: &Flags,
    progress: &Progress,
) -> i64 {
    let result = match consumer.pull(queue, &without_spaces(&flags.subscription), offset, PULL_COUNT).await {
        Ok(result) => result,
        Err(error) => {
            eprintln!("pull of {queue:?} at {offset}: {error:?}");
            return offset;
        }
    };
    if *result.pull_status() == PullStatus::Found {
        for message in result.msg_found_list().unwrap_or_default() {
            let line = received(message, queue.broker_name());
            print(&line);
            progress.add(&line);
        }
    }
    result.next_begin_offset() as i64
}
