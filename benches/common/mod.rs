//! What all benches share: smoke runs, a folder to write in, cases measured in turn, and the table at the end.
//!
//! Cases are measured A B A B …, so that what disturbs one disturbs all; a cell is the median of its rounds
//! with the least and the greatest beside it. Nothing is asserted about times.
#![allow(dead_code)] // Each bench uses its own part of it.

pub mod allocations;
pub mod door;

use std::time::Instant;

use comfy_table::{Cell, CellAlignment, Table, presets::ASCII_MARKDOWN};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_gettime};

/// Rounds of a full run; one more comes first and only warms up.
const ROUNDS: usize = 7;

/// `SMOKE=1`: everything runs once and tiny, to see that it runs and that its results are right.
pub fn is_smoke() -> bool {
    std::env::var_os("SMOKE").is_some_and(|value| value != "0")
}

/// The first for a smoke run, the second for a full one.
pub fn tiny_or<T>(tiny: T, full: T) -> T {
    if is_smoke() { tiny } else { full }
}

/// A folder below `target/`, on the file system that holds this repository; gone when dropped.
pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("target/ can be written to")
}

/// What a case cost.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    pub wall_ns: f64,
    /// Of every thread of this process, workers of its rings among them.
    pub cpu_ns: f64,
}

impl Cost {
    /// Of one of `count` equal parts.
    pub fn each(self, count: usize) -> Self {
        Self {
            wall_ns: self.wall_ns / count as f64,
            cpu_ns: self.cpu_ns / count as f64,
        }
    }
}

/// Measures one piece of work.
pub fn cost(work: impl FnOnce()) -> Cost {
    let (start, cpu) = (Instant::now(), process_cpu_ns());
    work();
    Cost {
        wall_ns: start.elapsed().as_nanos() as f64,
        cpu_ns: process_cpu_ns() - cpu,
    }
}

pub fn process_cpu_ns() -> f64 {
    cpu_ns(ClockId::CLOCK_PROCESS_CPUTIME_ID)
}

/// Of the calling thread.
pub fn thread_cpu_ns() -> f64 {
    cpu_ns(ClockId::CLOCK_THREAD_CPUTIME_ID)
}

fn cpu_ns(clock: ClockId) -> f64 {
    clock_gettime(clock).map_or(0.0, |time| time.num_nanoseconds() as f64)
}

/// The most memory that this process ever had, in bytes.
pub fn memory_peak() -> u64 {
    getrusage(UsageWho::RUSAGE_SELF).map_or(0, |usage| usage.max_rss() as u64 * 1024)
}

/// Measurements of every row with every column, `N` figures each.
pub struct Study<const N: usize> {
    rows: Vec<String>,
    columns: Vec<String>,
    /// By row, column and round.
    samples: Vec<Vec<Vec<[f64; N]>>>,
}

impl<const N: usize> Study<N> {
    /// Takes `sample(row, column)` of all cells in turn; NaN where a case does not exist.
    pub fn measure(
        rows: &[impl ToString],
        columns: &[impl ToString],
        mut sample: impl FnMut(usize, usize) -> [f64; N],
    ) -> Self {
        let mut samples = vec![vec![Vec::new(); columns.len()]; rows.len()];
        let rounds = tiny_or(1, ROUNDS + 1);
        for round in 0..rounds {
            for (row, cells) in samples.iter_mut().enumerate() {
                for (column, cell) in cells.iter_mut().enumerate() {
                    let figures = sample(row, column);
                    if 0 < round || is_smoke() {
                        cell.push(figures);
                    }
                }
            }
        }
        Self {
            rows: rows.iter().map(ToString::to_string).collect(),
            columns: columns.iter().map(ToString::to_string).collect(),
            samples,
        }
    }

    /// The median of one figure of one cell.
    pub fn median(&self, row: usize, column: usize, figure: usize) -> f64 {
        self.spread(row, column, figure).1
    }

    /// Least, median, greatest.
    fn spread(&self, row: usize, column: usize, figure: usize) -> (f64, f64, f64) {
        let samples = &self.samples[row][column];
        let mut values: Vec<f64> = samples.iter().map(|figures| figures[figure]).collect();
        values.sort_by(f64::total_cmp);
        (
            values[0],
            values[values.len() / 2],
            values[values.len() - 1],
        )
    }

    /// A table of one figure: its rows and columns, and what more the caller says of each row.
    pub fn print(
        &self,
        title: &str,
        corner: &str,
        figure: usize,
        more: (&[&str], impl Fn(usize) -> Vec<String>),
    ) {
        if is_smoke() {
            return;
        }
        let names = self.columns.iter().map(String::as_str);
        let header = std::iter::once(corner)
            .chain(names)
            .chain(more.0.iter().copied());
        let mut table = table(header);
        for (row, name) in self.rows.iter().enumerate() {
            let cells = (0..self.columns.len()).map(|column| {
                let (least, median, greatest) = self.spread(row, column, figure);
                if median.is_nan() {
                    return String::new();
                }
                format!("{} ({}–{})", show(median), show(least), show(greatest))
            });
            let mut line = vec![name.clone()];
            line.extend(cells);
            line.extend(more.1(row));
            table.add_row(right(line));
        }
        println!("\n{title}\n{table}");
    }

    /// [`Self::print`] without more.
    pub fn print_plain(&self, title: &str, corner: &str, figure: usize) {
        self.print(title, corner, figure, (&[], |_| Vec::new()));
    }
}

/// An empty table in Markdown, to be pasted into kernel-notes/.
pub fn table<'a>(header: impl Iterator<Item = &'a str>) -> Table {
    let mut table = Table::new();
    table.load_preset(ASCII_MARKDOWN);
    table.set_header(right(header.map(ToOwned::to_owned).collect()));
    table
}

/// Numbers stand under one another; what names a row stands at the left.
pub fn right(line: Vec<String>) -> Vec<Cell> {
    let cells = line.into_iter().enumerate().map(|(at, text)| {
        let alignment = if at == 0 {
            CellAlignment::Left
        } else {
            CellAlignment::Right
        };
        Cell::new(text).set_alignment(alignment)
    });
    cells.collect()
}

/// Three digits that mean something.
pub fn show(value: f64) -> String {
    match value.abs() {
        small if small < 1.0 => format!("{value:.3}"),
        small if small < 10.0 => format!("{value:.2}"),
        small if small < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// The one line of a smoke run.
pub fn smoke_passed(name: &str, what: &str) {
    if is_smoke() {
        println!("{name}: {what}");
    }
}
