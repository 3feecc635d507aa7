//! The client program on the crate rocketmq-client-rust 1.0.0: the verbs and lines of tests/clients/README.md.

mod flags;
mod lines;
mod receive;
mod send;

use std::error::Error;
use std::process::exit;
use std::sync::Arc;
use std::time::Duration;

use rocketmq_client_rust::{ClientConfig, ClientRuntime, ClientRuntimeConfig};
use rocketmq_observability::{TelemetryBootstrapConfig, install_global};
use rocketmq_runtime::{RuntimeConfig, RuntimeOwner};

use flags::Flags;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const EXIT_FAILED: i32 = 1;
const EXIT_USAGE: i32 = 2;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let flags = Flags::parse(&arguments).unwrap_or_else(|reason| {
        eprintln!("{reason}");
        eprintln!("use: run produce|consume|pull|big|chinese --namesrv HOST:PORT --topic NAME [flags]");
        exit(EXIT_USAGE);
    });
    let verb = flags.verb.clone();
    if let Err(error) = run(flags).await {
        eprintln!("{verb}: {error}");
        exit(EXIT_FAILED);
    }
    exit(0); // Whatever task of the library still runs has nothing left to tell.
}

async fn run(flags: Flags) -> Outcome<()> {
    let mut config = RuntimeConfig { thread_name: "client".to_string(), ..Default::default() };
    // Listeners run in this lane. On a small machine it has few places, and a message that finds none
    // goes back to the broker as if its listener had failed.
    config.blocking_lane_policies.metadata_io.max_queue_depth = 10_000;
    config.blocking_lane_policies.metadata_io.queue_timeout = Duration::from_secs(60);
    let owner = RuntimeOwner::plan(config)
        .map_err(|error| format!("runtime configuration refused: {error:?}"))?
        .build()
        .map_err(|error| format!("runtime not started: {error:?}"))?;
    let mut logs = TelemetryBootstrapConfig::default(); // To stderr.
    logs.logging.filter = std::env::var("RUST_LOG").unwrap_or("warn".to_string());
    logs.logging.console.ansi = false;
    let telemetry = install_global(&logs).map_err(text_of)?;
    let runtime = ClientRuntime::try_new(
        owner.root_context().component("client"),
        ClientRuntimeConfig::default(),
        telemetry.handle(),
    )
    .map_err(text_of)?;
    let done = match flags.verb.as_str() {
        "produce" => send::produce(flags, runtime.clone()).await,
        "big" => send::big(flags, runtime.clone()).await,
        "chinese" => send::chinese(flags, runtime.clone()).await,
        "consume" => receive::consume(flags, runtime.clone()).await,
        "pull" => receive::pull(flags, runtime.clone()).await,
        verb => unreachable!("flags let {verb} through"),
    };
    runtime.shutdown().await;
    owner.shutdown_background();
    done
}

/// The library's errors keep their details for `Debug`.
fn text_of(error: impl std::fmt::Debug) -> String {
    format!("{error:?}")
}

fn client_config(flags: &Flags) -> ClientConfig {
    let mut config = ClientConfig::default();
    config.set_namesrv_addr(flags.namesrv.as_str().into());
    let instance = match flags.instance.as_str() {
        "" => format!("{}-{}", flags.verb, std::process::id()),
        name => name.to_string(),
    };
    config.set_instance_name(instance.into());
    config
}

type Runtime = Arc<ClientRuntime>;
