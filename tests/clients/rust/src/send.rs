//! The verbs that send: produce, big and chinese.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rocketmq_client_rust::{ClientError, ClientResult, DefaultMQProducer, SendResult, SendStatus};
use rocketmq_model::common::message::message_queue::MessageQueue;
use rocketmq_model::common::message::message_single::Message;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::flags::Flags;
use crate::lines::print;
use crate::{Outcome, Runtime, client_config, text_of};

const BATCH_COUNT: usize = 10;
const ASYNC_IN_FLIGHT_MAX: usize = 64;
const CALLBACK_WAIT: Duration = Duration::from_secs(10);
/// After a failure, so that a broker that restarts does not cost all the messages that are left.
const FAILURE_PAUSE: Duration = Duration::from_millis(100);

/// One run of produce: which messages are sent, and what became of them.
struct Sending {
    flags: Flags,
    producer: DefaultMQProducer,
    queue: Option<MessageQueue>,
    deadline: Instant,
    next: AtomicUsize,
    tally: Arc<Tally>,
    in_flight: Arc<Semaphore>,
}

#[derive(Default)]
struct Tally {
    sent: AtomicUsize,
    first_error: Mutex<Option<String>>,
    paused_until: Mutex<Option<Instant>>,
}

pub async fn produce(flags: Flags, runtime: Runtime) -> Outcome<()> {
    let mut producer = DefaultMQProducer::builder(runtime)
        .client_config(client_config(&flags))
        .producer_group(flags.group.clone())
        .build();
    producer.start().await.map_err(text_of)?;
    let queue = match flags.queue {
        Some(number) => Some(sorted_queue(&mut producer, &flags.topic, number).await?),
        None => None,
    };
    let threads = flags.threads;
    let sending = Arc::new(Sending {
        deadline: Instant::now() + Duration::from_secs(flags.timeout),
        next: AtomicUsize::new(0),
        tally: Arc::new(Tally::default()),
        in_flight: Arc::new(Semaphore::new(ASYNC_IN_FLIGHT_MAX)),
        producer,
        queue,
        flags,
    });
    let tasks: Vec<_> = (0..threads).map(|_| tokio::spawn(sending.clone().work())).collect();
    for task in tasks {
        task.await?;
    }
    // All permits free: no callback is outstanding.
    let all = sending.in_flight.acquire_many(ASYNC_IN_FLIGHT_MAX as u32);
    drop(tokio::time::timeout(CALLBACK_WAIT, all).await);
    if sending.flags.mode == "oneway" {
        tokio::time::sleep(Duration::from_secs(1)).await; // Nobody answers: let the socket empty itself.
    }
    sending.producer.clone().shutdown().await;
    sending.tally.finish(&sending.flags)
}

/// The queue of that number in the order of broker name and queue id.
async fn sorted_queue(producer: &mut DefaultMQProducer, topic: &str, number: usize) -> Outcome<MessageQueue> {
    let mut queues = producer.fetch_publish_message_queues(topic).await.map_err(text_of)?;
    queues.sort_by(|a, b| (a.broker_name(), a.queue_id()).cmp(&(b.broker_name(), b.queue_id())));
    let count = queues.len();
    queues.into_iter().nth(number).ok_or_else(|| format!("topic {topic} has only {count} queues").into())
}

impl Sending {
    async fn work(self: Arc<Self>) {
        let step = if self.flags.mode == "batch" { BATCH_COUNT } else { 1 };
        loop {
            let paused_until = self.tally.paused_until.lock().unwrap().unwrap_or(Instant::now());
            tokio::time::sleep_until(paused_until.into()).await;
            if Instant::now() >= self.deadline {
                return;
            }
            let from = self.next.fetch_add(step, Ordering::Relaxed);
            let to = self.flags.count.min(from + step);
            if to <= from {
                return;
            }
            let indexes: Vec<usize> = (from..to).map(|i| self.flags.first + i).collect();
            match self.flags.mode.as_str() {
                "sync" => self.sync(indexes).await,
                "async" => self.asynchronous(indexes).await,
                "oneway" => self.oneway(indexes).await,
                _ => self.batch(indexes).await,
            }
        }
    }

    fn message(&self, index: usize) -> Message {
        let mut message = Message::builder()
            .topic(self.flags.topic.as_str())
            .body(format!("{}-{index}", self.flags.body).into_bytes());
        if !self.flags.tag.is_empty() {
            message = message.tags(self.flags.tag.as_str());
        }
        if self.flags.keys == "yes" {
            message = message.key(format!("k{index}"));
        }
        message
            .raw_property("index", index.to_string())
            .and_then(|message| message.raw_property("city", "北京"))
            .map(|message| message.build_unchecked())
            .expect("index and city are names that the library leaves to its users")
    }

    async fn sync(&self, indexes: Vec<usize>) {
        let message = self.message(indexes[0]);
        let result = match &self.queue {
            Some(queue) => self.producer.send_to_queue(message, queue.clone()).await,
            None => self.producer.send(message).await,
        };
        self.tally.acknowledge(&indexes, result.as_ref().map(|result| result.as_ref()));
    }

    async fn batch(&self, indexes: Vec<usize>) {
        let messages = indexes.iter().map(|index| self.message(*index)).collect();
        let result = match &self.queue {
            Some(queue) => self.producer.send_batch_to_queue(messages, queue.clone()).await,
            None => self.producer.send_batch(messages).await,
        };
        self.tally.acknowledge(&indexes, result.as_ref().map(Some));
    }

    async fn asynchronous(&self, indexes: Vec<usize>) {
        let permit = self.in_flight.clone().acquire_owned().await.expect("the semaphore is never closed");
        // The library's callback may run more than once; the permit leaves with the first.
        let permit = Mutex::new(Some(permit));
        let tally = self.tally.clone();
        let message = self.message(indexes[0]);
        let failed = (self.tally.clone(), indexes.clone());
        let callback = move |result: Option<&SendResult>, error: Option<&ClientError>| {
            let Some(permit) = permit.lock().unwrap().take() else { return };
            match error {
                Some(error) => tally.acknowledge(&indexes, Err(error)),
                None => tally.acknowledge(&indexes, Ok(result)),
            }
            drop(permit);
        };
        let begun = match &self.queue {
            Some(queue) => self.producer.send_to_queue_with_callback(message, queue.clone(), callback).await,
            None => self.producer.send_with_callback(message, callback).await,
        };
        if let Err(error) = begun {
            let (tally, indexes) = failed;
            tally.acknowledge(&indexes, Err(&error));
        }
    }

    async fn oneway(&self, indexes: Vec<usize>) {
        let message = self.message(indexes[0]);
        let result = match &self.queue {
            Some(queue) => self.producer.send_oneway_to_queue(message, queue.clone()).await,
            None => self.producer.send_oneway(message).await,
        };
        match result {
            Ok(()) => {
                print(&json!({"index": indexes[0], "id": ""}));
                self.tally.sent.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => self.tally.fail(text_of(error)),
        }
    }
}

impl Tally {
    fn acknowledge(&self, indexes: &[usize], result: Result<Option<&SendResult>, &ClientError>) {
        let result = match result {
            Err(error) => return self.fail(text_of(error)),
            Ok(None) => return self.fail("no result".to_string()),
            Ok(Some(result)) if result.send_status != SendStatus::SendOk => {
                return self.fail(format!("send status {:?}", result.send_status));
            }
            Ok(Some(result)) => result,
        };
        let ids: Vec<&str> = result.msg_id.as_ref().map(|ids| ids.as_str().split(',').collect()).unwrap_or_default();
        for (i, index) in indexes.iter().enumerate() {
            print(&json!({
                "index": index,
                "id": ids.get(i).unwrap_or(&""),
                "broker": result.message_queue.as_ref().map(|queue| queue.broker_name().as_str()).unwrap_or(""),
                "queue": result.message_queue.as_ref().map(|queue| queue.queue_id()).unwrap_or(-1),
                "offset": result.queue_offset + i as u64, // A batch is answered with its first offset.
            }));
        }
        self.sent.fetch_add(indexes.len(), Ordering::Relaxed);
    }

    fn fail(&self, reason: String) {
        self.first_error.lock().unwrap().get_or_insert(reason);
        *self.paused_until.lock().unwrap() = Some(Instant::now() + FAILURE_PAUSE);
    }

    fn finish(&self, flags: &Flags) -> Outcome<()> {
        let sent = self.sent.load(Ordering::Relaxed);
        let failed = flags.count - sent;
        print(&json!({"sent": sent, "failed": failed}));
        if failed == 0 {
            return Ok(());
        }
        let reason = self.first_error.lock().unwrap().take().unwrap_or_default();
        let Flags { count, timeout, .. } = flags;
        Err(format!("{failed} of {count} messages were not acknowledged within {timeout} s; the first error: {reason}")
            .into())
    }
}

pub async fn big(flags: Flags, runtime: Runtime) -> Outcome<()> {
    // Compressed, a row of x would be small; the size must arrive as it is.
    let size = u32::try_from(flags.size)?;
    let mut producer = DefaultMQProducer::builder(runtime)
        .client_config(client_config(&flags))
        .producer_group(flags.group.clone())
        .max_message_size(size + 1)
        .compress_msg_body_over_howmuch(size + 1)
        .build();
    producer.start().await.map_err(text_of)?;
    let message = Message::builder().topic(flags.topic.as_str()).body(vec![b'x'; flags.size]).build_unchecked();
    let result = producer.send_with_timeout(message, 15_000).await;
    producer.shutdown().await;
    match result {
        Ok(Some(result)) if result.send_status == SendStatus::SendOk => {
            print(&json!({"status": "ok", "id": result.msg_id.as_ref().map(|id| id.as_str())}));
            Ok(())
        }
        Ok(result) => Err(format!("no success: {:?}", result.map(|result| result.send_status)).into()),
        Err(error) => match error.broker_response_code() {
            Some(code) => {
                print(&json!({"status": "refused", "code": code, "message": text_of(&error)}));
                Ok(())
            }
            None => Err(text_of(error).into()),
        },
    }
}

pub async fn chinese(mut flags: Flags, runtime: Runtime) -> Outcome<()> {
    flags.count = 1;
    let mut producer = DefaultMQProducer::builder(runtime)
        .client_config(client_config(&flags))
        .producer_group(flags.group.clone())
        .build();
    producer.start().await.map_err(text_of)?;
    let message = Message::builder()
        .topic(flags.topic.as_str())
        .body("你好，世界".as_bytes().to_vec())
        .tags("标签")
        .key("键")
        .raw_property("名", "值")
        .map_err(text_of)?
        .build_unchecked();
    let result: ClientResult<Option<SendResult>> = producer.send(message).await;
    let tally = Tally::default();
    tally.acknowledge(&[0], result.as_ref().map(|result| result.as_ref()));
    producer.shutdown().await;
    tally.finish(&flags)
}
