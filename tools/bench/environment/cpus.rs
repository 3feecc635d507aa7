//! CPUs that something can run on, looked up before anything has started.

use super::line;
use crate::load::{Cpus, cpus};
use crate::{Outcome, fail};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// Tried on a thread that then ends: what a process is pinned on now says nothing of where it may go,
/// and of a mask with other CPUs beside the kernel takes those that are there and says nothing.
fn is_there(cpu: usize) -> bool {
    let is_taken = move || {
        let mut set = CpuSet::new();
        set.set(cpu).is_ok() && sched_setaffinity(Pid::from_raw(0), &set).is_ok()
    };
    std::thread::spawn(is_taken).join().unwrap_or(false)
}

/// Refuses CPUs that the machine does not have, or that are not for this process.
pub fn check_cpus(option: &str, Cpus(wanted): &Cpus) -> Outcome<()> {
    let Some(missing) = wanted.iter().find(|cpu| !is_there(**cpu)) else {
        return Ok(());
    };
    let online = line("/sys/devices/system/cpu/online").and_then(|text| cpus(&text).ok());
    let mut found = online.map_or(Vec::new(), |Cpus(online)| online);
    found.retain(|cpu| is_there(*cpu));
    fail(format!(
        "{option}: there is no CPU {missing} for this process; there are {}",
        Cpus(found)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_that_is_not_there_is_named_beside_those_that_are() {
        let own = core_affinity::get_core_ids().unwrap()[0].id;
        assert!(check_cpus("--cpu", &Cpus(vec![own])).is_ok());
        let told = check_cpus("--cpu", &Cpus(vec![own, 4095])).err().unwrap().0;
        assert!(told.starts_with("--cpu: there is no CPU 4095"), "{told}");
        let found = cpus(told.split_once("there are ").unwrap().1).unwrap();
        assert!(found.0.contains(&own), "{told}");
        // Who is pinned is not kept from the others.
        let pinned = std::thread::spawn(move || {
            crate::pin(Some(&Cpus(vec![own]))).unwrap();
            check_cpus("--cpu", &found)
        });
        assert!(pinned.join().unwrap().is_ok());
    }
}
