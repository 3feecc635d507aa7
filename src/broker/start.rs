//! Starting a process of shards in order, and stopping it in order.

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::control::{Control, Mailbox, Report};
use super::launch::{Starting, identity, store_host};
use super::layout::lay_out;
use super::names;
use super::registration::Registrar;
use super::writing::existing;
use crate::base::{Feature, Features, ShardId};
use crate::config::{Egress, NameServers, Settings, StartError};
use crate::io::{Lanes, SetupError, files_in_force, in_force, listen, raise_file_limit, try_files};
use crate::protocol::rocketmq::frame;

/// Descriptors besides connections: segments, rings, listeners, what others open.
const FILES_RESERVED: u64 = 1024;

/// A stop in order takes at most this long.
const STOP_MAX: Duration = Duration::from_secs(5);

/// Exit code after a storage error.
const EXIT_FAILED: u8 = 3;
/// Exit code after a second signal.
const EXIT_AT_ONCE: i32 = 130;

/// Says how long a frame is, for net.
pub(super) fn frame_size(bytes: &[u8]) -> Result<Option<usize>, String> {
    frame::frame_size(bytes).map_err(|error| error.to_string())
}

/// Why something of the machine could not be had, as an error of the start.
pub(super) fn not_had(error: SetupError) -> StartError {
    StartError::new(error.doing, "", error.cause, error.remedy)
}

/// Watches for SIGTERM and SIGINT.
pub(super) fn signals() -> Result<Signals, StartError> {
    Signals::new([SIGTERM, SIGINT])
        .map_err(|error| StartError::new("watch for", "signals", error, "see the cause"))
}

/// Runs the broker until it is stopped.
///
/// # Errors
/// It could not start; nothing runs any more then.
pub fn serve(mut settings: Settings) -> Result<ExitCode, StartError> {
    let file_limit = raise_file_limit();
    let layout = lay_out(&settings)?;
    settings.check_ports(layout.shard_count)?;
    let of_ring = look_at_rings(&settings)?;
    settings.egress = egress_had(&settings, of_ring);
    look_at_files(&settings);
    let lanes = Lanes::start().map_err(|error| {
        StartError::new(
            "start",
            "helper threads",
            error,
            "raise the limit of processes",
        )
    })?;
    let (reports, inbox) = channel();
    forward_signals(reports.clone())?;
    let bind = settings.addresses.bind;
    let (names_handle, addresses) = match &settings.name_servers {
        NameServers::Embedded { port } => {
            let address = SocketAddr::new(bind, *port);
            let handle = start_names(&settings, address, &lanes)?;
            // The embedded name server is reached where it listens.
            let ip = if bind.is_unspecified() {
                settings.addresses.advertised
            } else {
                bind
            };
            (Some(handle), vec![SocketAddr::new(ip, *port).to_string()])
        }
        NameServers::List(list) => (None, list.clone()),
    };
    let shards: Vec<ShardId> = (0..layout.shard_count)
        .map(|shard| ShardId(shard as u8))
        .collect();
    let identities = shards
        .iter()
        .map(|shard| identity(&settings, &layout, *shard))
        .collect();
    let registrar = Registrar::start(addresses.clone(), identities, settings.registers_all);
    let registrar = Arc::new(registrar);
    let mailboxes: Vec<Mailbox> = shards.iter().map(|_| Mailbox::default()).collect();
    let connections_max =
        (file_limit.saturating_sub(FILES_RESERVED) / u64::from(layout.shard_count + 1)).max(64);
    let started = Starting {
        settings: &settings,
        layout: &layout,
        lanes: &lanes,
        mailboxes: &mailboxes,
        registrar: &registrar,
        reports: &reports,
        connections_max: usize::try_from(connections_max).unwrap_or(usize::MAX),
    }
    .start(&shards, &inbox);
    if let Err(error) = started {
        registrar.stop();
        return Err(error);
    }
    announce(&settings, &addresses, &shards);
    let code = supervise(&inbox, &mailboxes, &registrar);
    if let Some(handle) = names_handle {
        handle.stop();
    }
    Ok(code)
}

/// Says where clients find what has started. Whoever started it may have closed its end: no reason to end.
fn announce(settings: &Settings, name_servers: &[String], shards: &[ShardId]) {
    let nameserver = name_servers.join(";");
    let brokers: Vec<String> = shards
        .iter()
        .map(|shard| store_host(settings, *shard).to_string())
        .collect();
    let _ = writeln!(
        std::io::stdout(),
        "corelane is ready: name server {nameserver}, brokers {}",
        brokers.join(" ")
    );
}

/// That there can be rings, and what they have, said once for all of them.
fn look_at_rings(settings: &Settings) -> Result<Features, StartError> {
    let (line, used) = in_force(settings.without).map_err(not_had)?;
    tracing::info!("{line}");
    Ok(used)
}

/// How messages leave: as asked, or what stands in for it and is counted under its own name. Only send-zc wants
/// what not every ring has; a gather is the same call and copies.
fn egress_had(settings: &Settings, of_ring: Features) -> Egress {
    if settings.egress != Egress::SendZc || of_ring.has(Feature::SendZc) {
        return settings.egress;
    }
    let (why, remedy) = if settings.without.has(Feature::SendZc) {
        (
            format!("{} masks it", settings.quote("kernelWithout")),
            "take send-zc out of the mask",
        )
    } else {
        (
            "this kernel does not have it".to_owned(),
            "boot Linux 6.1 or newer",
        )
    };
    tracing::warn!(
        "{} has no meaning here, {why}: gather is used, which copies; {remedy}, or set egress=gather",
        settings.quote("egress")
    );
    Egress::Gather
}

/// Likewise of the files of the logs: what reads of messages that are not in memory can do.
fn look_at_files(settings: &Settings) {
    let folder = existing(&settings.store.paths(Some(ShardId(0))).commit_log);
    let trial = match try_files(&folder) {
        Ok(trial) => trial,
        // Each file is asked again when it is used.
        Err(error) => {
            tracing::warn!(%error, folder = %folder.display(), "files: what they can do is not known yet");
            return;
        }
    };
    let (line, used) = files_in_force(&trial, settings.without);
    tracing::info!("{line}");
    if !used.has(Feature::DirectIo) && !used.has(Feature::Dontcache) {
        tracing::warn!(
            "messages that are not in memory are read through the page cache, where they may take the place of \
             those that are: put the store on a file system with direct I/O (ext4, XFS)"
        );
    }
}

fn forward_signals(reports: Sender<Report>) -> Result<(), StartError> {
    let mut signals = signals()?;
    let spawned = std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for (count, signal) in signals.forever().enumerate() {
                if 0 < count {
                    // Somebody is in a hurry; the next start walks the log.
                    std::process::exit(EXIT_AT_ONCE);
                }
                let _ = reports.send(Report::Signal(signal));
            }
        });
    spawned.map(|_| ()).map_err(|error| {
        StartError::new(
            "start",
            "the signal thread",
            error,
            "raise the limit of processes",
        )
    })
}

fn start_names(
    settings: &Settings,
    address: SocketAddr,
    lanes: &Lanes,
) -> Result<names::Handle, StartError> {
    let listener = listen(address).map_err(not_had)?;
    let plan = names::Plan {
        settings: crate::nameserver::Settings {
            bind_address: address.ip().to_string(),
            port: address.port(),
            ..crate::nameserver::Settings::default()
        },
        kv_path: Some(settings.store.root.join("kvConfig.json")),
        without: settings.without,
    };
    names::start(plan, listener, lanes.clone())
}

/// Waits for a signal or a failure and ends the shards.
fn supervise(inbox: &Receiver<Report>, mailboxes: &[Mailbox], registrar: &Registrar) -> ExitCode {
    let mut stopped = 0;
    let mut deadline: Option<Instant> = None;
    loop {
        let report = match deadline {
            None => inbox.recv().ok(),
            Some(deadline) => inbox
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
                .ok(),
        };
        match report {
            None => {
                tracing::warn!("not every shard has stopped in time");
                return ExitCode::SUCCESS;
            }
            Some(Report::Signal(signal)) => {
                tracing::info!(signal, "stopping");
                deadline = Some(Instant::now() + STOP_MAX);
                registrar.stop();
                mailboxes
                    .iter()
                    .for_each(|mailbox| mailbox.post(Control::Stop));
            }
            Some(Report::Failed { shard, why }) => {
                tracing::error!(
                    %shard,
                    why,
                    "a shard has failed: nothing is acknowledged any more, the process ends; where its storage \
                     failed, look at the disk (dmesg) before it is started again; a panic is a bug: report it with this log"
                );
                registrar.stop();
                return ExitCode::from(EXIT_FAILED);
            }
            Some(Report::Stopped) => {
                stopped += 1;
                if stopped == mailboxes.len() {
                    tracing::info!("stopped");
                    return ExitCode::SUCCESS;
                }
            }
            Some(Report::Ready | Report::Registered | Report::NotStarted(_)) => (),
        }
    }
}
