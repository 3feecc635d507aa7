//! What an earlier session left in the folder of runs: it would look like runs of this one.

use std::path::PathBuf;
use std::time::SystemTime;

pub struct Earlier {
    folder: PathBuf,
    /// What is younger is this session's own.
    before: SystemTime,
}

/// Whether a session gives a file such a name: JSON of a repetition or of fio, logs of both and of
/// loads that are not measured.
fn is_of_a_session(name: &str) -> bool {
    let of_a_tool = name.starts_with("fio-") || name.starts_with("14-");
    let (stem, end) = name.rsplit_once('.').unwrap_or((name, ""));
    let stem = stem.strip_suffix(".void").unwrap_or(stem);
    let last = stem.rsplit_once('.').map(|(_, last)| last);
    match end {
        "json" => of_a_tool || last.is_some_and(|last| last.parse::<u32>().is_ok()),
        "log" => of_a_tool || last.is_some(),
        _ => false,
    }
}

impl Earlier {
    pub fn in_folder(folder: PathBuf) -> Earlier {
        Earlier {
            folder,
            before: SystemTime::now(),
        }
    }

    /// Removes files of a session's names, and nothing else that may be there.
    pub fn remove(self) {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten();
        for entry in entries.flatten() {
            let is_old = entry.metadata().is_ok_and(|file| {
                file.is_file() && file.modified().is_ok_and(|at| at < self.before)
            });
            if is_old && is_of_a_session(&entry.file_name().to_string_lossy()) {
                // What stays is seen in the folder; it is no reason not to measure.
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_an_earlier_session_made_goes() {
        let folder = tempfile::tempdir().unwrap();
        let old = [
            "sends.ours.1.json",
            "sends.ours.2.void.json",
            "sends.ours.1.log",
            "warm-up.peer.log",
            "fio-write.json",
            "14-idle.log",
        ];
        let others = ["notes.txt", "mine.json", "build.sh", "notes.log"];
        for name in old.iter().chain(&others) {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        std::fs::create_dir(folder.path().join("kept.1.json")).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        let earlier = Earlier::in_folder(folder.path().to_owned());
        std::thread::sleep(std::time::Duration::from_millis(20));
        std::fs::write(folder.path().join("sends.new.1.log"), "x").unwrap();
        earlier.remove();
        let mut left: Vec<String> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        let mut wanted = others.map(str::to_owned).to_vec();
        wanted.extend(["kept.1.json", "sends.new.1.log"].map(str::to_owned));
        wanted.sort();
        assert_eq!(left, wanted);
    }
}
