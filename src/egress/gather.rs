//! Head and scattered records in one sendmsg from a read-only map; with or without the kernel copying them.

use super::choice::Way;
use super::delivery::{Sending, Stage, Step};
use crate::io::{Completion, Errno, Io, Op, Payload};

pub(super) fn push(sending: &mut Sending, io: &mut impl Io) {
    sending.stage = Stage::Spans;
    let op = Op::Gather {
        socket: sending.socket,
        head: std::mem::take(&mut sending.head),
        spans: std::mem::take(&mut sending.spans).into(),
        skip: sending.skip,
        hot: sending.hot,
        zero_copy: sending.way == Way::SendZc,
    };
    sending.told = false;
    sending.push(io, op);
}

pub(super) fn complete(
    sending: &mut Sending,
    io: &mut impl Io,
    done: Completion,
) -> Result<Step, Errno> {
    if done.more {
        // The kernel has taken the bytes and still looks at them. Who has no more to send need not wait.
        sending.told = true;
        sending.skip += u64::from(done.result?);
        return Ok(if sending.skip == sending.total {
            Step::Sent
        } else {
            Step::Busy
        });
    }
    let Payload::Gathered(head, spans) = done.payload else {
        unreachable!("a gather gives back what it borrowed")
    };
    sending.head = head;
    sending.spans = spans.into();
    match done.result {
        Ok(_) if sending.told => (),
        // A page that cannot be read is met again by the read that follows, which says why.
        Err(Errno::EAGAIN | Errno::EFAULT) => {
            leave_gathering(sending);
            return Ok(Step::Cold);
        }
        Ok(0) => return Err(Errno::EPIPE),
        Ok(count) => sending.skip += u64::from(count),
        Err(errno) => return Err(errno),
    }
    if sending.left() == 0 {
        return Ok(Step::Sent);
    }
    push(sending, io);
    Ok(Step::Busy)
}

/// What was sent of head and spans is taken off both, for a way that knows no `skip`.
fn leave_gathering(sending: &mut Sending) {
    let head_len = sending.head.len() as u64;
    sending.head_sent = sending.skip.min(head_len) as usize;
    let mut sent = sending.skip.saturating_sub(head_len);
    sending.skip = 0;
    while 0 < sent {
        let len = sending.spans.front().map_or(0, |span| span.len);
        let count = sent.min(u64::from(len));
        sending.advance(count as u32);
        sent -= count;
    }
}
