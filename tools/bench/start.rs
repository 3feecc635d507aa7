//! The `start` command: from a broker's command line to its first acknowledgement, and to its end.

use crate::bed::{PORT_FREE_MAX, listens};
use crate::check::FIELDS_SIZE;
use crate::control::Control;
use crate::latency::files;
use crate::load::{Bodies, Random, Sizes};
use crate::report::Report;
use crate::wire::{self, Request, SendTemplate, Style};
use crate::{Outcome, clock, fail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

#[derive(clap::Args, Clone)]
pub struct Options {
    /// Address that the broker will listen on
    #[arg(long, value_parser = crate::load::address)]
    addr: SocketAddr,
    /// Give up after that many seconds
    #[arg(long, default_value_t = 60.0)]
    timeout: f64,
    /// End it with SIGKILL, so that its store is one that has to be recovered
    #[arg(long)]
    kill: bool,
    /// Write the figures to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// The broker's command line, after `--`
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Creates the topic and sends one message; an error means "not yet".
fn first_acknowledgement(addr: SocketAddr) -> Outcome<()> {
    let mut control = Control::connect(addr)?;
    control.create_topic("bench_start", 1)?;
    let style = Style {
        batch: 1,
        run: clock::run_id(),
        keys: 0,
    };
    let request = Request {
        opaque: wire::opaque(0, 0),
        born_ms: clock::wall_ms(),
        slot: 0,
        first: 0,
        intended_ns: clock::now_ns(),
    };
    let mut frame = Vec::new();
    SendTemplate::new(&style, "bench_start", 0, 0, None).put(
        &mut frame,
        &request,
        &mut Bodies::new(&Sizes::Fixed(FIELDS_SIZE), 1),
        &mut Random::new(1),
    );
    let answer = control.exchange(wire::SEND, &frame)?;
    if answer.code == 0 {
        Ok(())
    } else {
        fail(format!("code {}: {}", answer.code, answer.remark))
    }
}

fn wait_exit(child: &mut Child, limit_ns: u64) -> Outcome<Option<i32>> {
    let give_up_ns = clock::now_ns() + limit_ns;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.code().unwrap_or(-1)));
        }
        if give_up_ns < clock::now_ns() {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The listener of a broker that was killed outlives it for a moment: a ring with an accept in flight is
/// taken down by the kernel behind the process's back.
fn wait_until_free(addr: SocketAddr) -> Outcome<()> {
    let give_up_ns = clock::now_ns() + clock::seconds_ns(PORT_FREE_MAX.as_secs_f64());
    while listens(addr) {
        if give_up_ns < clock::now_ns() {
            return fail(format!("something listens on {addr} already"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

pub fn run(options: &Options) -> Outcome<bool> {
    if let Some(path) = &options.json {
        files::check_writable(path)?;
    }
    wait_until_free(options.addr)?;
    let mut command = Command::new(&options.command[0]);
    command
        .args(&options.command[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let start_ns = clock::now_ns();
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return fail(format!("cannot run {}: {error}", options.command[0])),
    };
    let acknowledged = loop {
        match first_acknowledgement(options.addr) {
            Ok(()) => break Ok(clock::now_ns() - start_ns),
            Err(_) if clock::now_ns() - start_ns < clock::seconds_ns(options.timeout) => {}
            Err(error) => {
                break fail(format!(
                    "no acknowledgement within --timeout {} s; the last try: {}",
                    options.timeout, error.0
                ));
            }
        }
        if let Some(code) = child.try_wait()? {
            return fail(format!(
                "{} ended with code {code} before it acknowledged",
                options.command[0]
            ));
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let stop_ns = clock::now_ns();
    let signal = match options.kill {
        true => Signal::SIGKILL,
        false => Signal::SIGTERM,
    };
    kill(Pid::from_raw(child.id() as i32), signal)?;
    let code = wait_exit(&mut child, 15 * clock::SECOND_NS)?;
    let stopped_ns = clock::now_ns() - stop_ns;
    if code.is_none() {
        child.kill()?;
        child.wait()?;
    }
    let acknowledged = acknowledged?;
    let mut report = Report::new("start", &options.command.join(" "));
    report.arg("command", serde_json::json!(options.command));
    report.figure(
        "start_to_first_ack_ms",
        acknowledged as f64 / 1e6,
        "ms from the start to the first acknowledgement",
    );
    report.figure(
        "stop_ms",
        stopped_ns as f64 / 1e6,
        &format!("ms from {signal} to the end"),
    );
    match code {
        Some(code) => report.value("exit_code", serde_json::json!(code)),
        None => report.note("it did not end within 15 s of SIGTERM and was killed"),
    }
    report.finish(options.json.as_deref())
}
