//! One run: the disk quiet, one server running, the generator on its CPU, and what came of it.

use super::Options;
use super::contender::{Contender, Work, flush_family};
use super::progress::Progress;
use super::server::Server;
use super::session::EXIT_SIGNAL;
use super::stop::Stop;
use crate::{Outcome, fail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Map, Value, json};
use std::fs::{self, File, OpenOptions};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const SYNC_MAX: Duration = Duration::from_secs(120);
/// What a generator may take beyond warm-up and window: topics, drain, reading back.
const MORE_MAX: Duration = Duration::from_secs(90);
/// A server that was halted has timers to catch up with.
const CATCH_UP: Duration = Duration::from_millis(200);
/// Its connections break a moment before a process is gone that is why.
const DYING_MAX: Duration = Duration::from_millis(300);
const TERM_MAX: Duration = Duration::from_secs(2);

pub struct Bench {
    pub options: Options,
    pub stop: Stop,
    pub progress: Progress,
    pub environment: Map<String, Value>,
    /// How this comparison was called.
    pub command: String,
    /// Folder of the runs' JSON files.
    pub runs: PathBuf,
}

/// Which run of whom.
pub struct Which<'a> {
    pub contender: &'a Contender,
    pub work: &'a Work,
    pub repetition: u32,
}

pub struct Ran {
    pub file: PathBuf,
    pub void: Option<String>,
    pub json: Map<String, Value>,
}

impl Bench {
    /// What the last run left dirty is not for the next one to write.
    pub fn sync(&self) -> Outcome<()> {
        let folder = File::open(&self.options.work)?;
        let (done, is_done) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let _ = nix::unistd::syncfs(folder);
            let _ = done.send(());
        });
        self.stop
            .wait(SYNC_MAX, || Ok(is_done.try_recv().ok()))
            .map(|_| ())
    }

    fn check_room(&self) -> Outcome<()> {
        let found = nix::sys::statvfs::statvfs(&self.options.work)?;
        let free = (found.blocks_available() * found.fragment_size()) >> 30;
        if free < self.options.room_gib {
            return fail(format!(
                "{free} GiB are free in {}, --room-gib wants {}; free some, or choose another place with --work",
                self.options.work.display(),
                self.options.room_gib
            ));
        }
        Ok(())
    }

    /// The generator's command line, without this program's own name.
    pub fn words(&self, server: &Server, work: &Work, json: Option<&Path>) -> Vec<String> {
        let mut words = vec![work.kind.clone()];
        let mut add = |option: &str, value: String| {
            if !work.has(option) {
                words.push(option.to_owned());
                words.push(value);
            }
        };
        add("--addr", server.addr.to_string());
        add("--topic", work.topic());
        // A thread for each of the generator's CPUs, as far as there are connections for them.
        let cpus = &self.options.load_cpu;
        let connections = work.number("--connections").unwrap_or(1.0);
        let threads = cpus.0.len().min(connections as usize).max(1);
        add("--cpu", cpus.to_string());
        if 1 < threads {
            add("--threads", threads.to_string());
        }
        add("--server-pid", server.pid.to_string());
        if !work.has("--count") {
            add("--duration", self.options.duration.to_string());
            add("--warmup", self.options.warmup.to_string());
        }
        if let Some(json) = json {
            add("--json", json.to_string_lossy().into_owned());
        }
        words.extend(work.words.iter().cloned());
        words
    }

    /// What fills the topic that a load only reads.
    pub fn prepare_words(&self, server: &Server, work: &Work) -> Vec<String> {
        let words = format!(
            "produce --addr {} --topic {} --queues {} --cpu {} --connections 16 --in-flight 8 --count {} --warmup 0 --duration 300",
            server.addr,
            work.topic(),
            work.value("--queues").unwrap_or("8"),
            self.options.load_cpu,
            self.options.prepare
        );
        words.split_whitespace().map(str::to_owned).collect()
    }

    pub fn spawn(&self, words: &[String], log: &Path) -> Outcome<Child> {
        let out = OpenOptions::new().create(true).append(true).open(log)?;
        let own = std::env::current_exe()?;
        let child = Command::new(&own)
            .args(["hold", "--"])
            .arg(&own)
            .args(words)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .process_group(0)
            .spawn()?;
        Ok(child)
    }

    /// Runs the generator to its end, or ends it.
    pub fn generate(&self, words: &[String], log: &Path, limit: Duration) -> Outcome<ExitStatus> {
        let mut child = self.spawn(words, log)?;
        let ended = self.stop.wait(limit, || {
            self.progress.tick();
            Ok(child.try_wait()?)
        });
        if let Ok(Some(status)) = ended {
            return Ok(status);
        }
        let group = Pid::from_raw(child.id() as i32);
        let _ = killpg(group, Signal::SIGTERM);
        let end = Instant::now() + TERM_MAX;
        while child.try_wait()?.is_none() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = child.kill();
        let status = child.wait()?;
        ended.map(|_| status)
    }

    pub fn limit(&self, work: &Work) -> Duration {
        Duration::from_secs_f64(self.expected_s(work) + work.limit_s) + MORE_MAX
    }

    /// How long a load takes.
    pub fn expected_s(&self, work: &Work) -> f64 {
        let told = |option, usual| work.number(option).unwrap_or(usual);
        told("--warmup", self.options.warmup) + told("--duration", self.options.duration)
    }

    /// Where a contender's store is while its server is up.
    pub fn store_of(&self, contender: &Contender) -> PathBuf {
        super::server::store(&self.options.work, contender)
    }

    /// A file beside the run's JSON.
    pub fn file(&self, which: &Which<'_>, end: &str) -> PathBuf {
        let name = crate::report_html::file_name(&which.contender.name);
        let (work, repetition) = (&which.work.name, which.repetition);
        self.runs.join(format!("{work}.{name}.{repetition}.{end}"))
    }

    /// One run of one contender; the others are halted already.
    pub fn measure(&self, server: &Server, which: &Which<'_>) -> Outcome<Ran> {
        let (json, log) = (self.file(which, "json"), self.file(which, "log"));
        self.check_room()?;
        self.sync()?;
        let words = self.words(server, which.work, Some(&json));
        let mut void = None;
        if server.is_alive() {
            server.go_on();
            std::thread::sleep(CATCH_UP);
            let ended = self.generate(&words, &log, self.limit(which.work));
            // Ended early, it tells of a part of a run.
            let status = ended.inspect_err(|_| drop(fs::remove_file(&json)))?;
            void = reason(status, &log);
            if void.is_some() {
                let is_gone = || Ok((!server.is_alive()).then_some(()));
                self.stop.wait(DYING_MAX, is_gone)?;
            }
        }
        if !server.is_alive() {
            void = Some(server.last_words());
        }
        server.halt();
        self.finish(server, which, (&words, &json), void)
    }

    /// Puts into the run's JSON what only the comparison knows.
    pub fn finish(
        &self,
        server: &Server,
        which: &Which<'_>,
        (words, path): (&[String], &Path),
        mut void: Option<String>,
    ) -> Outcome<Ran> {
        let told = fs::read_to_string(path).ok();
        let told = told.and_then(|text| serde_json::from_str::<Map<String, Value>>(&text).ok());
        if told.is_none() && void.is_none() {
            void = Some("the generator left no JSON".to_owned());
        }
        let mut json = told.unwrap_or_default();
        let prepare = which.contender.is_to_prepare(which.work);
        let prepare = prepare.then(|| self.prepare_words(server, which.work));
        json.insert(
            "compare".to_owned(),
            json!({
                "command": self.command,
                "contender": which.contender.name,
                "peer": which.contender.is_peer,
                "flush_family": flush_family(&which.contender.flush),
                "work": which.work.name,
                "repetition": which.repetition,
                "server_command": server.command,
                "prepare_command": prepare.map(|words| by_hand(&words)).transpose()?,
                "generator_command": by_hand(words)?,
            }),
        );
        let mut environment = self.environment.clone();
        let version = server.version.as_ref();
        environment.extend(version.map(|told| ("server_version".to_owned(), json!(told))));
        merge_environment(&mut json, &environment);
        if let Some(reason) = &void {
            json.insert("valid".to_owned(), json!(false));
            let reasons = json.entry("void_because").or_insert_with(|| json!([]));
            if reasons.as_array().is_none_or(Vec::is_empty) {
                *reasons = json!([reason]);
            } else if let Some(reasons) = reasons.as_array_mut()
                && !reasons.contains(&json!(reason))
            {
                reasons.push(json!(reason));
            }
        }
        let file = if void.is_some() {
            path.with_extension("void.json")
        } else {
            path.to_owned()
        };
        if file != path {
            let _ = fs::remove_file(path);
        }
        fs::write(&file, serde_json::to_string_pretty(&json)? + "\n")?;
        Ok(Ran { file, void, json })
    }
}

/// The generator's command line for somebody who repeats it: the server's process is another one
/// then, and is found by its address.
fn by_hand(words: &[String]) -> Outcome<String> {
    let mut told = vec!["corelane-bench"];
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        if word == "--server-pid" {
            words.next();
            continue;
        }
        told.push(word);
    }
    Ok(shlex::try_join(told)?)
}

/// What the generator itself says of the machine stands, unless it does not know.
fn merge_environment(json: &mut Map<String, Value>, known: &Map<String, Value>) {
    let own = json.entry("environment").or_insert_with(|| json!({}));
    if !own.is_object() {
        *own = json!({});
    }
    if let Some(own) = own.as_object_mut() {
        for (key, value) in known {
            let is_known =
                |own: &Value| !own.as_str().is_some_and(|own| own.starts_with("unknown"));
            if !own.get(key).is_some_and(is_known) {
                own.insert(key.clone(), value.clone());
            }
        }
    }
}

/// Why a run does not count, from how its generator ended.
pub fn reason(status: ExitStatus, log: &Path) -> Option<String> {
    if status.success() {
        return None;
    }
    let text = fs::read_to_string(log).unwrap_or_default();
    let line = |start: &str| {
        let found = text
            .lines()
            .rev()
            .find_map(|line| line.trim().strip_prefix(start));
        found.map(|words| words.trim().to_owned())
    };
    let words = line("VOID:")
        .or_else(|| line("corelane-bench:"))
        .or_else(|| text.lines().last().map(str::to_owned))
        .unwrap_or_else(|| "it said nothing".to_owned());
    Some(match (status.code(), status.signal()) {
        (Some(1), _) => words,
        (Some(EXIT_SIGNAL), _) => format!("{words} (a time limit?)"),
        (Some(code), _) => format!("the generator ended with code {code}: {words}"),
        (None, signal) => format!(
            "the generator was ended by signal {} (a time limit?): {words}",
            signal.unwrap_or(0)
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_void_for_a_reason_that_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        fs::write(&log, "produce · x\n  VOID: 3 lost\n").unwrap();
        let status = |code: i32| ExitStatus::from_raw(code << 8);
        assert_eq!(reason(status(0), &log), None);
        assert_eq!(reason(status(1), &log).unwrap(), "3 lost");
        fs::write(&log, "corelane-bench: no server\n").unwrap();
        let words = reason(status(2), &log).unwrap();
        assert!(words.contains("code 2: no server"), "{words}");
        assert!(
            reason(ExitStatus::from_raw(9), &log)
                .unwrap()
                .contains("signal 9")
        );
    }

    #[test]
    fn a_command_to_repeat_names_no_process_of_this_comparison() {
        let words = ["consume", "--server-pid", "77", "--topic", "a b"].map(str::to_owned);
        let told = by_hand(&words).unwrap();
        assert_eq!(told, "corelane-bench consume --topic 'a b'");
    }

    #[test]
    fn what_the_generator_says_of_the_machine_stands() {
        let known = json!({"kernel": "b", "damon": "off", "disk_fua": "1"});
        let mut run = json!({"environment": {"kernel": "a", "disk_fua": "unknown: no file"}});
        merge_environment(run.as_object_mut().unwrap(), known.as_object().unwrap());
        let wanted = json!({"kernel": "a", "damon": "off", "disk_fua": "1"});
        assert_eq!(run["environment"], wanted);
    }
}
