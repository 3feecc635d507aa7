//! Page cache to socket inside the kernel, a call per run.

use super::delivery::{Sending, Stage, Step};
use crate::io::{Completion, Errno, Io, Op};

pub(super) fn push(sending: &mut Sending, io: &mut impl Io) {
    sending.stage = Stage::Spans;
    let span = *sending.spans.front().expect("something is left");
    let (socket, hot) = (sending.socket, sending.hot);
    sending.push(io, Op::SendFile { socket, span, hot });
}

pub(super) fn complete(
    sending: &mut Sending,
    io: &mut impl Io,
    done: Completion,
) -> Result<Step, Errno> {
    match done.result {
        Err(Errno::EAGAIN) => return Ok(Step::Cold),
        // The file ends before the span does: it was cut short by somebody else.
        Ok(0) => return Err(Errno::EIO),
        Ok(count) => sending.advance(count),
        Err(errno) => return Err(errno),
    }
    if sending.spans.is_empty() {
        return Ok(Step::Sent);
    }
    push(sending, io);
    Ok(Step::Busy)
}
