//! The command line of the broker: what was typed, what it means, run.

use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use corelane::cli::{Cli, Command, Doctor, NameServer, Serve, Stats};
use corelane::config::{self, Flag, Host, Note, Settings, StartError};
use corelane::doctor::{self, Shards, Subject};
use corelane::logging;
use tracing::{info, warn};

/// Sets the level of the log where `--log` does not.
const LOG_VARIABLE: &str = "CORELANE_LOG";

/// Could not start.
const EXIT_NOT_STARTED: u8 = 2;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(flags) => serve(&flags),
        Command::NameServer(flags) => nameserver(&flags),
        Command::Doctor(flags) => examine(&flags),
        Command::Stats(flags) => return stats(&flags),
    };
    result.unwrap_or_else(|error| {
        eprintln!("corelane: {error}");
        ExitCode::from(EXIT_NOT_STARTED)
    })
}

fn serve(flags: &Serve) -> Result<ExitCode, StartError> {
    let typed = flags.flags(std::env::var(LOG_VARIABLE).ok());
    let settings = settings(flags.config.as_deref(), &typed)?;
    logging::start(&settings.log);
    for note in &settings.notes {
        match note {
            Note::Warning(text) => warn!("{text}"),
            Note::Info(text) => info!("{text}"),
        }
    }
    if flags.print_config {
        show(&settings.print());
        return Ok(ExitCode::SUCCESS);
    }
    corelane::broker::serve(settings)
}

fn settings(config: Option<&Path>, flags: &[Flag]) -> Result<Settings, StartError> {
    let bytes = match config {
        Some(path) => Some(std::fs::read(path).map_err(|error| {
            let remedy = "name a file that is there and that this user may read";
            StartError::new("read the configuration in", path.display(), error, remedy)
        })?),
        None => None,
    };
    let file = config.zip(bytes.as_deref());
    config::load(file, flags, &Host::this())
}

fn nameserver(flags: &NameServer) -> Result<ExitCode, StartError> {
    let flags = flags.flags(std::env::var(LOG_VARIABLE).ok());
    let settings = config::load_name_server(&flags)?;
    logging::start(&settings.log);
    corelane::broker::serve_names(&settings)
}

fn examine(flags: &Doctor) -> Result<ExitCode, StartError> {
    let settings = settings(flags.config.as_deref(), &flags.flags())?;
    let store = &settings.store;
    let has_log = store.paths(None).commit_log.is_dir();
    let default = settings.shard_count_default;
    let shards = Shards::of(&store.root, settings.shard_count, default, has_log);
    let report = doctor::examine(&Subject {
        folders: store.folders((!shards.in_place).then_some(shards.count)),
        shards,
        log: settings.store.log_elsewhere(),
        store: settings.store.root,
        segment_size: settings.store.segment_size,
        refuse_from_percent: settings.retention.refuse_from_percent,
        sync: settings.flush.mode == config::FlushMode::Sync,
        has_names: matches!(settings.name_servers, config::NameServers::Embedded { .. }),
    });
    let text = if flags.json {
        report.json()
    } else {
        report.text()
    };
    show(&text);
    Ok(ExitCode::from(report.verdict().exit_code()))
}

fn stats(flags: &Stats) -> ExitCode {
    let shards = match corelane::stats::ask_all(&flags.nameserver) {
        Ok(shards) => shards,
        Err(why) => {
            eprintln!("corelane stats: {why}; name the name server with --nameserver");
            return ExitCode::FAILURE;
        }
    };
    if flags.json {
        let json = serde_json::to_string_pretty(&shards).expect("figures and names are JSON");
        show(&format!("{json}\n"));
    } else {
        show(&corelane::stats::table(&shards));
    }
    ExitCode::SUCCESS
}

/// Prints what was asked for. Who reads only the first lines (head) closes the rest: no mistake of anybody's,
/// and `println!` would panic.
fn show(text: &str) {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("corelane: not everything could be printed: {error}");
        }
        _ => (),
    }
}
