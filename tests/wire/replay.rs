//! Repeats a recorded conversation on a fresh server, frame by frame in recorded order, and
//! compares every answer with the recorded one.

use super::broker::Broker;
use super::codes;
use super::compare::{Comparison, Difference};
use super::connection::Connections;
use super::frame::Frame;
use super::learned::Learned;
use super::plan::{self, Plan};
use super::prepare;
use super::recording::{From, Peer, Recorded, Recording};
use super::setup::{self, Setup};
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// How long an answer may take beyond what the request itself allows.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// How long what needs a moment to become true may take.
const SETTLE_TIME: Duration = Duration::from_secs(3);
/// How long the server parks a pull that found nothing when it was recorded.
const PARK_MS: i64 = 500;

pub struct Outcome {
    pub differences: Vec<Difference>,
    pub answer_count: usize,
}

/// Replays one recording on a server that holds nothing yet. `is_known` tells which differences
/// need not be looked at twice.
pub fn replay(
    recording: &Recording,
    broker: &Broker,
    is_known: &dyn Fn(&Difference) -> bool,
) -> Outcome {
    let mut connections = Connections::new();
    let ready = begin(recording, broker, &mut connections);
    let (differences, answer_count) = match ready {
        Ok(learned) => {
            let mut replay = Replay {
                recording,
                broker,
                connections,
                learned,
                opaques: HashMap::new(),
                plan: plan::plan(recording),
                differences: Vec::new(),
                answer_count: 0,
                repeat_opaque: 2_000_000,
                is_known,
            };
            replay.run();
            (replay.differences, replay.answer_count)
        }
        Err(cause) => (vec![fault(recording, 0, 0, "set-up", "done", &cause)], 0),
    };
    Outcome {
        differences,
        answer_count,
    }
}

fn begin(
    recording: &Recording,
    broker: &Broker,
    connections: &mut Connections,
) -> Result<Learned, String> {
    connections.open(setup::NAMESERVER, broker.nameserver)?;
    connections.open(setup::BROKER, broker.broker)?;
    let mut learned = Learned::new(recording, setup::broker_name(connections)?);
    let mut setup = Setup {
        connections,
        learned: &mut learned,
        broker: broker.broker,
        opaque: 1_000_000,
    };
    setup.make(&prepare::needs(recording))?;
    Ok(learned)
}

fn fault(
    recording: &Recording,
    index: usize,
    code: i32,
    place: &str,
    recorded: &str,
    ours: &str,
) -> Difference {
    Difference {
        code,
        place: place.to_owned(),
        recorded: recorded.to_owned(),
        ours: ours.to_owned(),
        recording: recording.name.clone(),
        index,
    }
}

struct Replay<'a> {
    recording: &'a Recording,
    broker: &'a Broker,
    connections: Connections,
    learned: Learned,
    /// Recorded number of a server's request → number of ours.
    opaques: HashMap<(u32, i32), i32>,
    plan: Plan,
    differences: Vec<Difference>,
    answer_count: usize,
    repeat_opaque: i32,
    is_known: &'a dyn Fn(&Difference) -> bool,
}

impl Replay<'_> {
    fn run(&mut self) {
        let recording = self.recording;
        let mut last: HashMap<u32, usize> = HashMap::new();
        let frames: Vec<&Recorded> = self
            .plan
            .order
            .iter()
            .map(|index| &recording.frames[*index])
            .collect();
        for recorded in &frames {
            last.insert(recorded.connection, recorded.index);
        }
        for recorded in frames {
            match (recorded.from, recorded.frame.is_answer()) {
                (From::Client, false) => self.request(recorded),
                (From::Server, true) => self.answer(recorded),
                (From::Server, false) => self.server_request(recorded),
                (From::Client, true) => self.client_answer(recorded),
            }
            if last[&recorded.connection] == recorded.index {
                self.connections.close(recorded.connection);
            }
        }
        self.rest();
    }

    fn fault(&mut self, index: usize, code: i32, place: &str, recorded: &str, ours: &str) {
        let fault = fault(self.recording, index, code, place, recorded, ours);
        self.differences.push(fault);
    }

    fn request(&mut self, recorded: &Recorded) {
        let (connection, code) = (recorded.connection, recorded.frame.code);
        if self.plan.left_out.contains(&recorded.index) {
            return;
        }
        if !self.connections.is_open(connection) {
            let address = match recorded.peer {
                Peer::NameServer => self.broker.nameserver,
                Peer::Broker => self.broker.broker,
            };
            if let Err(cause) = self.connections.open(connection, address) {
                return self.fault(recorded.index, code, "connection", "opened", &cause);
            }
        }
        let bytes = match self.rewritten(recorded) {
            Some(request) => request.encode(),
            None => recorded.bytes.clone(),
        };
        if let Err(cause) = self.connections.send(connection, &bytes) {
            self.fault(recorded.index, code, "connection", "open", &cause);
        }
    }

    /// The request with this server's values in it, or `None` if it may go as it was recorded.
    fn rewritten(&self, recorded: &Recorded) -> Option<Frame> {
        let mut request = recorded.frame.clone();
        let mut changed = self.learned.rewrite(&mut request);
        let answer = recorded
            .pair
            .map(|index| &self.recording.frames[index].frame);
        let found_nothing = answer.is_some_and(|answer| answer.code == 19);
        if codes::is_pull(request.code) && found_nothing {
            request.set_field("suspendTimeoutMillis", &PARK_MS.to_string());
            changed = true;
        }
        changed.then_some(request)
    }

    fn answer(&mut self, recorded: &Recorded) {
        let Some(request) = self.recording.request_of(recorded) else {
            return;
        };
        let code = request.frame.code;
        if self.plan.left_out.contains(&request.index) {
            return;
        }
        self.answer_count += 1;
        let sent = self
            .rewritten(request)
            .unwrap_or_else(|| request.frame.clone());
        let none = fault(
            self.recording,
            recorded.index,
            code,
            "answer",
            "one",
            "none",
        );
        // Nobody waits long for what the table says will not come.
        let is_awaited = !(self.is_known)(&none);
        let time = match is_awaited {
            true => answer_time(&sent),
            false => Duration::from_millis(50),
        };
        let opaque = sent.opaque;
        let connection = recorded.connection;
        let answer = self.connections.wait(connection, time, |frame| {
            frame.is_answer() && frame.opaque == opaque
        });
        let answer = match answer {
            Ok(answer) => answer,
            Err(_) if !is_awaited => return self.differences.push(none),
            Err(cause) => {
                return self.fault(recorded.index, code, "answer", "an answer", &cause);
            }
        };
        let (answer, differences) = self.settled(request, recorded, &sent, answer);
        self.differences.extend(differences);
        self.learn(request, recorded, &answer);
    }

    /// Compares, and asks again while what only reads is not as it was recorded yet.
    fn settled(
        &mut self,
        request: &Recorded,
        recorded: &Recorded,
        sent: &Frame,
        first: Frame,
    ) -> (Frame, Vec<Difference>) {
        let deadline = Instant::now() + SETTLE_TIME;
        let mut answer = first;
        loop {
            let differences = self.compare(request, recorded, &answer);
            let is_new = differences
                .iter()
                .any(|difference| !(self.is_known)(difference));
            let over = deadline < Instant::now() || !codes::may_repeat(sent.code);
            if !is_new || over {
                return (answer, differences);
            }
            std::thread::sleep(Duration::from_millis(100));
            self.repeat_opaque += 1;
            let again = sent.with_opaque(self.repeat_opaque);
            match self
                .connections
                .call(recorded.connection, &again, answer_time(&again))
            {
                Ok(next) => answer = next,
                Err(_) => return (answer, differences),
            }
        }
    }

    fn compare(&self, request: &Recorded, recorded: &Recorded, ours: &Frame) -> Vec<Difference> {
        let comparison = Comparison {
            request: &request.frame,
            recorded: &recorded.frame,
            ours,
            learned: &self.learned,
            may_have_more: request
                .frame
                .field("topic")
                .is_some_and(|topic| self.plan.delayed_topics.contains(&topic)),
        };
        let code = request.frame.code;
        let found = comparison.differences().into_iter();
        found
            .map(|(place, theirs, ours)| {
                fault(self.recording, recorded.index, code, &place, &theirs, &ours)
            })
            .filter(|difference| !plan::is_out_of_reach(difference))
            .collect()
    }

    fn learn(&mut self, request: &Recorded, recorded: &Recorded, ours: &Frame) {
        if codes::is_send(request.frame.code) {
            if let (Some(theirs), Some(ours)) = (recorded.frame.field("msgId"), ours.field("msgId"))
            {
                self.learned.offset_ids(&theirs, &ours);
            }
            let key = "transactionId";
            if let (Some(theirs), Some(ours)) = (recorded.frame.field(key), ours.field(key)) {
                self.learned.unique_keys(&theirs, &ours);
            }
        }
        let ours = prepare::records_of(&request.frame, ours);
        for theirs in prepare::records_of(&request.frame, &recorded.frame) {
            let place = |record: &super::record::Record| {
                (record.topic.clone(), record.queue_id, record.queue_offset)
            };
            if let Some(ours) = ours.iter().find(|ours| place(ours) == place(&theirs)) {
                self.learned.record(&theirs, ours);
            }
        }
    }

    /// The server must ask the client what Apache's asked it.
    fn server_request(&mut self, recorded: &Recorded) {
        let code = recorded.frame.code;
        if self.plan.left_out.contains(&recorded.index) {
            return;
        }
        let fields = recorded.frame.fields();
        let wanted =
            |frame: &Frame| !frame.is_answer() && frame.code == code && frame.fields() == fields;
        match self
            .connections
            .wait(recorded.connection, ANSWER_TIME / 2, wanted)
        {
            Ok(ours) => {
                self.answer_count += 1;
                let key = (recorded.connection, recorded.frame.opaque);
                self.opaques.insert(key, ours.opaque);
                if ours.flag != recorded.frame.flag {
                    let flags = (recorded.frame.flag.to_string(), ours.flag.to_string());
                    self.fault(recorded.index, code, "flag", &flags.0, &flags.1);
                }
            }
            Err(cause) => {
                let theirs = format!("request {fields:?}");
                self.fault(recorded.index, code, "server request", &theirs, &cause);
            }
        }
    }

    fn client_answer(&mut self, recorded: &Recorded) {
        let key = (recorded.connection, recorded.frame.opaque);
        let Some(opaque) = self.opaques.get(&key) else {
            return;
        };
        let answer = recorded.frame.with_opaque(*opaque);
        if let Err(cause) = self.connections.send(recorded.connection, &answer.encode()) {
            self.fault(recorded.index, answer.code, "connection", "open", &cause);
        }
    }

    /// Whether a recording ended before this request was answered: no later one on its connection
    /// was.
    fn is_last(&self, request: &Recorded) -> bool {
        let later = &self.recording.frames[request.index..];
        let of_client = |other: &&Recorded| {
            other.connection == request.connection
                && other.from == From::Client
                && !other.frame.is_answer()
        };
        later
            .iter()
            .filter(of_client)
            .all(|other| other.pair.is_none())
    }

    /// What came though Apache sent nothing of the kind.
    fn rest(&mut self) {
        let rest = self.connections.rest();
        let mut noticed = HashSet::new();
        let is_notice = |frame: &Frame| frame.code == codes::NOTIFY_CONSUMER_IDS_CHANGED;
        for (connection, frame) in rest {
            if setup::NAMESERVER <= connection {
                continue;
            }
            let of_answer = |recorded: &&Recorded| {
                recorded.connection == connection
                    && recorded.from == From::Client
                    && recorded.frame.opaque == frame.opaque
            };
            let request = self.recording.frames.iter().rev().find(of_answer);
            let code = request.map_or(frame.code, |request| request.frame.code);
            let text = format!("{} {:?}", frame.code, frame.remark);
            match (frame.is_answer(), request) {
                // A pull that was still parked when its recording ended may end here, also because
                // its group left (24).
                (true, Some(request)) if codes::is_pull(code) && request.pair.is_none() => {
                    if ![0, 19, 20, 21, 24].contains(&frame.code) {
                        self.fault(request.index, code, "answer", "parked", &text);
                    }
                }
                (true, Some(request)) if self.is_last(request) => {}
                (true, Some(request)) => {
                    self.fault(request.index, code, "answer", "none", &text);
                }
                (true, None) => {}
                (false, _) if !codes::is_replayed_request(frame.code) => {}
                // One more call to look at the group again does no harm: two clients that come
                // or go at once are told of together or one by one.
                (false, _) if is_notice(&frame) && noticed.insert(connection) => {}
                (false, _) => self.fault(0, frame.code, "server request", "none", &text),
            }
        }
    }
}

fn answer_time(request: &Frame) -> Duration {
    let parked = match codes::is_pull(request.code) {
        true => request.number("suspendTimeoutMillis").unwrap_or(0).max(0) as u64,
        false => 0,
    };
    ANSWER_TIME + Duration::from_millis(parked)
}
