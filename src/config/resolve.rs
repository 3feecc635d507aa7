//! From keys and values to settings: what the host adds, and what must fit together.

use std::net::IpAddr;
use std::path::PathBuf;

use super::address;
use super::kinds;
use super::settings::UNIT_SIZE;
use super::values::{Note, Values};
use super::{
    Addresses, AppendMode, Egress, Flush, FlushMethod, FlushMode, Host, Messages,
    NameServerSettings, NameServers, Pulls, Retention, Scheduling, Settings, StartError, Store,
};
use crate::state::shards;

/// Bytes of a record beside its body, at most: properties, topic, fixed fields.
const RECORD_OVERHEAD: u64 = 64 * 1024;

/// What is in force.
pub(super) fn resolve(mut values: Values, host: &Host) -> Result<Settings, StartError> {
    let shard_count = values
        .said("shards")
        .is_some()
        .then(|| values.number("shards"));
    let shard_count_default = host.cpu_count.clamp(1, shards::COUNT_MAX);
    derive_defaults(&mut values, host, shard_count_default);
    let addresses = addresses(&mut values, host)?;
    note_oddities(&mut values);
    let settings = Settings {
        cluster: values.text("brokerClusterName").to_owned(),
        broker: values.text("brokerName").to_owned(),
        shard_count,
        shard_count_default,
        addresses,
        name_servers: name_servers(&values),
        store: store(&values, host),
        flush: Flush {
            mode: flush_mode(values.text("flushDiskType")),
            method: flush_method(values.text("flushMethod")),
            append: append_mode(values.text("appendMode")),
            interval_ms: values.number("flushIntervalCommitLog"),
            bytes: values.number("flushBytes"),
            timeout_ms: values.number("syncFlushTimeout"),
        },
        retention: retention(&values),
        messages: messages(&values),
        pulls: pulls(&values),
        egress: egress(values.text("egress")),
        scheduling: Scheduling {
            spin_us_max: values.number("spinMaxMicros"),
            high_priority: values.text("shardPriority") == "high",
        },
        registers_all: values.boolean("enableSingleTopicRegister"),
        without: kinds::features(values.text("kernelWithout")).unwrap_or_default(),
        log: values.text("log").to_owned(),
        entries: values.entries(),
        notes: values.notes,
    };
    // Without a count the store decides, and the broker asks again when it knows.
    settings.check_ports(shard_count.unwrap_or(1))?;
    Ok(settings)
}

fn derive_defaults(values: &mut Values, host: &Host, shard_count: u32) {
    values.derive("brokerName", host.name.clone(), "the name of this host");
    let root = host.folder.join("store").display().to_string();
    values.derive("storePathRootDir", root, "in the current folder");
    let from = "the CPUs this process may use; a store keeps the count it has";
    values.derive("shards", shard_count.to_string(), from);
}

/// What is in force for a name server alone.
pub(super) fn resolve_name_server(values: &Values) -> Result<NameServerSettings, StartError> {
    let bind = bind(values);
    check_bind(values, bind)?;
    let port = values.number("nameserverPort");
    Ok(NameServerSettings {
        bind,
        port,
        log: values.text("log").to_owned(),
    })
}

fn bind(values: &Values) -> IpAddr {
    address_of(values, "bindAddress").unwrap_or(IpAddr::from([127, 0, 0, 1]))
}

/// Strangers must not get in by default or by a line that was copied.
fn check_bind(values: &Values, bind: IpAddr) -> Result<(), StartError> {
    if bind.is_loopback() || values.boolean("insecure") {
        return Ok(());
    }
    Err(StartError::new(
        "listen on",
        values.quote("bindAddress"),
        "everybody who reaches that address could read, write and delete everything, and this \
         broker cannot tell friends from strangers yet",
        "bind 127.0.0.1, or type --insecure where the network keeps strangers out",
    ))
}

fn addresses(values: &mut Values, host: &Host) -> Result<Addresses, StartError> {
    let bind = bind(values);
    let told = address::Addresses {
        bind,
        broker_ip: address_of(values, "brokerIP1"),
        of_host: &host.addresses,
    };
    let advertised = told.advertised().map_err(|why| {
        let what = format!(
            "{} with {}",
            values.quote("brokerIP1"),
            values.quote("bindAddress")
        );
        let remedy = match told.broker_ip {
            Some(told) if !told.is_loopback() && !told.is_unspecified() && !told.is_multicast() => {
                format!(
                    "bind what clients are told (--bind {told} --insecure), or remove brokerIP1"
                )
            }
            _ => "set brokerIP1 to an address of this host that is bound, or remove it".to_owned(),
        };
        StartError::new("advertise", what, why, remedy)
    })?;
    check_bind(values, bind)?;
    let from = if bind.is_unspecified() {
        "the first address of this host that others see"
    } else {
        "the bound address"
    };
    values.derive("brokerIP1", advertised.to_string(), from);
    Ok(Addresses {
        bind,
        advertised,
        listen_port: values.number("listenPort"),
    })
}

/// An address that was checked when it was said.
fn address_of(values: &Values, name: &str) -> Option<IpAddr> {
    values.said(name).and_then(|value| value.parse().ok())
}

fn name_servers(values: &Values) -> NameServers {
    let list = kinds::name_servers(values.text("namesrvAddr")).unwrap_or_default();
    if list.is_empty() {
        NameServers::Embedded {
            port: values.number("nameserverPort"),
        }
    } else {
        NameServers::List(list)
    }
}

fn store(values: &Values, host: &Host) -> Store {
    let path = |name| values.said(name).map(|path: &str| host.folder.join(path));
    let queue_file_size: u64 = values.number("mappedFileSizeConsumeQueue");
    Store {
        root: path("storePathRootDir").unwrap_or_else(|| PathBuf::from("store")),
        commit_log: path("storePathCommitLog"),
        consume_queue: path("storePathConsumeQueue"),
        index: path("storePathIndex"),
        checkpoint: path("storeCheckpoint"),
        abort: path("abortFile"),
        segment_size: values.number("mappedFileSizeCommitLog"),
        queue_file_unit_count: queue_file_size.div_ceil(UNIT_SIZE),
        index_enabled: values.boolean("messageIndexEnable"),
        index_slot_count: values.number("maxHashSlotNum"),
        index_entry_count: values.number("maxIndexNum"),
    }
}

fn retention(values: &Values) -> Retention {
    Retention {
        reserved_hours: values.number("fileReservedTime"),
        delete_hours: kinds::hours(values.text("deleteWhen")).unwrap_or_default(),
        delete_from_percent: values.number("diskMaxUsedSpaceRatio"),
        force_from_percent: values.number("diskSpaceCleanForciblyRatio"),
        force: values.boolean("cleanFileForciblyEnable"),
        refuse_from_percent: values.number("diskSpaceWarningLevelRatio"),
    }
}

fn messages(values: &Values) -> Messages {
    let trace_topic = values.text("msgTraceTopicName").to_owned();
    Messages {
        body_size_max: values.number("maxMessageSize"),
        create_topics: values.boolean("autoCreateTopicEnable"),
        create_groups: values.boolean("autoCreateSubscriptionGroup"),
        queue_count_default: values.number("defaultTopicQueueNums"),
        cluster_topic: values.boolean("clusterTopicEnable"),
        broker_topic: values.boolean("brokerTopicEnable"),
        trace_topic: values.boolean("traceTopicEnable").then_some(trace_topic),
        trace_on: values.boolean("traceOn"),
        region: values.text("regionId").to_owned(),
        delay_levels_ms: kinds::levels(values.text("messageDelayLevel")).unwrap_or_default(),
        permission: values.number("brokerPermission"),
        reject_transactions: values.boolean("rejectTransactionMessage"),
        notify_members: values.boolean("notifyConsumerIdsChangedEnable"),
        query_count_max: values.number("defaultQueryMaxNum"),
    }
}

fn pulls(values: &Values) -> Pulls {
    Pulls {
        long_polling: values.boolean("longPollingEnable"),
        short_polling_ms: values.number("shortPollingTimeMills"),
        hot_bytes_max: values.number("maxTransferBytesOnMessageInMemory"),
        hot_count_max: values.number("maxTransferCountOnMessageInMemory"),
        cold_bytes_max: values.number("maxTransferBytesOnMessageInDisk"),
        cold_count_max: values.number("maxTransferCountOnMessageInDisk"),
    }
}

fn flush_mode(word: &str) -> FlushMode {
    match word {
        "SYNC_FLUSH" => FlushMode::Sync,
        "NO_FLUSH" => FlushMode::None,
        _ => FlushMode::Async,
    }
}

fn flush_method(word: &str) -> FlushMethod {
    match word {
        "fdatasync" => FlushMethod::Fdatasync,
        "dsync" => FlushMethod::Dsync,
        "direct" => FlushMethod::Direct,
        _ => FlushMethod::Auto,
    }
}

fn append_mode(word: &str) -> AppendMode {
    match word {
        "ring" => AppendMode::Ring,
        "inline" => AppendMode::Inline,
        "direct" => AppendMode::Direct,
        _ => AppendMode::Auto,
    }
}

fn egress(word: &str) -> Egress {
    match word {
        "sendfile" => Egress::SendFile,
        "splice" => Egress::Splice,
        "gather" => Egress::Gather,
        "send-zc" => Egress::SendZc,
        "copy" => Egress::Copy,
        _ => Egress::Auto,
    }
}

/// Settings that are allowed and probably not meant.
fn note_oddities(values: &mut Values) {
    let waits = values.text("flushDiskType") == "SYNC_FLUSH";
    if !waits && values.said("flushMethod").is_some() {
        let text = format!(
            "{} does nothing with {}: nobody waits for durability there",
            values.quote("flushMethod"),
            values.quote("flushDiskType"),
        );
        values.notes.push(Note::Warning(text));
    }
    let segment_size: u64 = values.number("mappedFileSizeCommitLog");
    let body_size_max: u64 = values.number("maxMessageSize");
    if segment_size < body_size_max + RECORD_OVERHEAD {
        let text = format!(
            "{} holds no message of {}: larger ones than a segment will be refused",
            values.quote("mappedFileSizeCommitLog"),
            values.quote("maxMessageSize"),
        );
        values.notes.push(Note::Warning(text));
    }
    let delete: u64 = values.number("diskMaxUsedSpaceRatio");
    let refuse: u64 = values.number("diskSpaceWarningLevelRatio");
    if refuse < delete {
        let text = format!(
            "{} is above {}: sends will be refused before old segments are deleted",
            values.quote("diskMaxUsedSpaceRatio"),
            values.quote("diskSpaceWarningLevelRatio"),
        );
        values.notes.push(Note::Warning(text));
    }
}
