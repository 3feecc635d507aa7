//! The state of a shard in RocketMQ's words: what `brokerStatus` and `clusterList` show (P§2.10, 28).
//!
//! Tools read some of these as numbers, so that what does not exist here is there as 0.

use super::Shard;
use crate::io::local_hour;

/// As the frames' version says.
const VERSION: &str = "V5_3_3";

/// What does not exist here: thread pools, the timer wheel, the buffer pool, the page cache lock.
const ZEROS: &[&str] = &[
    "EndTransactionQueueSize",
    "EndTransactionThreadPoolQueueCapacity",
    "ackThreadPoolQueueCapacity",
    "ackThreadPoolQueueHeadWaitTimeMills",
    "ackThreadPoolQueueSize",
    "dispatchMaxBuffer",
    "getMessageEntireTimeMax",
    "litePullThreadPoolQueueCapacity",
    "litePullThreadPoolQueueHeadWaitTimeMills",
    "litePullThreadPoolQueueSize",
    "pageCacheLockTimeMills",
    "pullThreadPoolQueueCapacity",
    "pullThreadPoolQueueHeadWaitTimeMills",
    "pullThreadPoolQueueSize",
    "putMessageEntireTimeMax",
    "queryThreadPoolQueueCapacity",
    "queryThreadPoolQueueHeadWaitTimeMills",
    "queryThreadPoolQueueSize",
    "sendThreadPoolQueueCapacity",
    "sendThreadPoolQueueHeadWaitTimeMills",
    "sendThreadPoolQueueSize",
    "startAcceptSendRequestTimeStamp",
    "timerCongestNum",
    "timerOffsetBehind",
    "timerReadBehind",
];

/// The classes of put latency that tools show; none is measured.
const PUT_TIME_CLASSES: [&str; 13] = [
    "<=0ms",
    "0~10ms",
    "10~50ms",
    "50~100ms",
    "100~200ms",
    "200~500ms",
    "500ms~1s",
    "1~2s",
    "2~3s",
    "3~4s",
    "4~5s",
    "5~10s",
    "10s~",
];

/// Messages stored and handed out up to the last two midnights.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Days {
    hour: u8,
    yesterday: (u64, u64),
    today: (u64, u64),
}

impl Days {
    fn note(&mut self, hour: u8, totals: (u64, u64)) {
        if hour < self.hour {
            self.yesterday = self.today;
            self.today = totals;
        }
        self.hour = hour;
    }
}

/// Begins the keys of stages: name, period; nanoseconds.
const STAGE_PREFIX: &str = "corelaneStage_";
/// Begins the keys of stalls: step of a turn; nanoseconds.
const STALL_PREFIX: &str = "corelaneStall_";
/// Begins the keys of what was being done in the longest.
const STALL_BY_PREFIX: &str = "corelaneStallBy_";

type Table = Vec<(String, String)>;

fn put(table: &mut Table, key: &str, value: impl ToString) {
    table.push((key.to_owned(), value.to_string()));
}

impl Shard {
    /// Takes note of the time of day and of rates. Called about once a second.
    pub fn note_time(&mut self, now_ms: u64) {
        let totals = (self.counters.produced, self.counters.fetched);
        self.days.note(local_hour(now_ms), totals);
        let (found, missed) = (self.counters.fetches_found, self.counters.fetches_missed);
        self.statistics.count_fetches(found, missed);
        self.statistics.sample(now_ms);
    }

    /// 28. `earliest_ms`: store time of the first record, −1 if there is none.
    pub(super) fn runtime(&mut self, now_ms: u64, earliest_ms: i64) -> Table {
        let mut table = Vec::new();
        put(&mut table, "brokerVersionDesc", VERSION);
        put(&mut table, "brokerActive", true);
        put(&mut table, "bootTimestamp", self.settings.boot_ms);
        let age_ms = now_ms.saturating_sub(self.settings.boot_ms);
        put(&mut table, "runtime", age(age_ms));
        put(&mut table, "earliestMessageTimeStamp", earliest_ms);
        self.put_counts(&mut table);
        self.put_rates(&mut table, now_ms);
        self.put_store(&mut table);
        for key in ZEROS {
            put(&mut table, key, 0);
        }
        self.put_stages(&mut table);
        for (way, bytes) in self.egress_bytes {
            put(&mut table, &format!("egressBytes_{way}"), bytes);
        }
        for key in ["timerEnqueueTps", "timerDequeueTps"] {
            put(&mut table, key, "0.0");
        }
        table.sort_unstable();
        table
    }

    fn put_counts(&mut self, table: &mut Table) {
        let visible = self.stages.visible();
        let counters = &self.counters;
        let Days {
            yesterday, today, ..
        } = self.days;
        for (key, value) in [
            ("msgPutTotalYesterdayMorning", yesterday.0),
            ("msgPutTotalTodayMorning", today.0),
            ("msgPutTotalTodayNow", counters.produced),
            ("msgGetTotalYesterdayMorning", yesterday.1),
            ("msgGetTotalTodayMorning", today.1),
            ("msgGetTotalTodayNow", counters.fetched),
            ("putMessageTimesTotal", counters.produced),
            ("putMessageFailedTimes", counters.produce_refused),
            ("putMessageSizeTotal", counters.produced_bytes),
        ] {
            put(table, key, value);
        }
        let average = counters.produced_bytes as f64 / counters.produced.max(1) as f64;
        put(table, "putMessageAverageSize", number(average));
        let classes = PUT_TIME_CLASSES.map(|class| format!("[{class}]:0 "));
        put(table, "putMessageDistributeTime", classes.concat());
        for (key, ns) in [
            ("putLatency99", visible.p99_ns),
            ("putLatency999", visible.p999_ns),
        ] {
            put(table, key, format!("{:.2}", ns as f64 / 1e6));
        }
    }

    /// What `corelane stats` shows: our own keys, which other tools list as they are.
    fn put_stages(&mut self, table: &mut Table) {
        for (name, [recent, total]) in self.stages.all() {
            for (period, times) in [("10s", recent), ("total", total)] {
                let key = format!("{STAGE_PREFIX}{name}_{period}");
                let value = format!(
                    "count {} p50 {} p99 {} p999 {} max {}",
                    times.count, times.p50_ns, times.p99_ns, times.p999_ns, times.max_ns
                );
                put(table, &key, value);
            }
        }
        for stall in &self.stalls {
            let step = stall.step;
            let value = format!("count {} max {}", stall.count, stall.longest_ns);
            put(table, &format!("{STALL_PREFIX}{step}"), value);
            if !stall.by.is_empty() {
                put(table, &format!("{STALL_BY_PREFIX}{step}"), &stall.by);
            }
        }
    }

    fn put_rates(&self, table: &mut Table, now_ms: u64) {
        let text = |rates: [f64; 3]| rates.map(number).join(" ");
        let [stored, handed_out] = self.statistics.broker_tps(now_ms);
        put(table, "putTps", text(stored));
        put(table, "getTransferredTps", text(handed_out));
        let [found, missed] = self.statistics.fetch_tps(now_ms);
        let total = [0, 1, 2].map(|window| found[window] + missed[window]);
        put(table, "getFoundTps", text(found));
        put(table, "getMissTps", text(missed));
        put(table, "getTotalTps", text(total));
    }

    fn put_store(&self, table: &mut Table) {
        let log = &self.log;
        put(table, "commitLogMinOffset", log.first_offset());
        put(table, "commitLogMaxOffset", log.appended());
        let unseen = log.appended().saturating_sub(self.visible());
        put(table, "dispatchBehindBytes", unseen);
        let unsynced = log.appended().saturating_sub(log.synced());
        put(table, "remainHowManyDataToFlush", size(unsynced));
        // What Apache's broker says where it has no pool.
        put(table, "remainTransientStoreBufferNumbs", i32::MAX);
        let ratio = self.space.map_or(0.0, |space| space.used_ratio());
        let ratio = format!("{ratio:.2}");
        let folder = log.segments().folder().display();
        put(table, &format!("commitLogDiskRatio_{folder}"), &ratio);
        put(table, "commitLogDiskRatio", &ratio);
        put(table, "consumeQueueDiskRatio", &ratio);
        let (total, free) = self
            .space
            .map_or((0, 0), |space| (space.total, space.available));
        let capacity = format!("Total : {}, Free : {}.", size(total), size(free));
        put(table, "commitLogDirCapacity", capacity);
        for (level, offset) in self.delay.all() {
            let queue = self.find_queue(super::topics::SCHEDULE_TOPIC, level - 1);
            let max = queue.map_or(0, |index| self.queues.queue(index).max());
            let key = format!("scheduleMessageOffset_{level}");
            put(table, &key, format!("{offset},{max}"));
        }
    }
}

/// A fraction always has a point, as Java prints it.
fn number(value: f64) -> String {
    format!("{value:?}")
}

/// `1.4 KiB`.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while 1024.0 <= value && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{value:.1} {}", UNITS[unit]),
    }
}

fn age(ms: u64) -> String {
    let seconds = ms / 1000;
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
    format!("[ {days} days, {hours} hours, {minutes} minutes, {seconds} seconds ]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages_are_written_as_tools_expect_them() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1434), "1.4 KiB");
        assert_eq!(size(252 << 30), "252.0 GiB");
        assert_eq!(age(925_000), "[ 0 days, 0 hours, 15 minutes, 25 seconds ]");
        assert_eq!(age(90_061_999), "[ 1 days, 1 hours, 1 minutes, 1 seconds ]");
        assert_eq!(number(0.0), "0.0");
    }

    #[test]
    fn at_midnight_today_becomes_yesterday() {
        let mut days = Days::default();
        for (hour, total) in [(22, 10), (23, 20), (0, 30), (1, 40), (23, 50), (0, 60)] {
            days.note(hour, (total, total * 2));
        }
        assert_eq!(days.yesterday, (30, 60));
        assert_eq!(days.today, (60, 120));
    }
}
