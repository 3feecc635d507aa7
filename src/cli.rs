//! What is typed: subcommands, flags and a help that is worth reading.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::Flag;

const EXIT_CODES: &str = "\
Exit codes:
  0  stopped in order (SIGTERM, SIGINT), or nothing but information was asked for
  1  stats: nobody answered, or not as expected; doctor: it runs here, and would run better
  2  could not start: stderr says what, where, why and what to do
  3  stopped itself because the storage failed in a way that makes further promises worthless
130  ended by a second signal, without waiting for anything";

const EXAMPLES: &str = "\
Examples:
  corelane serve
      a broker on every CPU, with a name server; give clients 127.0.0.1:9876
  corelane serve --store /data/corelane --flush sync
      acknowledge only what survives a power cut
  corelane serve --config broker.conf --print-config
      what a RocketMQ broker.conf means here, and where each value comes from
  corelane serve --bind 10.0.0.5 --insecure
      let other hosts in; there is no authentication yet, so the network must keep strangers out
  corelane serve --nameserver 10.0.0.1:9876;10.0.0.2:9876
      register with name servers that run elsewhere, Apache's too (quote the ';' in a shell)
  corelane nameserver --port 9876
      a name server alone
  corelane doctor --store /data/corelane
      what this host offers to that store, and what to change";

const DOCTOR_EXIT_CODES: &str = "\
Exit codes:
  0  everything is as it should be
  1  the broker runs here, and would run better with what is advised
  2  the broker cannot run here, or the doctor could not look: the report or stderr says why";

const DOCTOR_EXAMPLES: &str = "\
Examples:
  corelane doctor
      this host, and the disk below ./store
  corelane doctor --config broker.conf
      with the store and the flush mode of a broker.conf
  corelane doctor --store /data/corelane --json
      the same for programs; root sees what is hidden from others";

/// A message broker for Linux that unmodified RocketMQ clients use.
///
/// Each core is a broker of its own, with its own io_uring, log and indexes. Clients are pointed at the
/// name server and find the cores by themselves.
#[derive(Debug, Parser)]
#[command(name = "corelane", version = env!("CORELANE_VERSION"), after_help = EXIT_CODES, after_long_help = [EXAMPLES, EXIT_CODES].join("\n\n"))]
#[command(
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the broker, by default with a name server of its own
    #[command(after_help = EXIT_CODES, after_long_help = [EXAMPLES, EXIT_CODES].join("\n\n"))]
    Serve(Box<Serve>),
    /// Run a name server alone
    #[command(name = "nameserver", after_help = EXIT_CODES)]
    NameServer(NameServer),
    /// Look at this host and say what to change for the broker
    ///
    /// Writes about 10 MiB of small files into the store's folder, measures that for a few seconds (8 where
    /// the disk does not answer), and removes them. Changes nothing else.
    #[command(after_help = DOCTOR_EXIT_CODES, after_long_help = [DOCTOR_EXAMPLES, DOCTOR_EXIT_CODES].join("\n\n"))]
    Doctor(Doctor),
    /// Show how long the stages of messages take in running shards, and what held a shard's turn
    Stats(Stats),
}

/// Flags of `corelane stats`.
#[derive(Debug, Args)]
pub struct Stats {
    /// Name server that knows the shards
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9876")]
    pub nameserver: String,
    /// Print JSON, times in nanoseconds
    #[arg(long)]
    pub json: bool,
}

/// Flags of `corelane serve`. Each sets a key of the configuration, and beats the file.
#[derive(Debug, Args)]
pub struct Serve {
    /// Configuration in RocketMQ's form, key=value; a RocketMQ broker.conf will do
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder of the store [default: ./store]
    #[arg(long, value_name = "DIR")]
    store: Option<String>,
    /// Address to listen on; other than loopback needs --insecure [default: 127.0.0.1]
    #[arg(long, value_name = "IP")]
    bind: Option<String>,
    /// Port of shard 0; shard i listens on PORT + 10·i, and on that − 2 for clients that use the VIP
    /// channel [default: 10911]
    #[arg(long, value_name = "PORT")]
    port: Option<String>,
    /// Cores that are brokers [default: the count the store has; for a new one, the CPUs this process
    /// may use]
    #[arg(long, value_name = "N")]
    shards: Option<String>,
    /// Name servers to register with: embedded, or host:port[;host:port] [default: embedded]
    #[arg(long, value_name = "WHERE")]
    nameserver: Option<String>,
    /// Port of the embedded name server [default: 9876]
    #[arg(long, value_name = "PORT")]
    nameserver_port: Option<String>,
    /// Acknowledge after the write (async), when a sync covers it (sync), or after the write and leave the
    /// disk to the kernel (none) [default: async]
    #[arg(long, value_name = "WHEN")]
    flush: Option<String>,
    /// How --flush sync makes a group durable: auto, fdatasync, dsync or direct [default: auto, measured at
    /// start]
    #[arg(long, value_name = "METHOD")]
    flush_method: Option<String>,
    /// How groups of messages are written: auto, ring, inline or direct [default: auto]
    #[arg(long, value_name = "MODE")]
    append: Option<String>,
    /// How messages leave the page cache: auto, sendfile, splice, gather, send-zc or copy [default: auto]
    #[arg(long, value_name = "WAY")]
    egress: Option<String>,
    /// Do without this even where the kernel has it: of io_uring coop-taskrun, single-issuer,
    /// defer-taskrun, no-sqarray, multishot-accept, multishot-receive, worker-bound, registered-ring,
    /// send-zc, registered-wait or no-iowait; of files cachestat, direct-io or dontcache; several with
    /// commas, or repeated
    #[arg(long, value_name = "FEATURE", value_delimiter = ',')]
    without: Vec<String>,
    /// Listen beyond this host although everybody who reaches the ports may do everything
    #[arg(long)]
    insecure: bool,
    /// Set any other key of the configuration; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = assignment)]
    set: Vec<(String, String)>,
    /// What is logged: error, warn, info, debug, trace, or directives such as info,corelane::log=debug
    /// [env: CORELANE_LOG] [default: info]
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
    /// Show what is in force and where each value came from, and exit
    #[arg(long)]
    pub print_config: bool,
}

impl Serve {
    /// What was typed, as settings. What the environment says about the log a flag beats.
    #[must_use]
    pub fn flags(&self, log_of_environment: Option<String>) -> Vec<Flag> {
        let set = self.set.iter().map(|(key, value)| Flag {
            flag: "--set".to_owned(),
            key: key.clone(),
            value: value.clone(),
        });
        let named = [
            ("--store", "storePathRootDir", self.store.clone()),
            ("--bind", "bindAddress", self.bind.clone()),
            ("--port", "listenPort", self.port.clone()),
            ("--shards", "shards", self.shards.clone()),
            ("--nameserver", "namesrvAddr", self.nameserver.clone()),
            (
                "--nameserver-port",
                "nameserverPort",
                self.nameserver_port.clone(),
            ),
            ("--flush", "flushDiskType", self.flush.clone()),
            ("--flush-method", "flushMethod", self.flush_method.clone()),
            ("--append", "appendMode", self.append.clone()),
            ("--egress", "egress", self.egress.clone()),
            (
                "--without",
                "kernelWithout",
                (!self.without.is_empty()).then(|| self.without.join(",")),
            ),
            (
                "--insecure",
                "insecure",
                self.insecure.then(|| "true".to_owned()),
            ),
        ];
        let log = log_flag(self.log.clone(), log_of_environment);
        set.chain(said(named.into_iter().chain([log]))).collect()
    }
}

/// Flags of `corelane nameserver`.
#[derive(Debug, Args)]
pub struct NameServer {
    /// Address to listen on; other than loopback needs --insecure [default: 127.0.0.1]
    #[arg(long, value_name = "IP")]
    bind: Option<String>,
    /// Port to listen on [default: 9876]
    #[arg(long, value_name = "PORT")]
    port: Option<String>,
    /// Listen beyond this host although everybody who reaches the port may do everything
    #[arg(long)]
    insecure: bool,
    /// What is logged: error, warn, info, debug, trace, or directives such as info,corelane::net=debug
    /// [env: CORELANE_LOG] [default: info]
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
}

impl NameServer {
    /// What was typed, as settings. What the environment says about the log a flag beats.
    #[must_use]
    pub fn flags(&self, log_of_environment: Option<String>) -> Vec<Flag> {
        let named = [
            ("--bind", "bindAddress", self.bind.clone()),
            ("--port", "nameserverPort", self.port.clone()),
            (
                "--insecure",
                "insecure",
                self.insecure.then(|| "true".to_owned()),
            ),
        ];
        let log = log_flag(self.log.clone(), log_of_environment);
        said(named.into_iter().chain([log]))
    }
}

/// Flags of `corelane doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Configuration that the broker would have; its store and its flush mode are looked at
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder of the store; it need not exist [default: ./store]
    #[arg(long, value_name = "DIR")]
    store: Option<String>,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

impl Doctor {
    /// What was typed, as settings.
    #[must_use]
    pub fn flags(&self) -> Vec<Flag> {
        // Nothing listens, so nothing needs to be allowed to.
        let insecure = ("--insecure", "insecure", Some("true".to_owned()));
        said([
            ("--store", "storePathRootDir", self.store.clone()),
            insecure,
        ])
    }
}

fn log_flag(
    typed: Option<String>,
    of_environment: Option<String>,
) -> (&'static str, &'static str, Option<String>) {
    match typed {
        Some(log) => ("--log", "log", Some(log)),
        None => ("CORELANE_LOG", "log", of_environment),
    }
}

/// Those that have a value.
fn said(
    flags: impl IntoIterator<Item = (&'static str, &'static str, Option<String>)>,
) -> Vec<Flag> {
    let flags = flags.into_iter().filter_map(|(flag, key, value)| {
        Some(Flag {
            flag: flag.to_owned(),
            key: key.to_owned(),
            value: value?,
        })
    });
    flags.collect()
}

fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("it is not of the form KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn serve(words: &[&str]) -> Serve {
        let words = ["corelane", "serve"].iter().chain(words);
        match Cli::try_parse_from(words).unwrap().command {
            Command::Serve(serve) => *serve,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_sets_a_known_key() {
        let words = "--store a --bind b --port c --shards d --nameserver e --nameserver-port f \
            --flush g --flush-method m --append n --egress h --without j,k --without l --insecure \
            --set mappedFileSizeCommitLog=1 --log i";
        let words: Vec<_> = words.split_whitespace().collect();
        let flags = serve(&words).flags(Some("debug".into()));
        assert_eq!(flags.len(), 14);
        for flag in &flags {
            assert!(crate::config::keys::find(&flag.key).is_some(), "{flag:?}");
        }
        assert_eq!(
            flags.iter().find(|flag| flag.key == "log").unwrap().value,
            "i"
        );
        assert!(serve(&[]).flags(None).is_empty());
        let flags = serve(&[]).flags(Some("debug".into()));
        assert_eq!(
            (flags[0].flag.as_str(), flags[0].value.as_str()),
            ("CORELANE_LOG", "debug")
        );
    }

    #[test]
    fn the_help_names_every_feature_that_can_be_done_without() {
        let mut command = Cli::command();
        let serve = command.find_subcommand_mut("serve").unwrap();
        let help = serve.render_long_help().to_string();
        let names = crate::config::keys::find("without").unwrap().kind.allowed();
        let (names, _) = names.split_once(", ").unwrap();
        for name in names.split(" or ") {
            assert!(help.contains(name), "{name} is not in\n{help}");
        }
    }

    #[test]
    fn the_help_names_examples_and_exit_codes() {
        let help = Cli::command().render_long_help().to_string();
        for part in [
            "Examples:",
            "Exit codes:",
            "serve",
            "nameserver",
            "doctor",
            "could not start",
        ] {
            assert!(help.contains(part), "{part} is not in\n{help}");
        }
    }
}
