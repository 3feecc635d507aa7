//! `corelane stats`: how long the stages of messages take in running shards, and what held a turn.
//!
//! It asks like any tool: the name server for the brokers (106), each broker for its runtime (28), where our
//! shards put keys of their own (`shard/admin_runtime.rs`).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::protocol::rocketmq::frame::{HeaderKind, Scratch, decode, encode_request, frame_size};
use crate::protocol::rocketmq::parse_json;

const GET_BROKER_CLUSTER_INFO: i32 = 106;
const GET_BROKER_RUNTIME_INFO: i32 = 28;

/// For connecting, and for each answer.
const WITHIN: Duration = Duration::from_secs(5);

/// Stages, in the order in which a message comes through them.
const STAGES: [&str; 7] = [
    "received", "decoded", "appended", "written", "durable", "visible", "sent",
];

/// What one shard says. Times in nanoseconds.
#[derive(Debug, Serialize)]
pub struct ShardStats {
    /// Name of the broker that it is.
    pub broker: String,
    /// Where it was asked.
    pub address: String,
    /// Messages per second stored and handed out, over about ten seconds.
    pub stored_per_s: f64,
    /// Likewise.
    pub handed_out_per_s: f64,
    /// By stage, then period (`10s`: the last whole ten seconds; `total`), then figure.
    pub stages: BTreeMap<String, BTreeMap<String, BTreeMap<String, u64>>>,
    /// Steps of a turn that took longer than 0.5 ms: how often (`count`), and the longest (`max`).
    pub stalls: BTreeMap<String, BTreeMap<String, u64>>,
    /// By step: what was being done in the longest, where that is known.
    pub held_by: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Cluster {
    #[serde(rename = "brokerAddrTable", default)]
    brokers: BTreeMap<String, Broker>,
}

#[derive(Deserialize)]
struct Broker {
    #[serde(rename = "brokerAddrs", default)]
    addresses: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Runtime {
    table: BTreeMap<String, String>,
}

/// Asks all shards that a name server knows.
///
/// # Errors
/// What could not be reached or understood, and why.
pub fn ask_all(name_server: &str) -> Result<Vec<ShardStats>, String> {
    let cluster: Cluster = ask(name_server, GET_BROKER_CLUSTER_INFO)?;
    let masters = cluster.brokers.into_iter().filter_map(|(name, broker)| {
        let address = broker.addresses.get("0")?.clone();
        Some((name, address))
    });
    let asked = masters.map(|(broker, address)| {
        let runtime: Runtime = ask(&address, GET_BROKER_RUNTIME_INFO)?;
        Ok(read(broker, address, &runtime.table))
    });
    let all: Vec<ShardStats> = asked.collect::<Result<_, String>>()?;
    if all.is_empty() {
        return Err(format!(
            "the name server {name_server} knows no broker; is one started with this name server?"
        ));
    }
    Ok(all)
}

fn ask<T: serde::de::DeserializeOwned>(address: &str, code: i32) -> Result<T, String> {
    let body = exchange(address, code)
        .map_err(|why| format!("{address} does not answer request {code}: {why}"))?;
    parse_json(&body).map_err(|error| {
        format!("{address} answered request {code} with what is not the JSON expected: {error}")
    })
}

fn exchange(address: &str, code: i32) -> Result<Vec<u8>, String> {
    let text = |error: std::io::Error| error.to_string();
    let mut resolved = address.to_socket_addrs().map_err(text)?;
    let first = resolved.next().ok_or("its name has no address")?;
    let mut stream = TcpStream::connect_timeout(&first, WITHIN).map_err(text)?;
    stream.set_read_timeout(Some(WITHIN)).map_err(text)?;
    stream.set_write_timeout(Some(WITHIN)).map_err(text)?;
    let mut request = Vec::new();
    encode_request(&mut request, HeaderKind::Json, code, 1, false, &[], &[]);
    stream.write_all(&request).map_err(text)?;
    let (mut received, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        let size = frame_size(&received).map_err(|error| error.to_string())?;
        if let Some(size) = size.filter(|size| *size <= received.len()) {
            let mut scratch = Scratch::default();
            let answer =
                decode(&received[..size], &mut scratch).map_err(|error| error.to_string())?;
            if answer.code != 0 {
                let remark = answer.remark.unwrap_or("no reason given");
                return Err(format!("code {}: {remark}", answer.code));
            }
            return Ok(answer.body.to_vec());
        }
        match stream.read(&mut buffer).map_err(text)? {
            0 => return Err("the connection was closed".to_owned()),
            count => received.extend_from_slice(&buffer[..count]),
        }
    }
}

fn read(broker: String, address: String, table: &BTreeMap<String, String>) -> ShardStats {
    let first = |key: &str| {
        let rates = table.get(key)?;
        rates.split(' ').next()?.parse().ok()
    };
    let mut stats = ShardStats {
        broker,
        address,
        stored_per_s: first("putTps").unwrap_or(0.0),
        handed_out_per_s: first("getTransferredTps").unwrap_or(0.0),
        stages: BTreeMap::new(),
        stalls: BTreeMap::new(),
        held_by: BTreeMap::new(),
    };
    for (key, value) in table {
        if let Some((stage, period)) = key
            .strip_prefix("corelaneStage_")
            .and_then(|rest| rest.split_once('_'))
        {
            let periods = stats.stages.entry(stage.to_owned()).or_default();
            periods.insert(period.to_owned(), figures(value));
        } else if let Some(step) = key.strip_prefix("corelaneStall_") {
            stats.stalls.insert(step.to_owned(), figures(value));
        } else if let Some(step) = key.strip_prefix("corelaneStallBy_") {
            stats.held_by.insert(step.to_owned(), value.clone());
        }
    }
    stats
}

/// `count 3 max 700` as pairs.
fn figures(text: &str) -> BTreeMap<String, u64> {
    let words: Vec<&str> = text.split(' ').collect();
    let pairs = words.chunks_exact(2);
    pairs
        .filter_map(|pair| Some((pair[0].to_owned(), pair[1].parse().ok()?)))
        .collect()
}

/// A table for people.
#[must_use]
pub fn table(shards: &[ShardStats]) -> String {
    let mut out = String::new();
    for shard in shards {
        let _ = writeln!(
            out,
            "{} at {}: {:.0} messages/s stored, {:.0} handed out",
            shard.broker, shard.address, shard.stored_per_s, shard.handed_out_per_s
        );
        if shard.stages.is_empty() {
            let _ = writeln!(out, "  this broker tells nothing about stages");
            continue;
        }
        let _ = writeln!(
            out,
            "  {:<10} {:<6} {:>12} {:>10} {:>10} {:>10} {:>10}",
            "stage", "period", "count", "p50 µs", "p99 µs", "p99.9 µs", "max µs"
        );
        for stage in STAGES {
            for (period, figures) in shard.stages.get(stage).into_iter().flatten() {
                let figure = |name| figures.get(name).copied().unwrap_or(0);
                let us = |name| figure(name) as f64 / 1000.0;
                let _ = writeln!(
                    out,
                    "  {stage:<10} {period:<6} {:>12} {:>10.1} {:>10.1} {:>10.1} {:>10.1}",
                    figure("count"),
                    us("p50"),
                    us("p99"),
                    us("p999"),
                    us("max")
                );
            }
        }
        for (step, figures) in &shard.stalls {
            let figure = |name| figures.get(name).copied().unwrap_or(0);
            if 0 < figure("count") {
                let by = shard.held_by.get(step).map(|by| format!(" ({by})"));
                let _ = writeln!(
                    out,
                    "  held for more than 0.5 ms by {step}: {} times, {:.1} µs at most{}",
                    figure("count"),
                    figure("max") as f64 / 1000.0,
                    by.unwrap_or_default()
                );
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_ours_become_stages_and_stalls_and_others_are_left_alone() {
        let pairs = [
            ("putTps", "12.5 1.0 2.0"),
            (
                "corelaneStage_visible_10s",
                "count 4 p50 1500 p99 2000 p999 2000 max 2500",
            ),
            ("corelaneStall_requests", "count 2 max 700000"),
            (
                "corelaneStallBy_requests",
                "9 of 127.0.0.1:77, the last with code 310",
            ),
            ("corelaneStall_waiting", "count 0 max 0"),
            ("brokerActive", "true"),
        ];
        let runtime = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let shard = read("b-0".to_owned(), "h:1".to_owned(), &runtime.into());
        assert!((shard.stored_per_s - 12.5).abs() < 1e-9);
        assert_eq!(shard.stages["visible"]["10s"]["p50"], 1500);
        let text = table(&[shard]);
        assert!(
            text.contains("visible    10s               4        1.5"),
            "{text}"
        );
        let stall =
            "by requests: 2 times, 700.0 µs at most (9 of 127.0.0.1:77, the last with code 310)";
        assert!(text.contains(stall), "{text}");
        assert!(!text.contains("waiting"), "{text}");
    }

    #[test]
    fn a_broker_without_stages_and_damaged_figures_are_no_error() {
        let shard = read("b".to_owned(), "h:1".to_owned(), &BTreeMap::new());
        assert!(table(&[shard]).contains("tells nothing"));
        assert!(figures("count x p50").is_empty());
    }
}
