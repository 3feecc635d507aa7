//! The name server's thread: a small ring of its own, on the same net and protocol rooms as the shards.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::base::{Features, Key};
use crate::command::ConnectionId;
use crate::config::{NameServerSettings, StartError};
use crate::egress::{Egress, Policy};
use crate::io::{
    Bell, Completion, Io, Lanes, Lease, ListenerId, Op, Options, TcpListener, Token, Uring, listen,
    raise_file_limit, read_small, whole,
};
use crate::nameserver::{NameServer, Settings};
use crate::net::{self, Event, Limits, Net};
use crate::protocol::rocketmq::frame::{self, Scratch};

const ROOM: u8 = 6;
const BELL: u64 = 1;
const SAVE: u64 = 2;

/// Expiry is looked at this often.
const TICK_NS: u64 = 1_000_000_000;

/// Connections of a name server at most; every client and every broker holds one.
const CONNECTIONS_MAX: usize = 10_000;

/// How to stop a name server's thread.
pub(super) struct Handle {
    stop: Arc<AtomicBool>,
    bell: Bell,
    thread: std::thread::JoinHandle<()>,
}

impl Handle {
    pub(super) fn stop(self) {
        self.stop.store(true, Ordering::Release);
        self.bell.ring();
        let _ = self.thread.join();
    }
}

/// What a name server runs with.
pub(super) struct Plan {
    pub(super) settings: Settings,
    /// Where the key-value configuration is kept; `None` = in memory only.
    pub(super) kv_path: Option<PathBuf>,
    /// What its ring does without.
    pub(super) without: Features,
}

/// Starts a name server on a thread of its own, not pinned.
pub(super) fn start(plan: Plan, listener: TcpListener, lanes: Lanes) -> Result<Handle, StartError> {
    let stop = Arc::new(AtomicBool::new(false));
    let (ready, started) = std::sync::mpsc::channel();
    let stopping = Arc::clone(&stop);
    let thread = std::thread::Builder::new()
        .name("nameserver".to_owned())
        .spawn(move || match Loop::new(plan, listener, lanes, stopping) {
            Ok(names) => {
                let _ = ready.send(Ok(names.io.bell()));
                names.run();
            }
            Err(error) => {
                let _ = ready.send(Err(error));
            }
        });
    let thread = thread.map_err(|error| {
        StartError::new(
            "start",
            "the name server's thread",
            error,
            "raise the limit of processes",
        )
    })?;
    match started.recv() {
        Ok(Ok(bell)) => Ok(Handle { stop, bell, thread }),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(StartError::new(
            "start",
            "the name server",
            "its thread ended",
            "look at the lines above",
        )),
    }
}

struct Loop {
    io: Uring,
    net: Net,
    egress: Egress,
    server: NameServer,
    kv_path: Option<PathBuf>,
    saving: bool,
    scratch: Scratch,
    stop: Arc<AtomicBool>,
    next_tick_ns: u64,
    events: Vec<Event>,
}

impl Loop {
    fn new(
        plan: Plan,
        listener: TcpListener,
        lanes: Lanes,
        stop: Arc<AtomicBool>,
    ) -> Result<Self, StartError> {
        let mut server = NameServer::new(plan.settings);
        if let Some(path) = &plan.kv_path {
            let bytes = read_small(path).map_err(|error| {
                StartError::new("read", path.display(), error, "make the file readable")
            })?;
            if let Some(bytes) = bytes {
                server.load_kv(&bytes).map_err(|error| {
                    StartError::new(
                        "read",
                        path.display(),
                        error,
                        "put a backup of the file back",
                    )
                })?;
            }
        }
        let options = Options::SMALL.without(plan.without);
        let mut io = Uring::new(options, vec![listener], lanes).map_err(super::start::not_had)?;
        let mut net = Net::new(
            Limits::for_connections(CONNECTIONS_MAX),
            super::start::frame_size,
        );
        net.listen(&mut io, ListenerId(0));
        let pushed = io.push(Token::of(ROOM, BELL), Op::Bell);
        assert!(pushed.is_ok(), "the ring is fresh");
        Ok(Self {
            io,
            net,
            egress: Egress::new(Policy::Auto, 1),
            server,
            kv_path: plan.kv_path,
            saving: false,
            scratch: Scratch::default(),
            stop,
            next_tick_ns: 0,
            events: Vec::new(),
        })
    }

    fn run(mut self) {
        let mut done: Vec<Completion> = Vec::new();
        while !self.stop.load(Ordering::Acquire) || self.saving {
            let wait_ns = self.next_tick_ns.saturating_sub(self.io.now_ns());
            if let Err(errno) = self.io.turn(wait_ns, &mut done) {
                tracing::error!(%errno, "the name server's ring failed; the name server stops");
                return;
            }
            for completion in done.drain(..) {
                match (completion.token.room(), completion.token.rest()) {
                    (net::ROOM, _) => {
                        self.net
                            .complete(&mut self.io, completion, &mut self.events);
                    }
                    (_, SAVE) => {
                        self.saving = false;
                        if let Err(errno) = completion.result {
                            tracing::error!(%errno, "the name server's kvConfig.json could not be written");
                        }
                    }
                    _ => (),
                }
            }
            self.take_events();
            self.tick();
            self.net.flush(&mut self.io, &mut self.egress);
        }
    }

    fn take_events(&mut self) {
        for event in std::mem::take(&mut self.events) {
            match event {
                Event::Opened(_) => (),
                Event::Received(key, lease) => self.receive(key, lease),
                Event::Ended(key) => self.net.close(&mut self.io, key, &mut self.events),
                Event::Closed(key) => self.server.disconnected(ConnectionId(key)),
            }
        }
        for event in std::mem::take(&mut self.events) {
            if let Event::Closed(key) = event {
                self.server.disconnected(ConnectionId(key));
            }
        }
    }

    fn receive(&mut self, key: Key, lease: Lease) {
        let Some(mut frames) = self.net.frames(key, lease) else {
            return;
        };
        let now_ms = self.io.now_ns() / 1_000_000;
        loop {
            let why = match frames.next_frame() {
                Ok(Some(whole)) => match frame::decode(whole.bytes, &mut self.scratch) {
                    Ok(request) if request.is_response() => continue,
                    Ok(request) => {
                        if let Some(out) = self.net.reply(key) {
                            self.server.serve(&request, ConnectionId(key), now_ms, out);
                        }
                        continue;
                    }
                    Err(error) => error.to_string(),
                },
                Ok(None) => break,
                Err(why) => why,
            };
            return self
                .net
                .break_off(&mut self.io, key, &why, &mut self.events);
        }
        self.net
            .keep(&mut self.io, key, &mut frames, &mut self.events);
        self.net.hold_back(&mut self.io, key);
    }

    fn tick(&mut self) {
        let now_ns = self.io.now_ns();
        if self.next_tick_ns <= now_ns {
            self.next_tick_ns = now_ns + TICK_NS;
            self.server.tick(now_ns / 1_000_000);
            self.net.sweep(&mut self.io, &mut self.events);
        }
        if !self.saving
            && let Some(path) = &self.kv_path
            && let Some(bytes) = self.server.take_dirty_kv()
        {
            self.saving = true;
            let op = Op::Replace {
                path: path.clone(),
                content: whole(bytes),
                backup: None,
            };
            let pushed = self.io.push(Token::of(ROOM, SAVE), op);
            assert!(pushed.is_ok(), "one file fits the ring");
        }
    }
}

/// `corelane nameserver`: a name server alone, until a signal comes.
///
/// # Errors
/// It could not start.
pub fn serve(settings: &NameServerSettings) -> Result<std::process::ExitCode, StartError> {
    raise_file_limit();
    let address = std::net::SocketAddr::new(settings.bind, settings.port);
    let listener = listen(address).map_err(super::start::not_had)?;
    let lanes = Lanes::start().map_err(|error| {
        StartError::new(
            "start",
            "helper threads",
            error,
            "raise the limit of processes",
        )
    })?;
    let plan = Plan {
        settings: Settings {
            bind_address: settings.bind.to_string(),
            port: settings.port,
            ..Settings::default()
        },
        kv_path: None,
        without: Features::NONE,
    };
    let mut signals = super::start::signals()?;
    let handle = start(plan, listener, lanes)?;
    // Whoever started this may have closed its end.
    let _ = writeln!(
        std::io::stdout(),
        "corelane is ready: name server {address}"
    );
    let _ = signals.forever().next();
    handle.stop();
    tracing::info!("stopped");
    Ok(std::process::ExitCode::SUCCESS)
}
