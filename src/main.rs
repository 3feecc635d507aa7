//! The command line of the broker: what was typed, what it means, run.

use std::process::ExitCode;

use clap::Parser;
use corelane::cli::{Cli, Command, NameServer, Serve};
use corelane::config::{self, Host, NameServerSettings, Note, Settings, StartError};
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
    run_broker(settings)
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
    run_name_server(settings)
}

fn run_broker(settings: Settings) -> Result<ExitCode, StartError> {
    let what = format!(
        "on {}:{}",
        settings.addresses.bind, settings.addresses.listen_port
    );
    Err(StartError::new(
        "serve",
        what,
        "this build has no broker",
        "build a later version",
    ))
}

fn run_name_server(settings: NameServerSettings) -> Result<ExitCode, StartError> {
    let what = format!("on {}:{}", settings.bind, settings.port);
    Err(StartError::new(
        "serve",
        what,
        "this build has no name server",
        "build a later version",
    ))
}
