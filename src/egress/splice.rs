//! File to pipe, pipe to socket: the bytes never enter the broker.

use super::choice::Way;
use super::copy;
use super::delivery::{Sending, Stage, Step};
use crate::io::{Completion, End, Errno, Io, Op, PipeId};

/// What a pipe holds at least (see `io`: pipes are enlarged where the machine allows).
const PIPE_SIZE: u32 = 64 << 10;

fn pipe(sending: &Sending) -> PipeId {
    sending.pipe.expect("a splicing delivery has its pipe")
}

pub(super) fn push_fill(sending: &mut Sending, io: &mut impl Io) -> Step {
    let span = *sending.spans.front().expect("something is left");
    let len = span.len.min(PIPE_SIZE);
    if !sending.is_there(io, span, len) {
        return Step::Cold;
    }
    sending.stage = Stage::Fill;
    let op = Op::Splice {
        from: End::File {
            file: span.file,
            at: span.at,
        },
        to: End::Pipe(pipe(sending)),
        len,
        more: false,
    };
    sending.push(io, op);
    Step::Busy
}

fn push_drain(sending: &mut Sending, io: &mut impl Io, in_pipe: u32) {
    sending.stage = Stage::Drain { in_pipe };
    let more = sending.left() > u64::from(in_pipe);
    let op = Op::Splice {
        from: End::Pipe(pipe(sending)),
        to: End::Socket(sending.socket),
        len: in_pipe,
        more,
    };
    sending.push(io, op);
}

pub(super) fn complete(
    sending: &mut Sending,
    io: &mut impl Io,
    done: Completion,
) -> Result<Step, Errno> {
    let count = match done.result {
        // The process has no descriptors left for a pipe: a copy needs none.
        Err(Errno::EMFILE | Errno::ENFILE) if sending.stage == Stage::Fill => {
            sending.way = Way::Copy;
            return Ok(copy::push_read(sending, io));
        }
        result => result?,
    };
    if count == 0 {
        return Err(Errno::EIO);
    }
    match sending.stage {
        Stage::Fill => push_drain(sending, io, count),
        Stage::Drain { in_pipe } => {
            sending.advance(count);
            if count < in_pipe {
                push_drain(sending, io, in_pipe - count);
            } else if sending.spans.is_empty() {
                sending.stage = Stage::Drain { in_pipe: 0 };
                return Ok(Step::Sent);
            } else {
                return Ok(push_fill(sending, io));
            }
        }
        other => unreachable!("{other:?} is not of splicing"),
    }
    Ok(Step::Busy)
}
