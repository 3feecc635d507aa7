//! A control group with little memory: what is larger than it need not be larger than the machine.

use std::fs;
use std::path::{Path, PathBuf};

pub struct MemoryGroup {
    pub folder: PathBuf,
    /// Which version of control groups it is of.
    pub version: u8,
}

const ROOT: &str = "/sys/fs/cgroup";

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

fn has_memory(folder: &Path) -> bool {
    let text = fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
    text.split_whitespace().any(|word| word == "memory")
}

fn make(folder: &Path) -> Result<(), String> {
    fs::create_dir(folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))
}

impl MemoryGroup {
    /// An error says why there can be none here.
    pub fn make(bytes: u64) -> Result<MemoryGroup, String> {
        let name = format!("corelane-bench-{}", std::process::id());
        let root = Path::new(ROOT);
        let (folder, version, limit) = if has_memory(root) {
            (root.join(&name), 2, "memory.max")
        } else if root.join("memory").join("cgroup.procs").exists() {
            (root.join("memory").join(&name), 1, "memory.limit_in_bytes")
        } else {
            return Err(format!("no memory controller is mounted below {ROOT}"));
        };
        make(&folder)?;
        // From here on it goes when it is dropped.
        let group = MemoryGroup { folder, version };
        if version == 2 && !has_memory(&group.folder) {
            write(&root.join("cgroup.subtree_control"), "+memory")?;
        }
        write(&group.folder.join(limit), &bytes.to_string())?;
        Ok(group)
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // Who was in it has ended. One that cannot go now holds nothing but a name.
        for _ in 0..50 {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        eprintln!(
            "corelane-bench: {} could not be removed: is somebody in it?",
            self.folder.display()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_has_its_limit_and_goes_again_or_says_why_there_is_none() {
        match MemoryGroup::make(64 << 20) {
            Ok(group) => {
                let file = ["memory.max", "memory.limit_in_bytes"][usize::from(group.version == 1)];
                let limit = fs::read_to_string(group.folder.join(file)).unwrap();
                assert_eq!(limit.trim(), (64 << 20).to_string());
                let folder = group.folder.clone();
                drop(group);
                assert!(!folder.exists());
            }
            Err(why) => assert!(why.contains("/sys/fs/cgroup"), "{why}"),
        }
    }
}
