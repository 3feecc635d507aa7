//! Read into a buffer of ours, send the buffer: for ranges that the page cache does not hold.

use super::delivery::{Sending, Stage, Step};
use crate::io::{Completion, Errno, Io, Op, Payload};

/// Read at once: a large sequential read, and a bound on the memory that a cold consumer takes.
const CHUNK: u32 = 256 << 10;

pub(super) fn push_read(sending: &mut Sending, io: &mut impl Io) {
    sending.stage = Stage::Read;
    let span = *sending.spans.front().expect("something is left");
    let into = vec![0; span.len.min(CHUNK) as usize];
    sending.push(
        io,
        Op::Read {
            file: span.file,
            at: span.at,
            into,
        },
    );
}

pub(super) fn complete(
    sending: &mut Sending,
    io: &mut impl Io,
    done: Completion,
) -> Result<Step, Errno> {
    let Payload::Buffer(mut buffer) = done.payload else {
        unreachable!("reads and sends give their buffer back")
    };
    let count = done.result? as usize;
    if count == 0 {
        return Err(Errno::EIO); // The file or the peer ends before the span does.
    }
    if sending.stage == Stage::Read {
        buffer.truncate(count);
        // A head that a gather could not send travels in front of the first bytes.
        if sending.head_sent < sending.head.len() {
            let head = std::mem::take(&mut sending.head);
            buffer.splice(..0, head[sending.head_sent..].iter().copied());
            sending.head_sent = buffer.len() - count;
        } else {
            sending.head.clear();
            sending.head_sent = 0;
        }
        sending.skip = 0;
        push_send(sending, io, buffer, 0);
        return Ok(Step::Busy);
    }
    let sent = sending.skip as usize + count;
    if sent < buffer.len() {
        sending.skip = sent as u64;
        push_send(sending, io, buffer, sent);
        return Ok(Step::Busy);
    }
    sending.skip = 0;
    sending.advance((buffer.len() - sending.head_sent) as u32);
    sending.head_sent = 0;
    if sending.spans.is_empty() {
        return Ok(Step::Sent);
    }
    Ok(Step::Cold)
}

fn push_send(sending: &mut Sending, io: &mut impl Io, from: Vec<u8>, skip: usize) {
    sending.stage = Stage::SendCopy;
    let more = sending.spans.len() > 1;
    let socket = sending.socket;
    sending.push(
        io,
        Op::Send {
            socket,
            from,
            skip,
            more,
        },
    );
}
