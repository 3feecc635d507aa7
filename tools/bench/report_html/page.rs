//! The report's page: one HTML file that needs nothing beside it.

use super::chart::css_colour;
use super::figures::{self, Better};
use super::run::{LATENCIES, QUANTILES, Run};
use super::study::{Contender, Work};
use super::{Drawn, Shown};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::Value;
use std::collections::BTreeMap;

const STYLE: &str = include_str!("style.css");
/// Figures of the overview, those that people ask for first.
const OVERVIEW: [&str; 8] = [
    "messages_per_s",
    "service_p50_ns",
    "service_p99_ns",
    "response_p99_ns",
    "e2e_p50_ns",
    "e2e_p99_ns",
    "server_cpu_us_per_message",
    "server_rss_bytes",
];
/// Values of one fact of the environment, where the runs differ in it.
const VALUES_SHOWN: usize = 4;

pub fn page(title: &str, works: &[Work<'_>], runs: &[Run], shown: &[Shown<'_>]) -> String {
    let void: Vec<&Run> = runs.iter().filter(|run| !run.is_valid()).collect();
    let valid = runs.len() - void.len();
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { (title) }
                p.soft { (valid) " runs count, " (void.len()) " void. " (reading()) }
                nav {
                    @for (at, work) in works.iter().enumerate() { a href={ "#work-" (at) } { (work.name) } }
                    a href="#environment" { "environment" }
                    a href="#commands" { "commands" }
                }
                (void_runs(&void))
                h2 { "Overview" }
                (overview(works))
                @for (at, (work, shown)) in works.iter().zip(shown).enumerate() {
                    h2 id={ "work-" (at) } { (work.name) }
                    (one_work(work, shown))
                }
                h2 id="environment" { "Environment" }
                (environment(runs))
                h2 id="commands" { "Commands to repeat it" }
                (commands(runs))
            }
        }
    };
    markup.into_string()
}

fn reading() -> &'static str {
    "Figures are medians, with the least and the most of the runs in parentheses. A ratio is the median \
     divided by the reference's; it is green where better and orange where worse, and has a colour only \
     where no run of one lies between runs of the other."
}

fn void_runs(void: &[&Run]) -> Markup {
    html! {
        @if !void.is_empty() {
            div.void {
                b { "Void runs, which do not count:" }
                ul {
                    @for run in void {
                        li { (run.work) ", " (run.contender) ", " (run.file) ": " (run.void.join("; ")) }
                    }
                }
            }
        }
    }
}

fn swatch(contender: &Contender<'_>) -> Markup {
    html! {
        span.swatch style={ "background:" (css_colour(contender.index)) } {}
        (breakable(contender.name))
    }
}

/// A long name may be broken where its parts meet.
fn breakable(name: &str) -> Markup {
    let parts = name.split_inclusive(['-', '=', '.', '/']);
    html! { @for part in parts { (part) wbr; } }
}

fn heading(key: &str) -> Markup {
    let (_, unit) = figures::unit(key);
    html! { th { (figures::name(key)) @if !unit.is_empty() { br; span.soft { (unit) } } } }
}

fn overview(works: &[Work<'_>]) -> Markup {
    let is_there = |key: &&str| works.iter().any(|work| work.figure_keys().contains(*key));
    let keys: Vec<&str> = OVERVIEW.into_iter().filter(is_there).collect();
    html! {
        div.scroll { table {
            tr { th { "load" } th.words { "who" } th { "runs" } @for key in &keys { (heading(key)) } }
            @for work in works {
                @for (at, contender) in work.contenders.iter().enumerate() {
                    tr {
                        @if at == 0 { td.words rowspan=(work.contenders.len()) { (breakable(work.name)) } }
                        td.words { (swatch(contender)) }
                        td { (contender.runs.len()) }
                        @for key in &keys { (cell(contender, key)) }
                    }
                }
            }
        } }
    }
}

fn cell(contender: &Contender<'_>, key: &str) -> Markup {
    let text = contender
        .spread(key)
        .map_or_else(|| "–".to_owned(), |spread| figures::show(key, &spread));
    // Least and most stay together on their line.
    let (median, range) = text.split_once(' ').unwrap_or((&text, ""));
    html! { td { (median) @if !range.is_empty() { " " span.range { (range) } } } }
}

fn one_work(work: &Work<'_>, shown: &Shown<'_>) -> Markup {
    html! {
        (figures(&shown.bars))
        @if let [(panel, drawn)] = shown.panels.as_slice() {
            (one_panel(panel, drawn))
        } @else {
            @for (panel, drawn) in &shown.panels {
                details.panel { summary { (panel.part) } (one_panel(panel, drawn)) }
            }
        }
        (notes(work))
    }
}

fn figures(drawn: &[Drawn]) -> Markup {
    html! {
        @for one in drawn {
            figure {
                (PreEscaped(&one.svg))
                figcaption.soft { "charts/" (one.file) ".svg, .png" }
            }
        }
    }
}

fn one_panel(work: &Work<'_>, drawn: &[Drawn]) -> Markup {
    let keys = work.figure_keys();
    let cost: Vec<&str> = work
        .contenders
        .iter()
        .flat_map(|contender| &contender.runs)
        .flat_map(|run| run.cost_keys.iter().map(String::as_str))
        .collect();
    let is_latency = |key: &str| {
        LATENCIES
            .iter()
            .any(|name| key.starts_with(&format!("{name}_")))
    };
    let is_cost = |key: &str| {
        let is_quiet = ["others_", "steal_"]
            .iter()
            .any(|part| key.starts_with(part));
        cost.contains(&key)
            || key.starts_with("server_")
            || key.contains("_per_server_")
            || is_quiet
    };
    let pick = |wanted: &dyn Fn(&str) -> bool| -> Vec<&str> {
        let mut keys: Vec<&str> = keys.iter().copied().filter(|key| wanted(key)).collect();
        let known = |key: &&str| OVERVIEW.iter().position(|known| known == key);
        keys.sort_by_key(|key| known(key).unwrap_or(OVERVIEW.len()));
        keys
    };
    let is_rate = |key: &str| key.ends_with("_per_s") && !figures::is_setting(key);
    let rates = pick(&|key| is_rate(key) && !is_latency(key) && !is_cost(key));
    let costs = pick(&|key| is_cost(key) && !is_latency(key) && !figures::is_setting(key));
    let rest = pick(&|key| !is_rate(key) && !is_cost(key) && !is_latency(key));
    html! {
        @if !rates.is_empty() { h3 { "Rates" } (comparison(work, &rates)) }
        @for name in LATENCIES { (latency(work, name)) }
        @if !costs.is_empty() { h3 { "Cost" } (comparison(work, &costs)) }
        @if !rest.is_empty() {
            details { summary { "Settings and all other figures" } (comparison(work, &rest)) }
        }
        (figures(drawn))
    }
}

fn latency_keys(name: &str) -> Vec<String> {
    let quantiles = QUANTILES.iter().map(|(suffix, _)| *suffix);
    let parts = ["min", "mean"].into_iter().chain(quantiles).chain(["max"]);
    let mut keys: Vec<String> = parts.map(|part| format!("{name}_{part}_ns")).collect();
    keys.push(format!("{name}_samples"));
    keys
}

fn latency(work: &Work<'_>, name: &str) -> Markup {
    let keys = latency_keys(name);
    let told = work.figure_keys();
    let keys: Vec<&str> = keys
        .iter()
        .map(String::as_str)
        .filter(|key| told.contains(key))
        .collect();
    html! {
        @if 1 < keys.len() { h3 { "Latency: " (name.replace('_', " ")) } (comparison(work, &keys)) }
    }
}

/// A row for each figure; a column for each contender, with its ratios.
fn comparison(work: &Work<'_>, keys: &[&str]) -> Markup {
    let references = work.references();
    let has_ratio = |contender: &Contender<'_>, name: &String| {
        let reference = work.reference(contender, name);
        !contender.is_peer && reference.is_some_and(|reference| reference.name != contender.name)
    };
    let columns: Vec<(&Contender<'_>, Vec<&String>)> = work
        .contenders
        .iter()
        .map(|contender| {
            let names = references.iter().filter(|name| has_ratio(contender, name));
            (contender, names.collect())
        })
        .collect();
    html! {
        div.scroll { table {
            tr {
                th { "figure" } th { "unit" }
                @for (contender, names) in &columns {
                    th { (swatch(contender)) }
                    @for name in names { th.soft { "÷ " (name) } }
                }
            }
            @for key in keys {
                tr {
                    td.words { (figures::name(key)) }
                    td.soft { (figures::unit(key).1) }
                    @for (contender, names) in &columns {
                        (cell(contender, key))
                        @for name in names { (ratio(work, contender, name, key)) }
                    }
                }
            }
        } }
    }
}

fn ratio(work: &Work<'_>, contender: &Contender<'_>, name: &str, key: &str) -> Markup {
    let own = contender.spread(key);
    let other = work
        .reference(contender, name)
        .and_then(|reference| reference.spread(key));
    let (Some(own), Some(other)) = (own, other) else {
        return html! { td { "–" } };
    };
    let Some(ratio) = own.ratio(&other).filter(|_| !figures::is_setting(key)) else {
        return html! { td { "–" } };
    };
    let verdict = match figures::better(key) {
        Better::Unknown => "",
        _ if !own.is_apart(&other) => "",
        Better::Higher if 1.0 < ratio => "better",
        Better::Lower if ratio < 1.0 => "better",
        _ => "worse",
    };
    html! { td class=(verdict) { (figures::short(ratio)) "×" } }
}

/// What the runs themselves remark, each remark once.
fn notes(work: &Work<'_>) -> Markup {
    let mut notes: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for contender in &work.contenders {
        for run in &contender.runs {
            let told = run.json.get("notes").and_then(Value::as_array);
            for note in told.into_iter().flatten().filter_map(Value::as_str) {
                let who = notes.entry(note.to_owned()).or_default();
                if !who.contains(&contender.name) {
                    who.push(contender.name);
                }
            }
        }
    }
    html! {
        @if !notes.is_empty() {
            h3 { "Remarks of the generator" }
            ul { @for (note, who) in &notes { li { (note) " (" (who.join(", ")) ")" } } }
        }
    }
}

/// A value as words, and the members of an object each by its own name.
fn leaves(name: &str, value: &Value, found: &mut Vec<(String, String)>) {
    match value {
        Value::Null => {}
        Value::Object(members) => {
            for (key, value) in members {
                let name = if name.is_empty() {
                    key.clone()
                } else {
                    format!("{name}.{key}")
                };
                leaves(&name, value, found);
            }
        }
        Value::Array(items) => {
            let words: Vec<String> = items.iter().map(plain).collect();
            found.push((name.to_owned(), words.join(", ")));
        }
        other => found.push((name.to_owned(), plain(other))),
    }
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn environment(runs: &[Run]) -> Markup {
    // By name: each value with the contenders that saw it.
    let mut table: BTreeMap<String, Vec<(String, Vec<&str>)>> = BTreeMap::new();
    for run in runs {
        let mut found = Vec::new();
        if let Some(told) = run.json.get("environment") {
            leaves("", told, &mut found);
        }
        for key in ["kernel", "cpu_model", "tcp_congestion_control"] {
            let is_told = found.iter().any(|(name, _)| name == key);
            if let Some(value) = run.json.get(key).filter(|_| !is_told) {
                leaves(key, value, &mut found);
            }
        }
        for (name, value) in found {
            let values = table.entry(name).or_default();
            let at = values.iter().position(|(known, _)| *known == value);
            let at = at.unwrap_or_else(|| {
                values.push((value, Vec::new()));
                values.len() - 1
            });
            if !values[at].1.contains(&run.contender.as_str()) {
                values[at].1.push(&run.contender);
            }
        }
    }
    html! {
        div.scroll { table {
            @for (name, values) in &table {
                tr {
                    td.words { (name.replace('_', " ")) }
                    td.words {
                        @if let [(value, _)] = values.as_slice() { (value) } @else {
                            @for (value, who) in values.iter().take(VALUES_SHOWN) {
                                div { (value) " " span.soft { "(" (who.join(", ")) ")" } }
                            }
                            @if VALUES_SHOWN < values.len() {
                                div.soft { "and " (values.len() - VALUES_SHOWN) " more" }
                            }
                        }
                    }
                }
            }
        } }
    }
}

fn commands(runs: &[Run]) -> Markup {
    let told = |run: &Run, key: &str| {
        let value = run.json.get("compare").and_then(|compare| compare.get(key));
        value.and_then(Value::as_str).map(str::to_owned)
    };
    // A run that no comparison made has its own words, and those of its server.
    let own = |run: &Run, key: &str, program: Option<&str>| {
        let words = run.json.get(key).and_then(Value::as_array)?;
        let words = program
            .into_iter()
            .chain(words.iter().filter_map(Value::as_str));
        shlex::try_join(words).ok()
    };
    let mut whole: Vec<String> = Vec::new();
    let mut single: Vec<(String, String)> = Vec::new();
    for run in runs {
        let command = told(run, "command").filter(|command| !whole.contains(command));
        whole.extend(command);
        for (key, of_run, program) in [
            ("server_command", "server_command_line", None),
            ("prepare_command", "", None),
            ("generator_command", "command_line", Some("corelane-bench")),
        ] {
            let command = told(run, key).or_else(|| own(run, of_run, program));
            let Some(command) = command else {
                continue;
            };
            let who = format!("{}, {}", run.contender, run.work);
            let who = if key == "server_command" {
                run.contender.clone()
            } else {
                who
            };
            let is_new = !single
                .iter()
                .any(|(known, _)| *known == format!("{who}: {key}"));
            if is_new {
                single.push((format!("{who}: {key}"), command));
            }
        }
    }
    html! {
        @for command in &whole { pre { (command) } }
        @if whole.is_empty() && single.is_empty() {
            p.soft { "The files say nothing of how they were made." }
        }
        @if !single.is_empty() {
            details open[whole.is_empty()] {
                summary { "Each server's and each run's own command (its first run)" }
                @for (who, command) in &single {
                    h3 { (who.replace('_', " ")) }
                    pre { (command) }
                }
            }
        }
    }
}
