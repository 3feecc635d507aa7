//! The report's medians as text for the terminal.

use super::figures;
use super::study::{Contender, PANEL_MAX, Work};
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
        let are_many = 2 * PANEL_MAX < work.contenders.len();
        let more = if are_many {
            ""
        } else {
            " (least–most), ratio to the reference"
        };
        let _ = writeln!(text, "\n{}: medians{more}", work.name);
        let keys = work.figure_keys();
        let keys = FIGURES.into_iter().filter(|key| keys.contains(key));
        if are_many {
            let keys: Vec<&str> = keys.collect();
            text += &rows(work, &keys);
            continue;
        }
        for key in keys {
            let (_, unit) = figures::unit(key);
            let _ = writeln!(text, "  {} {unit}", figures::name(key));
            for contender in &work.contenders {
                let _ = writeln!(text, "{}", row(work, contender, key));
            }
        }
    }
    text
}

/// A line for each contender, of whom there are many: its medians.
fn rows(work: &Work<'_>, keys: &[&str]) -> String {
    let names = work.contenders.iter().map(|it| it.name.chars().count());
    let width = names.max().unwrap_or(0);
    let mut text = String::new();
    for (at, key) in keys.iter().enumerate() {
        let (name, (_, unit)) = (figures::name(key), figures::unit(key));
        let _ = writeln!(
            text,
            "  {}: {}",
            at + 1,
            format!("{name} {unit}").trim_end()
        );
    }
    let head: String = (1..=keys.len()).map(|at| format!("{at:>13}")).collect();
    let _ = writeln!(text, "    {:<width$}{head}", "");
    for contender in &work.contenders {
        let _ = write!(text, "    {:<width$}", contender.name);
        for key in keys {
            let (divisor, _) = figures::unit(key);
            let median = contender.spread(key).map(|it| it.median / divisor);
            let median = median.map_or_else(|| "–".to_owned(), figures::short);
            let _ = write!(text, "{median:>13}");
        }
        text.push('\n');
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
