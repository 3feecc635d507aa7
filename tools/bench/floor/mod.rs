//! The physical limit: one thread that takes frames apart and answers as RocketMQ would, and of a
//! broker's work does one part.

mod answer;
mod append;
mod deliver;
#[cfg(test)]
mod tests;

use crate::net::{EngineKind, LISTENER, Net, Wait};
use crate::{Outcome, clock, fail};
use answer::Answerer;
use append::{Store, Way};
use std::io::{ErrorKind, IoSlice};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Kind {
    /// Answer each send at once
    Echo,
    /// Write what a turn received with one call, then answer. As for a broker, files of
    /// --file-mib are reserved (fallocate) ahead by another thread, every write meets fresh
    /// pages, and the last four files are kept, so that the kernel has as much to write back
    Append,
    /// Write what a turn received over a zero-filled, synced file, fdatasync, then answer; at the
    /// file's end it begins anew, or goes on in another one with --fresh
    Flush,
    /// Answer pulls with records by sendfile: those of a queue stand one behind the other
    Sendfile,
    /// Answer pulls with records by one vectored send from a read-only map: those of all queues
    /// stand interleaved, as in the log of a broker
    Gather,
}

#[derive(clap::Args, Clone)]
pub struct Options {
    /// What it does
    pub kind: Kind,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:27901", value_parser = crate::load::address)]
    pub addr: SocketAddr,
    /// CPU to pin the server on
    #[arg(long)]
    pub cpu: Option<usize>,
    /// How bytes move (echo, append, flush)
    #[arg(long, value_enum, default_value_t = EngineKind::Auto)]
    pub engine: EngineKind,
    /// A file that must be new and is gone when the server ends, on the file system to be
    /// measured; all but echo need it
    #[arg(long)]
    pub file: Option<PathBuf>,
    /// Size of a file, MiB; append takes the room of eight of them
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(8..=1 << 20))]
    pub file_mib: u64,
    /// Write no byte twice, as a log that never overwrites: further files are filled with zeros and
    /// synced by another thread, which has its price too (flush)
    #[arg(long)]
    pub fresh: bool,
    /// Topic of the records (sendfile, gather)
    #[arg(long, default_value = "bench", value_parser = crate::load::topic)]
    pub topic: String,
    /// Queues of the topic (sendfile, gather)
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub queues: u32,
    /// Bytes of a body (sendfile, gather)
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(crate::check::FIELDS_SIZE as i64..=1 << 20))]
    pub size: u32,
    /// End after that many seconds; 0 runs until a signal comes
    #[arg(long, default_value_t = 0.0)]
    pub duration: f64,
    /// Stand still for that many milliseconds once: a generator that does not show it is wrong
    #[arg(long, default_value_t = 0)]
    pub stall_ms: u64,
    /// The stall comes that many milliseconds after the first send request
    #[arg(long, default_value_t = 1000)]
    pub stall_after_ms: u64,
}

impl Options {
    fn way(&self) -> Way {
        match (self.kind, self.fresh) {
            (Kind::Flush, true) => Way::FlushFresh,
            (Kind::Flush, false) => Way::Flush,
            _ => Way::Append,
        }
    }
}

const CONNECTIONS_MAX: usize = 10_000;
const TURN: Wait = Wait::Sleep { ns: 100_000_000 };

struct Floor {
    net: Net,
    listener: TcpListener,
    store: Option<Store>,
    answerer: Answerer,
}

impl Floor {
    fn accept(&mut self) -> Outcome<()> {
        while let Ok((socket, _)) = self.listener.accept() {
            if self.net.count() < CONNECTIONS_MAX {
                self.net.add(socket)?;
            }
        }
        Ok(())
    }

    /// Receives, writes, answers: each for all ready connections, then the next.
    fn turn(&mut self, ready: &[usize], received: &mut Vec<(usize, usize)>) -> Outcome<()> {
        received.clear();
        for token in ready {
            if *token == LISTENER {
                self.accept()?;
                continue;
            }
            if !self.net.has(*token) {
                continue;
            }
            match self.net.receive(*token) {
                Ok(Some(count)) => received.push((*token, count)),
                // A generator that left is no reason to end.
                Ok(None) | Err(_) => self.net.remove(*token),
            }
        }
        if let Some(store) = &mut self.store {
            let net = &self.net;
            let slices: Vec<IoSlice<'_>> = received
                .iter()
                .filter(|(_, count)| 0 < *count)
                .map(|(token, count)| IoSlice::new(net.last_received(*token, *count)))
                .collect();
            if !slices.is_empty() {
                store.write(&slices)?;
            }
        }
        for (token, _) in received {
            if self.reply(*token).is_err() {
                self.net.remove(*token);
            }
        }
        Ok(())
    }

    fn reply(&mut self, token: usize) -> Outcome<()> {
        let connection = self.net.connection(token);
        let mut out = std::mem::take(&mut connection.out);
        let mut outcome = Ok(());
        while let Some(frame) = connection.next_frame()? {
            outcome = self.answerer.answer(&frame, &mut out);
            if outcome.is_err() {
                break;
            }
        }
        connection.out = out;
        outcome?;
        self.net.send(token)
    }
}

pub fn run(options: &Options) -> Outcome<()> {
    if !options.duration.is_finite() || options.duration < 0.0 {
        return fail("--duration is seconds, or 0 to run until a signal comes");
    }
    let path = match (&options.file, options.kind) {
        (_, Kind::Echo) => None,
        (Some(path), _) => Some(path.as_path()),
        (None, kind) => {
            return fail(format!(
                "{kind:?} needs --file: a path on the file system to be measured"
            ));
        }
    };
    // Filled before it listens: who can connect is served.
    let bind = || match TcpListener::bind(options.addr) {
        Ok(listener) => {
            let addr = listener.local_addr()?;
            let kind = options.kind;
            eprintln!("floor {kind:?} on {addr}, process {}", std::process::id());
            Ok(listener)
        }
        Err(error) => fail(format!(
            "cannot listen on {}: {error}; choose another port with --addr, or end who listens there (`ss -ltnp` names it)",
            options.addr
        )),
    };
    match (path, options.kind) {
        (Some(path), Kind::Sendfile | Kind::Gather) => {
            let records = deliver::Records::write(options, path)?;
            deliver::serve(options, bind()?, &records)
        }
        (Some(path), _) => {
            let store = Store::open(path, options.file_mib << 20, options.way())?;
            serve(options, bind()?, Some(store))
        }
        (None, _) => serve(options, bind()?, None),
    }
}

/// Why a file could not be made, and what to do.
fn unmade(path: &Path, error: &std::io::Error) -> String {
    let advice = match error.kind() {
        ErrorKind::AlreadyExists => "it is not overwritten: choose one that is not there yet",
        ErrorKind::NotFound => "make its folder first, or choose another one",
        _ => "choose another one",
    };
    format!(
        "cannot prepare {}: {error}; {advice} with --file",
        path.display()
    )
}

/// When a server with this option ends.
fn end_ns(options: &Options) -> u64 {
    if 0.0 < options.duration {
        clock::now_ns() + clock::seconds_ns(options.duration)
    } else {
        u64::MAX
    }
}

fn serve(options: &Options, listener: TcpListener, store: Option<Store>) -> Outcome<()> {
    let mut net = Net::new(options.engine)?;
    net.listen(&listener)?;
    let mut floor = Floor {
        net,
        listener,
        store,
        answerer: Answerer::new(),
    };
    let end_ns = end_ns(options);
    let (mut first_ns, mut is_stalled) = (None, options.stall_ms == 0);
    let (mut ready, mut received) = (Vec::new(), Vec::new());
    while clock::now_ns() < end_ns {
        floor.net.wait(TURN, &mut ready)?;
        floor.turn(&ready, &mut received)?;
        if !is_stalled && 0 < floor.answerer.requests {
            let now_ns = clock::now_ns();
            let first_ns = *first_ns.get_or_insert(now_ns);
            if first_ns + options.stall_after_ms * 1_000_000 <= now_ns {
                is_stalled = true;
                std::thread::sleep(Duration::from_millis(options.stall_ms));
            }
        }
    }
    Ok(())
}
