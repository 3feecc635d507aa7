//! Tells the programs which commit they are built from: their --version has it.

use std::process::Command;

/// What the programs are made of. Where nothing of it has changed since, they are not built again,
/// and the commit that they name is one that made the same programs.
const SOURCES: [&str; 5] = ["src", "tools/bench", "build.rs", "Cargo.toml", "Cargo.lock"];

/// What git says; nothing is locked, for somebody may be at work there. None without git, and
/// outside a checkout.
fn git(words: &[&str]) -> Option<String> {
    let mut git = Command::new("git");
    let told = git
        .args(words)
        .env("GIT_OPTIONAL_LOCKS", "0")
        .output()
        .ok()?;
    let text = String::from_utf8(told.stdout).ok()?;
    told.status.success().then(|| text.trim().to_owned())
}

/// Commit, and whether the sources are another state than that.
fn commit() -> Option<(String, bool)> {
    // An unpacked archive may lie in somebody's checkout, which says nothing of it.
    git(&["ls-files", "--error-unmatch", "build.rs"])?;
    let commit = git(&["rev-parse", "--short", "HEAD"])?;
    let mut status = vec!["status", "--porcelain", "--"];
    status.extend(SOURCES);
    let is_dirty = !git(&status)?.is_empty();
    Some((commit, is_dirty))
}

fn main() {
    for source in SOURCES {
        println!("cargo:rerun-if-changed={source}");
    }
    let version = env!("CARGO_PKG_VERSION");
    let version = match commit() {
        None => version.to_owned(),
        Some((commit, false)) => format!("{version} ({commit})"),
        Some((commit, true)) => {
            // A commit of these very sources changes none of them; only git knows then.
            let log = git(&["rev-parse", "--git-path", "logs/HEAD"]);
            if let Some(log) = log.filter(|log| std::path::Path::new(log).exists()) {
                println!("cargo:rerun-if-changed={log}");
            }
            format!("{version} ({commit}-dirty)")
        }
    };
    println!("cargo:rustc-env=CORELANE_VERSION={version}");
}
