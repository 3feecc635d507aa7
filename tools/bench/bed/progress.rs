//! What the person at the terminal sees while a comparison runs.

use indicatif::{ProgressBar, ProgressStyle};
use std::cell::Cell;
use std::time::Instant;

/// A bar over the seconds that all runs will take; where there is no terminal, lines only.
pub struct Progress {
    bar: ProgressBar,
    /// Seconds of the steps that are over.
    done: Cell<f64>,
    /// The step under way: when it began, and how long it should take.
    step: Cell<(Instant, f64)>,
}

impl Progress {
    pub fn new(seconds: f64) -> Progress {
        let bar = ProgressBar::new((seconds * 10.0) as u64);
        let form =
            "{bar:32.cyan/238} {percent:>3} % · {elapsed_precise} of about {eta_total} · {msg}";
        let style =
            ProgressStyle::with_template(&form.replace("{eta_total}", "{duration_precise}"));
        if let Ok(style) = style {
            bar.set_style(style.progress_chars("━━─"));
        }
        Progress {
            bar,
            done: Cell::new(0.0),
            step: Cell::new((Instant::now(), 0.0)),
        }
    }

    pub fn begin(&self, words: String, seconds: f64) {
        self.step.set((Instant::now(), seconds));
        self.bar.set_message(words);
        self.tick();
    }

    pub fn tick(&self) {
        let (begun, seconds) = self.step.get();
        let passed = begun.elapsed().as_secs_f64().min(seconds);
        self.bar
            .set_position(((self.done.get() + passed) * 10.0) as u64);
    }

    pub fn end(&self, words: Option<&str>) {
        let (_, seconds) = self.step.get();
        self.done.set(self.done.get() + seconds);
        self.step.set((Instant::now(), 0.0));
        self.tick();
        if let Some(words) = words {
            self.bar.suspend(|| eprintln!("{words}"));
        }
    }

    /// A line above the bar.
    pub fn say(&self, words: &str) {
        self.bar.suspend(|| crate::say(words));
    }

    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
