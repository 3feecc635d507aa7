//! The report's medians as text for the terminal.

use super::figures;
use super::study::{Contender, Work};
use std::fmt::Write as _;

const FIGURES: [&str; 9] = [
    "messages_per_s",
    "service_p50_ns",
    "service_p99_ns",
    "service_p999_ns",
    "response_p99_ns",
    "e2e_p50_ns",
    "e2e_p99_ns",
    "messages_per_server_cpu_s",
    "server_cpu_us_per_message",
];

pub fn text(works: &[Work<'_>]) -> String {
    let mut text = String::new();
    for work in works {
        let _ = writeln!(
            text,
            "\n{}: medians (least–most), ratio to the reference",
            work.name
        );
        let keys = work.figure_keys();
        for key in FIGURES.into_iter().filter(|key| keys.contains(key)) {
            let (_, unit) = figures::unit(key);
            let _ = writeln!(text, "  {} {unit}", figures::name(key));
            for contender in &work.contenders {
                let _ = writeln!(text, "{}", row(work, contender, key));
            }
        }
    }
    text
}

fn row(work: &Work<'_>, contender: &Contender<'_>, key: &str) -> String {
    let Some(own) = contender.spread(key) else {
        return format!("    {:<28} –", contender.name);
    };
    let mut row = format!(
        "    {:<28} {:<32}",
        contender.name,
        figures::show(key, &own)
    );
    for name in work.references() {
        let reference = work.reference(contender, &name);
        let other = reference.filter(|other| !contender.is_peer && other.name != contender.name);
        let ratio = other
            .and_then(|other| other.spread(key))
            .and_then(|other| own.ratio(&other));
        if let Some(ratio) = ratio {
            let _ = write!(row, " {}× {name}", figures::short(ratio));
        }
    }
    row.trim_end().to_owned()
}
