//! The command line of the broker: what was typed, what it means, run.

use std::process::ExitCode;

use clap::Parser;
use corelane::cli::{Cli, Command, NameServer, Serve, Stats};
use corelane::config::{self, Host, Note, Settings, StartError};
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
        Command::Stats(flags) => return stats(&flags),
    };
    result.unwrap_or_else(|error| {
        eprintln!("corelane: {error}");
        ExitCode::from(EXIT_NOT_STARTED)
    })
}

fn serve(flags: &Serve) -> Result<ExitCode, StartError> {
    let settings = settings(flags)?;
    logging::start(&settings.log);
    for note in &settings.notes {
        match note {
            Note::Warning(text) => warn!("{text}"),
            Note::Info(text) => info!("{text}"),
        }
    }
    if flags.print_config {
        print!("{}", settings.print());
        return Ok(ExitCode::SUCCESS);
    }
    corelane::broker::serve(settings)
}

fn settings(flags: &Serve) -> Result<Settings, StartError> {
    let bytes = match &flags.config {
        Some(path) => Some(std::fs::read(path).map_err(|error| {
            let remedy = "name a file that is there and that this user may read";
            StartError::new("read the configuration in", path.display(), error, remedy)
        })?),
        None => None,
    };
    let file = flags.config.as_deref().zip(bytes.as_deref());
    config::load(
        file,
        &flags.flags(std::env::var(LOG_VARIABLE).ok()),
        &Host::this(),
    )
}

fn nameserver(flags: &NameServer) -> Result<ExitCode, StartError> {
    let flags = flags.flags(std::env::var(LOG_VARIABLE).ok());
    let settings = config::load_name_server(&flags)?;
    logging::start(&settings.log);
    corelane::broker::serve_names(&settings)
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
        println!("{json}");
    } else {
        print!("{}", corelane::stats::table(&shards));
    }
    ExitCode::SUCCESS
}
