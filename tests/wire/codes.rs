//! Request codes of the recordings: their names here, and which of them a replay leaves out.

pub const SEND: i32 = 10;
pub const PULL: i32 = 11;
pub const QUERY_MESSAGE: i32 = 12;
pub const QUERY_CONSUMER_OFFSET: i32 = 14;
pub const UPDATE_CONSUMER_OFFSET: i32 = 15;
pub const UPDATE_AND_CREATE_TOPIC: i32 = 17;
pub const GET_BROKER_CONFIG: i32 = 26;
pub const GET_MAX_OFFSET: i32 = 30;
pub const VIEW_MESSAGE_BY_ID: i32 = 33;
pub const HEARTBEAT: i32 = 34;
pub const UNREGISTER_CLIENT: i32 = 35;
pub const CONSUMER_SEND_MSG_BACK: i32 = 36;
pub const NOTIFY_CONSUMER_IDS_CHANGED: i32 = 40;
pub const GET_ROUTEINFO_BY_TOPIC: i32 = 105;
pub const GET_BROKER_CLUSTER_INFO: i32 = 106;
pub const UPDATE_AND_CREATE_SUBSCRIPTIONGROUP: i32 = 200;
pub const GET_CONSUMER_CONNECTION_LIST: i32 = 203;
pub const GET_PRODUCER_CONNECTION_LIST: i32 = 204;
pub const GET_ALL_TOPIC_LIST: i32 = 206;
pub const DELETE_SUBSCRIPTIONGROUP: i32 = 207;
pub const GET_CONSUME_STATS: i32 = 208;
pub const DELETE_TOPIC_IN_BROKER: i32 = 215;
pub const DELETE_TOPIC_IN_NAMESRV: i32 = 216;
pub const INVOKE_BROKER_TO_RESET_OFFSET: i32 = 222;
pub const SEND_V2: i32 = 310;
pub const VIEW_BROKER_STATS_DATA: i32 = 315;
pub const GET_NAMESRV_CONFIG: i32 = 319;
pub const SEND_BATCH: i32 = 320;
pub const LITE_PULL: i32 = 361;

/// Recordings whose point is a request that this broker does not answer yet, and one whose
/// messages were sent back past the recorder.
const LEFT_OUT: &[&str] = &[
    "pop",
    "sql",
    "transaction",
    "delay-timer",
    "request-reply",
    "request-reply-empty-body",
    "trace",
    "brokerConsumeStats",
    "queryCq",
    "retry-wrapper-exception",
];

/// Requests that this broker does not answer yet: they are not replayed.
const LATER_REQUESTS: &[i32] = &[
    37, 39, 201, 220, 221, 307, 309, 317, 321, 324, 325, 326, 328, 370, 400, 401, 200050, 200051,
    200053,
];

pub fn is_replayed(recording: &str) -> bool {
    !LEFT_OUT
        .iter()
        .any(|point| recording.ends_with(&format!("-{point}")))
}

pub fn is_replayed_request(code: i32) -> bool {
    !LATER_REQUESTS.contains(&code)
}

/// Whether a recording needs a server that served no other one before and will serve none after:
/// what these requests see or do outlives the deletion of topics and groups.
pub fn needs_own_server(code: i32) -> bool {
    const CODES: &[i32] = &[12, 25, 205, 315, 318, 327];
    CODES.contains(&code)
}

pub fn is_pull(code: i32) -> bool {
    code == PULL || code == LITE_PULL
}

pub fn is_send(code: i32) -> bool {
    [SEND, SEND_V2, SEND_BATCH].contains(&code)
}

/// The field that names the topic: sends in the short form have letters for names.
pub fn topic_key(code: i32) -> &'static str {
    if code == SEND_V2 || code == SEND_BATCH {
        "b"
    } else {
        "topic"
    }
}

/// Requests that only read, so that a replay may ask again what needs a moment to become true:
/// a route after a topic was created, an index entry after a send, a consumer after it came.
pub fn may_repeat(code: i32) -> bool {
    const READS: &[i32] = &[
        11, 12, 14, 26, 28, 29, 30, 31, 32, 33, 38, 101, 105, 106, 202, 203, 204, 206, 208, 224,
        300, 315, 319, 351, 361,
    ];
    READS.contains(&code)
}
