//! What of a recording is replayed, and in which order.

use super::codes;
use super::compare::Difference;
use super::prepare::{records_of, send_properties};
use super::recording::{From, Peer, Recorded, Recording};
use std::collections::HashSet;

pub struct Plan {
    /// Indices of frames, in the order of their replay.
    pub order: Vec<usize>,
    /// Indices of requests that are not sent, of either side.
    pub left_out: HashSet<usize>,
    /// Topics into which messages come when their delay is over. A replay is faster than its
    /// recording, so that more of them may be there than were.
    pub delayed_topics: HashSet<String>,
}

pub fn plan(recording: &Recording) -> Plan {
    let sends = recording.frames.iter().map(|recorded| &recorded.frame);
    let delayed = sends.filter(|frame| send_properties(frame).contains_key("DELAY"));
    let mut delayed_topics: HashSet<String> = delayed
        .filter_map(|frame| frame.field(codes::topic_key(frame.code)))
        .collect();
    let topics = recording
        .frames
        .iter()
        .filter_map(|recorded| recorded.frame.field("topic"));
    delayed_topics.extend(topics.filter(|topic| topic.starts_with("%RETRY%")));
    Plan {
        order: order(recording),
        left_out: left_out(recording),
        delayed_topics,
    }
}

/// Requests of later features, sends to an arbitrary time, and pulls that were answered with what
/// such a send left.
fn left_out(recording: &Recording) -> HashSet<usize> {
    let mut left_out = HashSet::new();
    let mut timed_keys = HashSet::new();
    for recorded in recording
        .frames
        .iter()
        .filter(|recorded| !recorded.frame.is_answer())
    {
        let properties = send_properties(&recorded.frame);
        let is_timed = properties.keys().any(|name| name.starts_with("TIMER_"));
        if is_timed {
            timed_keys.extend(properties.get("UNIQ_KEY").cloned());
        }
        if is_timed || !codes::is_replayed_request(recorded.frame.code) {
            left_out.insert(recorded.index);
        }
    }
    for (request, answer) in recording.answers() {
        let keys = records_of(&request.frame, &answer.frame);
        let mut keys = keys.into_iter().filter_map(|record| record.unique_key());
        if keys.any(|key| timed_keys.contains(&key)) {
            left_out.insert(request.index);
        }
    }
    left_out
}

/// The recorded order, but for requests that were long on their way: a send goes out after the
/// pulls that did not see it yet, a heartbeat after the pulls that were refused for want of it.
fn order(recording: &Recording) -> Vec<usize> {
    let frames = &recording.frames;
    // Half steps: a request may be put behind a frame or before it.
    let mut places: Vec<(usize, usize)> = Vec::new();
    for recorded in frames {
        let place = match delayed_until(recording, recorded) {
            Some(index) => 2 * index + 1,
            None => 2 * recorded.index,
        };
        places.push((place, recorded.index));
    }
    places.sort_unstable();
    places.into_iter().map(|(_, index)| index).collect()
}

/// The last frame that the server sent before it looked at this request, if that is known.
fn delayed_until(recording: &Recording, recorded: &Recorded) -> Option<usize> {
    let is_request = recorded.from == From::Client && !recorded.frame.is_answer();
    if !is_request || recorded.peer != Peer::Broker {
        return None;
    }
    let between = &recording.frames[recorded.index + 1..recorded.pair?];
    let answers = between.iter().filter(|other| other.frame.is_answer());
    if recorded.frame.code == codes::HEARTBEAT {
        let body = String::from_utf8_lossy(&recorded.frame.body);
        let wants_it = |other: &&Recorded| match recording.request_of(other) {
            Some(request) if request.frame.code == codes::GET_ROUTEINFO_BY_TOPIC => {
                let topic = request.frame.field("topic").unwrap_or_default();
                let group = topic.strip_prefix("%RETRY%").unwrap_or("no group");
                other.frame.code == 17 && body.contains(&format!("\"{group}\""))
            }
            _ => other.frame.code == 25 && other.connection == recorded.connection,
        };
        return answers
            .filter(wants_it)
            .map(|other| other.index)
            .next_back();
    }
    if !codes::is_send(recorded.frame.code) {
        return None;
    }
    let same =
        |other: &&Recorded| other.connection == recorded.connection && other.from == From::Client;
    let end = between
        .iter()
        .find(same)
        .map_or(usize::MAX, |other| other.index);
    let answer = &recording.frames[recorded.pair?].frame;
    let topic = recorded.frame.field(codes::topic_key(recorded.frame.code));
    let (queue, offset) = (answer.number("queueId"), answer.number("queueOffset")?);
    let misses = |other: &&Recorded| {
        let Some(request) = recording.request_of(other) else {
            return false;
        };
        let is_of_queue =
            request.frame.field("topic") == topic && request.frame.number("queueId") == queue;
        let end = other.frame.number("maxOffset");
        codes::is_pull(request.frame.code) && is_of_queue && end.is_some_and(|end| end <= offset)
    };
    let missed = answers.filter(|other| other.index < end).filter(misses);
    missed.map(|other| other.index).next_back()
}

/// Whether a difference hangs on a request that went past the recorder: recording, request code,
/// place, and what Apache answered.
pub fn is_out_of_reach(difference: &Difference) -> bool {
    const CASES: &[(&str, i32, &str, &str)] = &[
        // A reset of offsets while the client ran.
        ("-admin", 15, "remark", "Offset has been previously reset"),
        // Delay levels show their offsets once they were used.
        ("List", 28, "body.table.scheduleMessageOffset_*", "text"),
        ("-more", 28, "body.table.scheduleMessageOffset_*", "text"),
        ("Status", 28, "body.table.scheduleMessageOffset_*", "text"),
        // Statistics of a timed message.
        ("mqadmin-5.5.0-statsAll", 315, "code", "0"),
    ];
    CASES.iter().any(|(recording, code, place, recorded)| {
        difference.recording.ends_with(recording)
            && difference.code == *code
            && difference.place == *place
            && difference.recorded == *recorded
    })
}
