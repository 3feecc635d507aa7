//! The line that tells how a run goes, on the error output, once a second.

use crate::clock;
use crate::load::Load;
use crate::report::short;
use std::io::{IsTerminal, Write};

pub struct Progress {
    is_shown: bool,
    /// A terminal's line is written over; elsewhere each has its own.
    is_terminal: bool,
    /// Of the window; none where a count ends the run.
    duration: Option<f64>,
    next_ns: u64,
    has_line: bool,
    last_messages: u64,
}

impl Progress {
    /// Of several threads only the first shows something.
    pub fn new(load: &Load, is_first: bool) -> Progress {
        let is_terminal = std::io::stderr().is_terminal();
        Progress {
            is_shown: is_first && (is_terminal || load.progress),
            is_terminal,
            duration: (load.count == 0).then_some(load.duration),
            next_ns: 0,
            has_line: false,
            last_messages: 0,
        }
    }

    fn show(&mut self, text: &str) {
        let mut out = std::io::stderr();
        // Progress that cannot be shown is no reason to end a run.
        let _ = if self.is_terminal {
            write!(out, "\r\x1b[K{text}").and_then(|()| out.flush())
        } else {
            writeln!(out, "{text}")
        };
        self.has_line = true;
    }

    pub fn warm_up(&mut self, now_ns: u64, messages: impl Fn() -> u64) {
        if !self.is_shown || now_ns < self.next_ns {
            return;
        }
        let messages = messages();
        if 0 < self.next_ns {
            let rate = short(messages.saturating_sub(self.last_messages) as f64);
            self.show(&format!("warming up · {rate} messages/s"));
        }
        self.last_messages = messages;
        self.next_ns = now_ns + clock::SECOND_NS;
    }

    pub fn second(&mut self, second: usize, messages: u64, p99_ns: Option<u64>) {
        if !self.is_shown {
            return;
        }
        let p99 = p99_ns.map_or(String::new(), |ns| {
            format!(" · p99 {} µs", short(ns as f64 / 1e3))
        });
        let of = self
            .duration
            .map_or(String::new(), |seconds| format!(" of {seconds}"));
        let rate = short(messages as f64);
        self.show(&format!("{second}{of} s · {rate} messages/s{p99}"));
    }

    pub fn end(&mut self) {
        if self.has_line && self.is_terminal {
            eprint!("\r\x1b[K");
        }
    }
}
