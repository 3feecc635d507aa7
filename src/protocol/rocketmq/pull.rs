//! Pulling: 11, 361 and their answer (P§2.2).

use crate::command::{Command, Fetch, FetchStatus, Fetched, Refusal};

use super::codes::{request, response};
use super::frame::{Request, encode_response};

/// Bits of a pull's sys flag.
mod sys_flag {
    pub(super) const COMMIT_OFFSET: i32 = 1;
    pub(super) const SUSPEND: i32 = 2;
    pub(super) const SUBSCRIPTION: i32 = 4;
}

/// 11, 361.
pub(super) fn fetch<'a>(request: &Request<'a>) -> Result<Command<'a>, Refusal> {
    let sys_flag: i32 = request.number("sysFlag")?;
    let commit = request.number_if_any("commitOffset")?;
    let suspend_ms: Option<i64> = request.number_if_any("suspendTimeoutMillis")?;
    let own_subscription = sys_flag & sys_flag::SUBSCRIPTION != 0;
    Ok(Command::Fetch(Fetch {
        group: request.text("consumerGroup")?,
        topic: request.text("topic")?,
        queue_id: request.number("queueId")?,
        from: request.number("queueOffset")?,
        count_max: request.number("maxMsgNums")?,
        bytes_max: request.number_if_any("maxMsgBytes")?,
        commit: commit.filter(|_| sys_flag & sys_flag::COMMIT_OFFSET != 0),
        suspend_ms: suspend_ms
            .filter(|_| sys_flag & sys_flag::SUSPEND != 0)
            .map(|ms| u64::try_from(ms).unwrap_or(0)),
        // Go sends an empty expression without the bit: that is not "everything".
        subscription: own_subscription.then(|| request.text_if_any("subscription").unwrap_or("*")),
        expression_type: request
            .text_if_any("expressionType")
            .filter(|_| own_subscription),
        subscription_version: request.number_if_any("subVersion")?.unwrap_or(0),
        lite: request.code == request::LITE_PULL_MESSAGE,
    }))
}

/// Response code and remark of an outcome: the remark is the name of Apache's store status.
const fn outcome(fetched: &Fetched) -> (i32, &'static str) {
    let empty = if fetched.from == 0 {
        response::PULL_NOT_FOUND
    } else {
        response::PULL_OFFSET_MOVED
    };
    match fetched.status {
        FetchStatus::Found => (response::SUCCESS, "FOUND"),
        FetchStatus::NoMatchedMessage => (response::PULL_RETRY_IMMEDIATELY, "NO_MATCHED_MESSAGE"),
        FetchStatus::MessageWasRemoving => {
            (response::PULL_RETRY_IMMEDIATELY, "MESSAGE_WAS_REMOVING")
        }
        FetchStatus::OffsetFoundNull => (response::PULL_NOT_FOUND, "OFFSET_FOUND_NULL"),
        FetchStatus::OffsetOverflowBadly => (response::PULL_OFFSET_MOVED, "OFFSET_OVERFLOW_BADLY"),
        FetchStatus::OffsetOverflowOne => (response::PULL_NOT_FOUND, "OFFSET_OVERFLOW_ONE"),
        FetchStatus::OffsetTooSmall => (response::PULL_OFFSET_MOVED, "OFFSET_TOO_SMALL"),
        FetchStatus::NoMatchedLogicQueue => (empty, "NO_MATCHED_LOGIC_QUEUE"),
        FetchStatus::NoMessageInQueue => (empty, "NO_MESSAGE_IN_QUEUE"),
        FetchStatus::OffsetReset => (response::PULL_OFFSET_MOVED, "OFFSET_RESET"),
    }
}

/// The answer to a pull up to its body: the records of its spans follow from elsewhere.
pub(super) fn fetched(out: &mut Vec<u8>, note: u64, fetched: &Fetched) {
    let (code, remark) = outcome(fetched);
    let body_size = fetched.spans.iter().map(|span| span.len as usize).sum();
    let mut next = itoa::Buffer::new();
    let mut min = itoa::Buffer::new();
    let mut max = itoa::Buffer::new();
    // Java unboxes the first four of these whatever the code is: a missing one stalls its queue.
    let fields = [
        ("suggestWhichBrokerId", "0"),
        ("nextBeginOffset", next.format(fetched.next)),
        ("minOffset", min.format(fetched.min)),
        ("maxOffset", max.format(fetched.max)),
        ("groupSysFlag", "0"),
        ("topicSysFlag", "0"),
    ];
    encode_response(out, note, code, Some(remark), &fields, body_size);
}

/// A refused pull: 16 says who forbids it.
pub(super) fn refused(out: &mut Vec<u8>, note: u64, code: i32, refusal: &Refusal) {
    let mut buffer = itoa::Buffer::new();
    let remark = Some(refusal.text.as_str());
    match refusal.forbidden_by {
        Some(by) => {
            let fields = [("forbiddenType", buffer.format(by))];
            encode_response(out, note, code, remark, &fields, 0);
        }
        None => encode_response(out, note, code, remark, &[], 0),
    }
}
