//! The network: how TCP paces itself, and the interrupts of network cards.

use super::interrupts;
use super::report::Entry;
use crate::io::{Tree, Unseen};

pub(super) fn check(tree: &Tree) -> Vec<Entry> {
    const FOLDER: &str = "/proc/sys/net/ipv4";
    let current = tree.text(&format!("{FOLDER}/tcp_congestion_control"));
    let available = tree.text(&format!("{FOLDER}/tcp_available_congestion_control"));
    let mut entries = vec![congestion(
        current.as_deref(),
        available.as_deref().unwrap_or_default(),
    )];
    entries.extend(interrupts::of_network(tree));
    entries
}

fn congestion(current: Result<&str, &Unseen>, available: &str) -> Entry {
    const NAME: &str = "congestion control";
    let current = match current {
        Ok(current) => current,
        Err(why) => return Entry::unseen(NAME, why),
    };
    if !current.starts_with("bbr") {
        let reason = "sends as fast as the receiver takes, without a timer for each packet";
        return Entry::ok(NAME, current, reason);
    }
    let better = if available.split_whitespace().any(|name| name == "cubic") {
        "cubic"
    } else {
        "reno"
    };
    let reason = "it paces packets by a timer, on loopback and in a data centre too, where there is nothing to gain by it; \
         right for consumers across the internet (kernel-notes/accept-and-receive.md)";
    let fix = format!("sudo sysctl -w net.ipv4.tcp_congestion_control={better}");
    Entry::advice(NAME, current, reason, fix)
}

#[cfg(test)]
mod tests {
    use super::super::report::Verdict;
    use super::*;

    #[test]
    fn pacing_costs_and_others_do_not() {
        let judge = |current| congestion(Ok(current), "reno cubic bbr");
        assert_eq!(judge("cubic").verdict, Verdict::Ok);
        assert_eq!(judge("reno").verdict, Verdict::Ok);
        assert_eq!(judge("bbr").verdict, Verdict::Advice);
        assert!(judge("bbr").fix.unwrap().ends_with("=cubic"));
        assert!(
            congestion(Ok("bbr"), "reno bbr")
                .fix
                .unwrap()
                .ends_with("=reno")
        );
    }
}
