//! What a broker says it was built from: two of them beside one another have one checkout at most.

use super::contender::Contender;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Who is not there by then has no answer.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// Its answer to --version. None of a peer, or of another command than `corelane… serve`: what a
/// program that is not ours does with that word nobody knows, and it might begin to serve.
pub fn of(contender: &Contender) -> Option<String> {
    let [program, serve, ..] = &contender.words[..] else {
        return None;
    };
    let name = Path::new(program).file_stem()?.to_str()?;
    let is_ours = !contender.is_peer && name.starts_with("corelane") && serve == "serve";
    is_ours.then(|| ask(program)).flatten()
}

fn ask(program: &str) -> Option<String> {
    let mut child = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let end = Instant::now() + ANSWER_MAX;
    while child.try_wait().ok()?.is_none() {
        if end < Instant::now() {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let mut text = String::new();
    child.stdout.take()?.read_to_string(&mut text).ok()?;
    let line = text.lines().next()?.trim();
    line.starts_with("corelane ").then(|| line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn only_a_broker_of_ours_is_asked_and_not_for_long() {
        let folder = tempfile::tempdir().unwrap();
        let marks = folder.path().join("ran");
        let contender = |name: &str, does: &str, serve: &str| {
            let program = folder.path().join(name);
            let text = format!("#!/bin/sh\necho $0 >> {}\n{does}\n", marks.display());
            std::fs::write(&program, text).unwrap();
            std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
            Contender {
                words: vec![program.display().to_string(), serve.to_owned()],
                ..Contender::default()
            }
        };
        let answer = "test $1 = --version && echo 'corelane 9.9 (abc)'";
        let ours = contender("corelane-old", answer, "serve");
        assert_eq!(of(&ours).as_deref(), Some("corelane 9.9 (abc)"));
        let silent = contender("corelane", "exec sleep 20", "serve");
        let begun = Instant::now();
        assert_eq!(of(&silent), None);
        assert!(begun.elapsed() < Duration::from_secs(5));
        let others = contender("corelane-x", "echo other 1", "serve");
        assert_eq!(of(&others), None);
        std::fs::remove_file(&marks).unwrap();
        let peer = Contender {
            is_peer: true,
            ..ours
        };
        for contender in [
            peer,
            contender("broker", answer, "serve"),
            contender("corelane-bench", answer, "floor"),
        ] {
            assert_eq!(of(&contender), None);
        }
        assert!(!marks.exists(), "a program that is not ours was run");
    }
}
