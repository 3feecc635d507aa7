//! The floor's answers, of the size that RocketMQ's have.

use crate::Outcome;
use crate::wire::{self, Answers, SEND_BATCH_ITEM_HEAD};
use std::io::Write;

/// Answers of the size that RocketMQ's have.
pub struct Answerer {
    answers: Answers,
    header: Vec<u8>,
    pub requests: u64,
}

const MESSAGE_ID: &str = "7F00000100002AF900000000000041AF";

impl Answerer {
    pub fn new() -> Answerer {
        Answerer {
            answers: Answers::new(None),
            header: Vec::new(),
            requests: 0,
        }
    }

    pub fn answer(&mut self, frame: &wire::Frame<'_>, out: &mut Vec<u8>) -> Outcome<()> {
        let (code, opaque) = self.answers.read(frame.header)?;
        let mut digits = itoa::Buffer::new();
        self.header.clear();
        match code {
            wire::SEND | wire::SEND_BATCH | 10 => {
                self.requests += 1;
                self.header.extend_from_slice(
                    b"{\"code\":0,\"extFields\":{\"queueId\":\"0\",\"transactionId\":\"FD0000000000000000000000000000021C4D4E0E2F2A685FFB920000\",\"msgId\":\"",
                );
                for index in 0..messages(code, frame.body) {
                    if 0 < index {
                        self.header.push(b',');
                    }
                    self.header.extend_from_slice(MESSAGE_ID.as_bytes());
                }
                self.header.extend_from_slice(
                    b"\",\"TRACE_ON\":\"true\",\"MSG_REGION\":\"DefaultRegion\",\"queueOffset\":\"1000000\"},\"flag\":1,\"language\":\"JAVA\",\"opaque\":",
                );
            }
            wire::CREATE_TOPIC => write!(
                self.header,
                "{{\"code\":0,\"flag\":1,\"language\":\"JAVA\",\"opaque\":"
            )?,
            _ => write!(
                self.header,
                "{{\"code\":3,\"remark\":\"the floor only takes messages\",\"flag\":1,\"language\":\"JAVA\",\"opaque\":"
            )?,
        }
        self.header
            .extend_from_slice(digits.format(opaque).as_bytes());
        self.header
            .extend_from_slice(b",\"serializeTypeCurrentRPC\":\"JSON\",\"version\":513}");
        wire::put_frame(out, &self.header, &[]);
        Ok(())
    }
}

/// Messages of a request: a batch is walked by the sizes of its items.
fn messages(code: i32, body: &[u8]) -> usize {
    if code != wire::SEND_BATCH {
        return 1;
    }
    let mut rest = body;
    let mut count = 0;
    while let Some(size) = rest.get(..4) {
        let size = u32::from_be_bytes(size.try_into().expect("four bytes")) as usize;
        let Some(tail) = rest.get(size.max(SEND_BATCH_ITEM_HEAD)..) else {
            break;
        };
        rest = tail;
        count += 1;
    }
    count
}
