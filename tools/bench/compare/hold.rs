//! The `hold` command: becomes another command, on one CPU, that does not outlive its parent.

use crate::{Outcome, fail, pin};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use std::os::unix::process::CommandExt;
use std::process::Command;

#[derive(clap::Args, Clone)]
pub struct Hold {
    /// CPU to run on
    #[arg(long)]
    cpu: Option<usize>,
    /// The command, after `--`
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Gives back only when the command could not be run.
pub fn hold(options: &Hold) -> Outcome<bool> {
    pin(options.cpu)?;
    // SIGKILL, because a stopped process would not see another signal. It covers a comparison that
    // is killed itself; one that ends in any other way ends its servers in order.
    set_pdeathsig(Signal::SIGKILL)?;
    let error = Command::new(&options.command[0])
        .args(&options.command[1..])
        .exec();
    fail(format!("cannot run {}: {error}", options.command[0]))
}
