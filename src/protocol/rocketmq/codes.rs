//! Numbers of RocketMQ: request codes, response codes, languages (P§1.6, §1.7, §2).

use crate::command::RefusalKind;

macro_rules! codes {
    ($($name:ident = $value:literal),* $(,)?) => {
        $(
            #[doc = concat!("`", stringify!($name), "`.")]
            pub const $name: i32 = $value;
        )*
    };
}

/// Request codes.
#[allow(missing_docs)]
pub mod request {
    codes! {
        SEND_MESSAGE = 10,
        PULL_MESSAGE = 11,
        QUERY_MESSAGE = 12,
        QUERY_CONSUMER_OFFSET = 14,
        UPDATE_CONSUMER_OFFSET = 15,
        UPDATE_AND_CREATE_TOPIC = 17,
        UPDATE_AND_CREATE_TOPIC_LIST = 18,
        GET_ALL_TOPIC_CONFIG = 21,
        UPDATE_BROKER_CONFIG = 25,
        GET_BROKER_CONFIG = 26,
        GET_BROKER_RUNTIME_INFO = 28,
        SEARCH_OFFSET_BY_TIMESTAMP = 29,
        GET_MAX_OFFSET = 30,
        GET_MIN_OFFSET = 31,
        GET_EARLIEST_MSG_STORETIME = 32,
        VIEW_MESSAGE_BY_ID = 33,
        HEART_BEAT = 34,
        UNREGISTER_CLIENT = 35,
        CONSUMER_SEND_MSG_BACK = 36,
        GET_CONSUMER_LIST_BY_GROUP = 38,
        NOTIFY_CONSUMER_IDS_CHANGED = 40,
        LOCK_BATCH_MQ = 41,
        UNLOCK_BATCH_MQ = 42,
        GET_ALL_CONSUMER_OFFSET = 43,
        GET_ALL_DELAY_OFFSET = 45,
        CHECK_CLIENT_CONFIG = 46,
        UPDATE_AND_CREATE_SUBSCRIPTIONGROUP = 200,
        GET_ALL_SUBSCRIPTIONGROUP_CONFIG = 201,
        GET_TOPIC_STATS_INFO = 202,
        GET_CONSUMER_CONNECTION_LIST = 203,
        GET_PRODUCER_CONNECTION_LIST = 204,
        DELETE_SUBSCRIPTIONGROUP = 207,
        GET_CONSUME_STATS = 208,
        DELETE_TOPIC_IN_BROKER = 215,
        INVOKE_BROKER_TO_RESET_OFFSET = 222,
        UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST = 225,
        QUERY_TOPIC_CONSUME_BY_WHO = 300,
        QUERY_CONSUME_TIME_SPAN = 303,
        GET_SYSTEM_TOPIC_LIST_FROM_BROKER = 305,
        SEND_MESSAGE_V2 = 310,
        VIEW_BROKER_STATS_DATA = 315,
        SEND_BATCH_MESSAGE = 320,
        QUERY_CONSUME_QUEUE = 321,
        GET_ALL_PRODUCER_INFO = 328,
        QUERY_TOPICS_BY_CONSUMER = 343,
        GET_TOPIC_CONFIG = 351,
        GET_SUBSCRIPTIONGROUP_CONFIG = 352,
        LITE_PULL_MESSAGE = 361,
    }
}

/// Response codes.
#[allow(missing_docs)]
pub mod response {
    codes! {
        SUCCESS = 0,
        SYSTEM_ERROR = 1,
        SYSTEM_BUSY = 2,
        REQUEST_CODE_NOT_SUPPORTED = 3,
        FLUSH_DISK_TIMEOUT = 10,
        MESSAGE_ILLEGAL = 13,
        SERVICE_NOT_AVAILABLE = 14,
        NO_PERMISSION = 16,
        TOPIC_NOT_EXIST = 17,
        PULL_NOT_FOUND = 19,
        PULL_RETRY_IMMEDIATELY = 20,
        PULL_OFFSET_MOVED = 21,
        QUERY_NOT_FOUND = 22,
        SUBSCRIPTION_PARSE_FAILED = 23,
        SUBSCRIPTION_NOT_EXIST = 24,
        SUBSCRIPTION_NOT_LATEST = 25,
        SUBSCRIPTION_GROUP_NOT_EXIST = 26,
        INVALID_PARAMETER = 29,
        CONSUMER_NOT_ONLINE = 206,
        FLOW_CONTROL = 215,
    }
}

/// The response code of a refusal.
#[must_use]
pub const fn of_refusal(kind: RefusalKind) -> i32 {
    match kind {
        RefusalKind::SystemError => response::SYSTEM_ERROR,
        RefusalKind::SystemBusy => response::SYSTEM_BUSY,
        RefusalKind::RequestNotSupported => response::REQUEST_CODE_NOT_SUPPORTED,
        RefusalKind::MessageIllegal => response::MESSAGE_ILLEGAL,
        RefusalKind::ServiceNotAvailable => response::SERVICE_NOT_AVAILABLE,
        RefusalKind::NoPermission => response::NO_PERMISSION,
        RefusalKind::TopicNotExist => response::TOPIC_NOT_EXIST,
        RefusalKind::PullRetryImmediately => response::PULL_RETRY_IMMEDIATELY,
        RefusalKind::QueryNotFound => response::QUERY_NOT_FOUND,
        RefusalKind::SubscriptionParseFailed => response::SUBSCRIPTION_PARSE_FAILED,
        RefusalKind::SubscriptionNotExist => response::SUBSCRIPTION_NOT_EXIST,
        RefusalKind::SubscriptionNotLatest => response::SUBSCRIPTION_NOT_LATEST,
        RefusalKind::GroupNotExist => response::SUBSCRIPTION_GROUP_NOT_EXIST,
        RefusalKind::InvalidParameter => response::INVALID_PARAMETER,
        RefusalKind::ConsumerNotOnline => response::CONSUMER_NOT_ONLINE,
        RefusalKind::FlowControl => response::FLOW_CONTROL,
    }
}

/// Whether Apache's broker answers this request with `"extFields":{}` where it has no field to name:
/// so it does where the request has a response header class of its own.
#[must_use]
pub const fn answers_with_empty_fields(request_code: i32, response_code: i32) -> bool {
    // Exceptions, overload and unknown codes are answered before that class is made.
    !matches!(response_code, 2 | 3)
        && matches!(
            request_code,
            11 | 14 | 15 | 29 | 30 | 31 | 32 | 35 | 38 | 361
        )
}

/// Codes above 16 bits do not fit into a binary header: Java cuts them, these come back (P§1.4).
#[must_use]
pub fn from_16_bits(code: i16) -> i32 {
    match code {
        3442..=3448 => 200_050 + i32::from(code - 3442),
        3543 => 200_151,
        _ => i32::from(code),
    }
}

/// Ordinal of the language that we say we are.
pub const LANGUAGE_JAVA_ORDINAL: u8 = 0;

/// Name of every language that has none.
pub const LANGUAGE_OTHER: &str = "OTHER";

const LANGUAGES: [&str; 14] = [
    "JAVA",
    "CPP",
    "DOTNET",
    "PYTHON",
    "DELPHI",
    "ERLANG",
    "RUBY",
    LANGUAGE_OTHER,
    "HTTP",
    "GO",
    "PHP",
    "OMS",
    "RUST",
    "NODE_JS",
];

/// Name of a language by its ordinal; `OTHER` beyond the list.
#[must_use]
pub fn language_name(ordinal: i64) -> &'static str {
    usize::try_from(ordinal)
        .ok()
        .and_then(|ordinal| LANGUAGES.get(ordinal))
        .copied()
        .unwrap_or(LANGUAGE_OTHER)
}

/// The known name that a text means: `OTHER` for an unknown one, which would break the tools that list connections.
#[must_use]
pub fn language(text: &str) -> &'static str {
    if let Some(name) = LANGUAGES.iter().find(|name| **name == text) {
        return name;
    }
    text.parse().map_or(LANGUAGE_OTHER, language_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_its_number() {
        // P§1.7.
        for (kind, code) in [
            (RefusalKind::SystemError, 1),
            (RefusalKind::SystemBusy, 2),
            (RefusalKind::RequestNotSupported, 3),
            (RefusalKind::MessageIllegal, 13),
            (RefusalKind::ServiceNotAvailable, 14),
            (RefusalKind::NoPermission, 16),
            (RefusalKind::TopicNotExist, 17),
            (RefusalKind::PullRetryImmediately, 20),
            (RefusalKind::QueryNotFound, 22),
            (RefusalKind::SubscriptionParseFailed, 23),
            (RefusalKind::SubscriptionNotExist, 24),
            (RefusalKind::SubscriptionNotLatest, 25),
            (RefusalKind::GroupNotExist, 26),
            (RefusalKind::InvalidParameter, 29),
            (RefusalKind::ConsumerNotOnline, 206),
            (RefusalKind::FlowControl, 215),
        ] {
            assert_eq!(of_refusal(kind), code);
        }
    }

    #[test]
    fn languages_have_names_and_ordinals() {
        assert_eq!(language_name(9), "GO");
        assert_eq!(language_name(-1), "OTHER");
        assert_eq!(language_name(14), "OTHER");
        assert_eq!(language("RUST"), "RUST");
        assert_eq!(language("1"), "CPP");
        assert_eq!(language("rust"), "OTHER");
    }
}
