//! Read into a buffer of ours, send the buffer: the way that every kernel knows, to compare the others with;
//! and the sending of what a cold delivery has put together.

use super::choice::Way;
use super::delivery::{Sending, Stage, Step};
use crate::io::{Completion, Errno, Io, Op, Payload};

/// Read and sent at once: a bound on the memory that one delivery takes.
pub(super) const CHUNK: u32 = 256 << 10;

pub(super) fn push_read(sending: &mut Sending, io: &mut impl Io) -> Step {
    let span = *sending.spans.front().expect("something is left");
    let len = span.len.min(CHUNK);
    if !sending.is_there(io, span, len) {
        return Step::Cold;
    }
    sending.stage = Stage::Read;
    let into = vec![0; len as usize];
    sending.push(
        io,
        Op::Read {
            file: span.file,
            at: span.at,
            into,
        },
    );
    Step::Busy
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
        sending.piece = count;
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
    let mut left = std::mem::take(&mut sending.piece) as u64;
    while 0 < left {
        let len = sending.spans.front().map_or(0, |span| span.len);
        let count = left.min(u64::from(len));
        sending.advance(count as u32);
        left -= count;
    }
    if sending.spans.is_empty() {
        return Ok(Step::Sent);
    }
    if sending.way == Way::Cold {
        return Ok(Step::Cold);
    }
    Ok(push_read(sending, io))
}

/// Sends a buffer of which the last [`Sending::piece`] bytes are of the spans.
pub(super) fn push_send(sending: &mut Sending, io: &mut impl Io, from: Vec<u8>, skip: usize) {
    sending.stage = Stage::SendCopy;
    let more = sending.piece as u64 + sending.skip < sending.left();
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
