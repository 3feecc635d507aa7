//! What a run's figures depend on beside the server: kernel, CPU, settings of both.

use serde_json::{Value, json};
use std::fs;

fn line(path: &str) -> Value {
    match fs::read_to_string(path) {
        Ok(text) => json!(text.trim()),
        Err(_) => Value::Null,
    }
}

/// The choice in brackets of a file such as `always [madvise] never`.
fn chosen(path: &str) -> Value {
    let text = fs::read_to_string(path).unwrap_or_default();
    let choice = text
        .split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'));
    choice.map_or_else(|| line(path), |(choice, _)| json!(choice))
}

pub fn cpu_model() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.and_then(|rest| rest.split_once(':'));
    model.map_or(String::new(), |(_, name)| name.trim().to_string())
}

fn mitigations() -> Value {
    let Ok(folder) = fs::read_dir("/sys/devices/system/cpu/vulnerabilities") else {
        return Value::Null;
    };
    let mut found: Vec<(String, String)> = folder
        .flatten()
        .map(|file| {
            let text = fs::read_to_string(file.path()).unwrap_or_default();
            (
                file.file_name().to_string_lossy().into_owned(),
                text.trim().to_string(),
            )
        })
        .filter(|(_, text)| text != "Not affected")
        .collect();
    found.sort();
    found
        .into_iter()
        .map(|(name, text)| (name, json!(text)))
        .collect()
}

pub fn describe() -> Value {
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    json!({
        "kernel": line("/proc/sys/kernel/osrelease"),
        "cpu_model": cpu_model(),
        "cpus_allowed": cpus,
        "cpus_online": line("/sys/devices/system/cpu/online"),
        "mitigations": mitigations(),
        "governor": line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "clocksource": line("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "tcp_congestion_control": line("/proc/sys/net/ipv4/tcp_congestion_control"),
        "transparent_huge_pages": chosen("/sys/kernel/mm/transparent_hugepage/enabled"),
        "damon_reclaim": line("/sys/module/damon_reclaim/parameters/enabled"),
        "load_average": line("/proc/loadavg"),
        "version": env!("CARGO_PKG_VERSION"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_names_kernel_and_clock() {
        let told = describe();
        assert!(told["kernel"].as_str().unwrap().contains('.'), "{told}");
        assert!(told["clocksource"].is_string(), "{told}");
    }
}
