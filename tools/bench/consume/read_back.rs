//! After a run that sent: what was acknowledged is read once and compared, message by message.

use super::{Depth, Readers, Ways};
use crate::check::Faults;
use crate::drive::Window;
use crate::net::{Net, Wait};
use crate::producer::Producer;
use crate::reader::Reader;
use crate::{Load, Outcome, clock, fail, signals};

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum ReadBack {
    /// Every message: its sequence and its checksum
    All,
    /// Nothing: only how far the queues grew is compared
    None,
}

const STANDSTILL_NS: u64 = 10 * clock::SECOND_NS;

/// What was found between two offsets.
#[derive(Default)]
pub struct Read {
    pub faults: Faults,
    /// Messages of other runs.
    pub foreign: u64,
}

/// Reads the lanes once between two offsets and compares with what a producer saw acknowledged; none
/// where a signal ended it.
pub fn read_back(
    load: &Load,
    from: &[u64],
    to: &[u64],
    producer: &Producer,
) -> Outcome<Option<Read>> {
    let mut net = Net::new(load.engine)?;
    // So many lanes at once; many topics have more than one request can name.
    let together = crate::wire::SLOTS_MAX as usize - 1;
    let mut read = Read::default();
    let lanes: Vec<u32> = (0..load.lanes())
        .filter(|lane| from[*lane as usize] < to[*lane as usize])
        .collect();
    for some in lanes.chunks(together) {
        let Some(part) = read_some(load, &mut net, some, (from, to), producer)? else {
            return Ok(None);
        };
        read.faults.add(part.faults);
        read.foreign += part.foreign;
    }
    let is_read = |lane: u32| from[lane as usize] < to[lane as usize];
    // A lane that did not grow at all has nothing to read, and all that was sent to it is lost.
    let of_empty = producer
        .streams()
        .filter(|(lane, _, _)| !is_read(*lane))
        .map(|(_, _, next)| next);
    read.faults.lost += of_empty.sum::<u64>();
    Ok(Some(read))
}

fn read_some(
    load: &Load,
    net: &mut Net,
    lanes: &[u32],
    (from, to): (&[u64], &[u64]),
    producer: &Producer,
) -> Outcome<Option<Read>> {
    let reader = |lane: &u32| {
        let at = *lane as usize;
        Reader::new(load, 0, *lane, (from[at], Some(to[at])), false).of_run(producer.run)
    };
    let ways = Ways {
        depth: Depth::Every,
        suspend_ms: 0,
        repeats: false,
        count_max: 256,
        bytes_max: None,
        rate: 0.0,
        begin_s: None,
    };
    let readers = lanes.iter().map(reader).collect();
    let mut readers = Readers::connect(load, net, lanes.len().min(16), readers, ways)?;
    readers.start(net, Window::default())?;
    let owner = |readers: &Readers, token| readers.tokens().iter().position(|at| *at == token);
    let (mut progress_ns, mut messages) = (clock::now_ns(), 0);
    let mut ready = Vec::new();
    while !readers.is_done() {
        if signals::is_told() {
            return Ok(None);
        }
        net.wait(Wait::Sleep { ns: 10_000_000 }, &mut ready)?;
        let now_ns = clock::now_ns();
        for token in &ready {
            let Some(connection) = owner(&readers, *token) else {
                continue;
            };
            if net.receive(*token)?.is_none() {
                let how = " while messages were read back";
                return fail(net.connection(*token).broken_words(how));
            }
            readers.on_ready(net, connection, now_ns, Window::default(), |_, _| {})?;
        }
        if messages < readers.counts.messages {
            messages = readers.counts.messages;
            progress_ns = now_ns;
        }
        if progress_ns + STANDSTILL_NS < now_ns {
            return fail(format!(
                "reading back stands still at {messages} messages; answers by code: {:?}",
                readers.errors
            ));
        }
    }
    let mut faults = readers.faults();
    let of_these = producer
        .streams()
        .filter(|(lane, _, _)| lanes.binary_search(lane).is_ok());
    faults.lost += readers.missing(producer.run, of_these);
    Ok(Some(Read {
        faults,
        foreign: readers.foreign(),
    }))
}
