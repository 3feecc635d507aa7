//! Rows 2 and 9: what is measured at a rate that RocketMQ's own maximum gives.

use super::Table;
use super::rows::Who;
use crate::bed::Server;
use crate::control::Control;
use crate::{Outcome, clock};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What RocketMQ 5.5.0 took on the machine on which the goals were set: a rate to measure at where
/// RocketMQ is not measured.
const APACHE_MAX: f64 = 41_700.0;
/// A broker looks at its disk every 10 s.
const DELETION_S: f64 = 12.0;
const UPDATE_BROKER_CONFIG: i32 = 25;
const RATIO: &str = "diskSpaceCleanForciblyRatio";

/// Segments of a log: how many there are, and where the first one begins.
struct Segments {
    count: usize,
    first: u64,
}

/// Looks for files whose name is an offset, in a folder called commitlog.
fn segments(store: &Path) -> Segments {
    let mut folders = vec![store.to_path_buf()];
    let mut found = Segments {
        count: 0,
        first: u64::MAX,
    };
    while let Some(folder) = folders.pop() {
        let is_log = folder.file_name().is_some_and(|name| name == "commitlog");
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let offset = name.to_str().filter(|name| name.len() == 20);
            match offset.and_then(|name| name.parse::<u64>().ok()) {
                Some(offset) if is_log => {
                    found.count += 1;
                    found.first = found.first.min(offset);
                }
                _ if entry.path().is_dir() => folders.push(entry.path()),
                _ => {}
            }
        }
    }
    found
}

/// Lets a broker delete its oldest segments: by a limit that the disk is above, for a while.
fn delete_oldest(addr: SocketAddr, time_s: f64, is_over: &AtomicBool) -> Outcome<()> {
    let set = |percent: u32| {
        let body = format!("{RATIO}={percent}\n");
        Control::connect(addr)?.request_with(UPDATE_BROKER_CONFIG, body.as_bytes())
    };
    set(10)?;
    wait(time_s, is_over);
    set(85)
}

fn wait(time_s: f64, is_over: &AtomicBool) {
    let end_ns = clock::now_ns() + clock::seconds_ns(time_s);
    while clock::now_ns() < end_ns && !is_over.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Table {
    /// Row 2: our CPU per message at the rate that was RocketMQ's greatest.
    pub fn at_maximum(&mut self) -> Outcome<()> {
        let rate = ("2-saturated", Who::Apache, "messages_per_s");
        let measured = self.found.median(rate).map(|rate| rate.middle);
        let Some(rate) = measured.or(self.options.apache_max) else {
            self.note(2, "the second half needs RocketMQ or --apache-max");
            return Ok(());
        };
        let load = format!("e2e --connections 64 --in-flight 8 --rate {rate:.0} --own-delay tell");
        let work = self.work("2-at-maximum", &load)?;
        let whom = [(Who::Ours, self.ours("async", &[]))];
        self.compare(&work, &whom, self.options.bed.repetitions)
    }

    /// Row 9: minutes at half of RocketMQ's maximum, over rolls and a deletion.
    pub fn steady(&mut self) -> Outcome<()> {
        let rate = (self.apache_max()? / 2.0).min(self.scale.steady_rate_most());
        let seconds = self.scale.steady_s(self.options.steady);
        let load = format!(
            "produce --connections 64 --in-flight 16 --rate {rate:.0} --duration {seconds} --percentile 99.99 --read-back none"
        );
        let mut work = self.work("9-steady", &load)?;
        let duration = ["--duration".to_owned(), seconds.to_string()];
        work.words.extend(duration);
        let size = self.scale.segment_size();
        let setting = format!("mappedFileSizeCommitLog={size}");
        let mut whom = vec![(Who::Ours, self.ours("async", &[&setting]))];
        if let Some(apache) = self.apache("async", &[&setting])? {
            whom.push((Who::Apache, apache));
        }
        let floor = format!("append --file-mib {}", (size >> 20).max(8));
        if !self.options.no_floor {
            whom.push((Who::Floor, self.floor(&floor, &work)?));
        }
        let first = self.session.ran.len();
        let mut entries = Vec::new();
        for (_, contender) in &whom {
            let at = self.session.entry(contender)?;
            self.session.start(at)?;
            entries.push(at);
        }
        let repetitions = self.options.bed.repetitions;
        for repetition in 1..=self.scale.steady_repetitions(repetitions) {
            for ((who, _), at) in whom.iter().zip(&entries) {
                let is_over = AtomicBool::new(false);
                let addr = self.session.server(*at).map(|server| server.addr);
                let session = &mut self.session;
                let (told, deleted) = std::thread::scope(|scope| {
                    let other = scope.spawn(|| {
                        wait(seconds / 2.0, &is_over);
                        match addr.filter(|_| *who != Who::Floor) {
                            Some(addr) => {
                                delete_oldest(addr, DELETION_S.min(seconds / 4.0), &is_over)
                            }
                            None => Ok(()),
                        }
                    });
                    let told = session.measure_one(*at, &work, repetition);
                    is_over.store(true, Ordering::Relaxed);
                    (told, other.join())
                });
                told?;
                if !matches!(deleted, Ok(Ok(()))) {
                    self.note(9, format!("{} took no order to delete", who.words()));
                }
                self.tell_segments(*who, *at);
            }
        }
        // RocketMQ without the setting stays up: its code is warm.
        self.session
            .end(|contender| !contender.is_peer || contender.name.contains(&setting));
        self.take(first, &work, &whom)
    }

    fn tell_segments(&mut self, who: Who, at: usize) {
        let found = match self.session.server(at) {
            Some(Server { store, .. }) if who != Who::Floor => segments(store),
            _ => return,
        };
        let first = found.first / self.scale.segment_size();
        self.found
            .put("9-steady", who, "segments", found.count as f64);
        let words = format!(
            "{} has {} segments at the end, and its first {first} were deleted",
            who.words(),
            found.count
        );
        self.note(9, words);
    }

    /// RocketMQ's greatest rate: measured, told, or known.
    fn apache_max(&mut self) -> Outcome<f64> {
        let key = "messages_per_s";
        let known = self.found.median(("1-64x8", Who::Apache, key));
        if let Some(known) = known {
            return Ok(known.middle);
        }
        if let Some(apache) = self.apache("async", &[])? {
            let work = self.work("9-maximum", "produce --connections 64 --in-flight 8")?;
            self.compare(&work, &[(Who::Apache, apache)], 1)?;
        }
        let found = self.found.median(("9-maximum", Who::Apache, key));
        let told = found.map(|found| found.middle).or(self.options.apache_max);
        Ok(told.unwrap_or(APACHE_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_counted_in_the_log_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("0/commitlog");
        let other = folder.path().join("0/consumequeue/a/0");
        std::fs::create_dir_all(&log).unwrap();
        std::fs::create_dir_all(&other).unwrap();
        for (folder, offset) in [(&log, 4096), (&log, 8192), (&other, 0)] {
            std::fs::write(folder.join(format!("{offset:020}")), "").unwrap();
        }
        let found = segments(folder.path());
        assert_eq!((found.count, found.first), (2, 4096));
    }
}
