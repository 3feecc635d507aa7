//! The report: runs of the generator as one HTML page, charts beside it, medians in the terminal.

mod chart;
mod figures;
mod page;
mod pictures;
mod run;
mod study;
mod table;

pub use figures::{short, show_ns};

use crate::{Outcome, fail};
pub use run::{LATENCIES, Run};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use study::Work;

#[derive(clap::Args, Clone)]
pub struct Options {
    /// JSON files of runs; LABEL=FILE names whose run it is, files of one label are repetitions
    #[arg(required = true, value_name = "[LABEL=]FILE")]
    files: Vec<String>,
    /// Folder for report.html and charts/
    #[arg(long, value_name = "DIR", default_value = "bench-report")]
    out: PathBuf,
    /// Heading of the page
    #[arg(long, default_value = "corelane-bench")]
    title: String,
}

/// All numbers of a run's JSON under flat names, old and new forms alike.
pub fn figures_of(json: &Map<String, Value>) -> BTreeMap<String, f64> {
    run::figures_of(json).0
}

/// A chart that is on disk, and in the page.
struct Drawn {
    file: String,
    svg: String,
}

/// What the page has of one load.
struct Shown<'a> {
    bars: Vec<Drawn>,
    panels: Vec<(Work<'a>, Vec<Drawn>)>,
}

fn draw(folder: &Path, charts: Vec<chart::Chart>) -> Outcome<Vec<Drawn>> {
    let draw = |chart: chart::Chart| {
        let svg = chart.svg()?;
        put(&folder.join(format!("{}.svg", chart.file)), svg.as_bytes())?;
        put(&folder.join(format!("{}.png", chart.file)), &chart.png()?)?;
        Ok(Drawn {
            file: chart.file,
            svg,
        })
    };
    charts.into_iter().map(draw).collect()
}

pub fn run(options: &Options) -> Outcome<bool> {
    let read = |argument: &String| match argument.split_once('=') {
        // A file whose own name has the sign in it is a file.
        Some((label, file)) if !Path::new(argument).exists() => {
            Run::read(Path::new(file), Some(label))
        }
        _ => Run::read(Path::new(argument), None),
    };
    let runs: Outcome<Vec<Run>> = options.files.iter().map(read).collect();
    let runs = runs?;
    crate::say(write(&options.title, &runs, &options.out)?);
    let is_any_valid = runs.iter().any(Run::is_valid);
    if !is_any_valid {
        eprintln!("corelane-bench: every run is void: the report has no figures");
    }
    Ok(is_any_valid)
}

/// Makes the report of what `compare` or `table` measured; gives its tables as text.
pub fn of_files(title: &str, files: &[PathBuf], out: &Path) -> Outcome<String> {
    let runs: Outcome<Vec<Run>> = files.iter().map(|file| Run::read(file, None)).collect();
    write(title, &runs?, out)
}

fn write(title: &str, runs: &[Run], out: &Path) -> Outcome<String> {
    let works = study::works(runs);
    let charts = out.join("charts");
    if let Err(error) = std::fs::create_dir_all(&charts) {
        return fail(format!("cannot make {}: {error}", charts.display()));
    }
    clear(&charts);
    let mut shown = Vec::new();
    for (at, work) in works.iter().enumerate() {
        let file = format!("{:02}-{}", at + 1, file_name(work.name));
        let mut panels = Vec::new();
        for (at, panel) in work.panels().into_iter().enumerate() {
            let file = match panel.part.as_str() {
                "" => file.clone(),
                part => format!("{file}-{:02}-{}", at + 1, file_name(part)),
            };
            let drawn = draw(&charts, pictures::lines_of(&panel, &file))?;
            panels.push((panel, drawn));
        }
        let bars = draw(&charts, pictures::bars_of(work, &file))?;
        shown.push(Shown { bars, panels });
    }
    let page = page::page(title, &works, runs, &shown);
    let path = out.join("report.html");
    put(&path, page.as_bytes())?;
    let path = path.canonicalize().unwrap_or(path);
    let text = table::text(&works);
    Ok(format!("{text}\nreport: {}", path.display()))
}

/// Removes the charts of an earlier report, and nothing else: their names begin with a number.
fn clear(charts: &Path) {
    for entry in std::fs::read_dir(charts).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let number = name.split('-').next().unwrap_or("");
        let is_numbered = 2 <= number.len() && number.bytes().all(|byte| byte.is_ascii_digit());
        let is_picture = name.ends_with(".svg") || name.ends_with(".png");
        if is_numbered && is_picture {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn put(path: &Path, bytes: &[u8]) -> Outcome<()> {
    std::fs::write(path, bytes)
        .or_else(|error| fail(format!("cannot write {}: {error}", path.display())))
}

/// A name that any file system takes.
pub fn file_name(text: &str) -> String {
    let legal = |c: char| {
        if c.is_ascii_alphanumeric() || c == '.' {
            c
        } else {
            '-'
        }
    };
    let name: String = text.chars().map(legal).collect();
    let parts: Vec<&str> = name.split('-').filter(|part| !part.is_empty()).collect();
    parts.join("-").chars().take(80).collect()
}
