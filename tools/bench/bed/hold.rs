//! The `hold` command: becomes another command, on chosen CPUs, that does not outlive its parent.

use crate::{Cpus, Outcome, fail};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

#[derive(clap::Args, Clone)]
pub struct Hold {
    /// CPUs to run on
    #[arg(long, value_parser = crate::load::cpus)]
    cpu: Option<Cpus>,
    /// Control group to run in: its folder
    #[arg(long)]
    group: Option<PathBuf>,
    /// The command, after `--`
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Gives back only when the command could not be run.
pub fn hold(options: &Hold) -> Outcome<bool> {
    if let Some(Cpus(cpus)) = &options.cpu {
        let mut set = CpuSet::new();
        for cpu in cpus {
            set.set(*cpu)?;
        }
        if let Err(error) = sched_setaffinity(Pid::from_raw(0), &set) {
            return fail(format!(
                "cannot run on CPUs {}: {error}",
                Cpus(cpus.clone())
            ));
        }
    }
    if let Some(group) = &options.group {
        // 0 is the process that writes, for both versions of control groups.
        let procs = group.join("cgroup.procs");
        if let Err(error) = std::fs::write(&procs, "0") {
            return fail(format!("cannot enter {}: {error}", group.display()));
        }
    }
    // SIGKILL, because a stopped process would not see another signal. It covers a comparison that
    // is killed itself; one that ends in any other way ends its servers in order.
    set_pdeathsig(Signal::SIGKILL)?;
    let error = Command::new(&options.command[0])
        .args(&options.command[1..])
        .exec();
    fail(format!("cannot run {}: {error}", options.command[0]))
}
