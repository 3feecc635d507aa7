//! The broker's registration client keeps its brokers known to every name server it can reach, and waits
//! for none that it cannot.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use corelane::base::{Key, ShardId};
use corelane::broker::registration::{BrokerIdentity, News, Registrar};
use corelane::command::{ConnectionId, DataVersion, TopicConfig};
use corelane::nameserver::{NameServer, Settings, body};
use corelane::protocol::rocketmq::frame::{
    HeaderKind, Scratch, decode, encode_request, encode_response, frame_size,
};

/// How a test's name server behaves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Serves,
    /// Takes connections and says nothing.
    Hangs,
    Refuses,
    /// Sends a request of its own before each answer, as Apache's NameServer may.
    Chatters,
}

/// A name server on threads, for tests: a socket around `serve`.
struct Running {
    address: String,
    server: Arc<Mutex<NameServer>>,
    /// Open connections.
    streams: Arc<Mutex<HashMap<u32, TcpStream>>>,
    registrations: Arc<AtomicU32>,
    /// Names of topics in each registration that came.
    named: Arc<Mutex<Vec<Vec<String>>>>,
    closed: Arc<AtomicBool>,
}

impl Running {
    fn start(mood: Mood) -> Self {
        Self::start_at("127.0.0.1:0", mood)
    }

    fn start_at(address: &str, mood: Mood) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let running = Self {
            address: listener.local_addr().unwrap().to_string(),
            server: Arc::new(Mutex::new(NameServer::new(Settings::default()))),
            streams: Arc::default(),
            registrations: Arc::default(),
            named: Arc::default(),
            closed: Arc::default(),
        };
        let (server, streams) = (Arc::clone(&running.server), Arc::clone(&running.streams));
        let registrations = Arc::clone(&running.registrations);
        let named = Arc::clone(&running.named);
        let closed = Arc::clone(&running.closed);
        std::thread::spawn(move || {
            for (index, stream) in (0..).zip(listener.incoming()) {
                if closed.load(Ordering::SeqCst) {
                    return;
                }
                let stream = stream.unwrap();
                streams
                    .lock()
                    .unwrap()
                    .insert(index, stream.try_clone().unwrap());
                let (server, streams) = (Arc::clone(&server), Arc::clone(&streams));
                let registrations = Arc::clone(&registrations);
                let named = Arc::clone(&named);
                std::thread::spawn(move || {
                    let id = ConnectionId(Key {
                        index,
                        generation: 0,
                    });
                    converse(stream, id, mood, &server, (&registrations, &named));
                    server.lock().unwrap().disconnected(id);
                    streams.lock().unwrap().remove(&index);
                });
            }
        });
        running
    }

    /// Closes everything, as a process that dies does.
    fn die(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(&self.address);
        for stream in self.streams.lock().unwrap().values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn knows(&self, name: &str) -> bool {
        self.server.lock().unwrap().table().broker(name).is_some()
    }

    fn queue_count(&self, topic: &str) -> Option<u32> {
        let server = self.server.lock().unwrap();
        let queues = server.table().queues(topic)?;
        queues.first().map(|(_, data)| data.read_queue_count)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.die();
    }
}

fn converse(
    mut stream: TcpStream,
    id: ConnectionId,
    mood: Mood,
    server: &Mutex<NameServer>,
    (registrations, named): (&AtomicU32, &Mutex<Vec<Vec<String>>>),
) {
    let started = Instant::now();
    let mut received = Vec::new();
    let mut buffer = vec![0; 65_536];
    let mut scratch = Scratch::default();
    loop {
        while let Some(size) = frame_size(&received).unwrap()
            && size <= received.len()
        {
            let frame: Vec<u8> = received.drain(..size).collect();
            let request = decode(&frame, &mut scratch).unwrap();
            if request.code == 103 {
                registrations.fetch_add(1, Ordering::SeqCst);
                let told = body::decode(request.body, false, 0, 479).unwrap();
                let names = told.topics.into_iter().map(|topic| topic.name);
                named.lock().unwrap().push(names.collect());
            }
            let mut out = Vec::new();
            match mood {
                Mood::Hangs => continue,
                Mood::Refuses => {
                    encode_response(&mut out, request.note(), 1, Some("not today"), &[], 0);
                }
                Mood::Serves | Mood::Chatters => {
                    if mood == Mood::Chatters {
                        let opaque = request.opaque;
                        encode_request(&mut out, HeaderKind::Json, 905, opaque, true, &[], b"{}");
                    }
                    let now_ms = started.elapsed().as_millis() as u64;
                    let mut server = server.lock().unwrap();
                    server.serve(&request, id, now_ms, &mut out);
                }
            }
            if stream.write_all(&out).is_err() {
                return;
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(count) => received.extend_from_slice(&buffer[..count]),
        }
    }
}

fn brokers(count: usize) -> Vec<BrokerIdentity> {
    (0..count)
        .map(|shard| BrokerIdentity {
            cluster: "DefaultCluster".to_owned(),
            name: format!("host-{shard}"),
            address: format!("127.0.0.1:{}", 28_931 + 10 * shard),
            ha_address: format!("127.0.0.1:{}", 28_932 + 10 * shard),
        })
        .collect()
}

fn topics(names: &[&str], count: u32) -> Arc<Vec<TopicConfig>> {
    let topics = names.iter().map(|name| TopicConfig {
        name: (*name).to_owned(),
        read_queue_count: count,
        write_queue_count: count,
        perm: 6,
        multi_tag: false,
        sys_flag: 0,
        order: false,
        attributes: vec![("message.type".to_owned(), "NORMAL".to_owned())],
    });
    Arc::new(topics.collect())
}

fn version(counter: i64) -> DataVersion {
    DataVersion {
        counter,
        state_version: 0,
        timestamp_ms: 1_700_000_000_000,
    }
}

fn update(
    registrar: &Registrar,
    shard: u8,
    topics: &Arc<Vec<TopicConfig>>,
    counter: i64,
) -> Receiver<Result<(), String>> {
    let (sender, receiver) = channel();
    registrar.update(
        ShardId(shard),
        &News::All(Arc::clone(topics)),
        version(counter),
        Some(Box::new(move |result| sender.send(result).unwrap())),
    );
    receiver
}

/// The outcome of an update, which must come within 3 s; some more for a loaded machine.
fn outcome(receiver: &Receiver<Result<(), String>>) -> Result<(), String> {
    let wait = Duration::from_millis(4_500);
    receiver
        .recv_timeout(wait)
        .expect("`done` is called in time")
}

fn eventually(what: &str, check: impl Fn() -> bool) {
    let started = Instant::now();
    while !check() {
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "not so: {what}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// An address where nobody listens.
fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[test]
fn every_shard_is_registered_with_every_name_server_when_done_is_called() {
    let servers = [Running::start(Mood::Serves), Running::start(Mood::Chatters)];
    let addresses = servers.iter().map(|server| server.address.clone());
    let registrar = Registrar::start(addresses.collect(), brokers(3), false);
    std::thread::sleep(Duration::from_millis(100));
    assert!(
        !servers[0].knows("host-0"),
        "no broker before it says what it has"
    );
    let topics = topics(&["T", "TBW102"], 4);
    let pending: Vec<_> = (0..3)
        .map(|shard| update(&registrar, shard, &topics, 1))
        .collect();
    for receiver in &pending {
        assert_eq!(outcome(receiver), Ok(()));
    }
    for server in &servers {
        for shard in 0..3 {
            assert!(server.knows(&format!("host-{shard}")));
        }
        assert_eq!(server.queue_count("T"), Some(4));
        assert_eq!(
            server.streams.lock().unwrap().len(),
            3,
            "a connection a broker"
        );
    }
}

#[test]
fn a_changed_topic_is_there_when_done_is_called() {
    let server = Running::start(Mood::Serves);
    let registrar = Registrar::start(vec![server.address.clone()], brokers(1), false);
    for counter in 1..20 {
        let receiver = update(
            &registrar,
            0,
            &topics(&["T", "TBW102"], counter),
            counter.into(),
        );
        assert_eq!(outcome(&receiver), Ok(()));
        assert_eq!(server.queue_count("T"), Some(counter));
    }
}

/// An update that tells of some topics only.
fn change(registrar: &Registrar, names: &[&str], counter: u32) -> Result<(), String> {
    let (sender, receiver) = channel();
    let changed = topics(names, counter).as_ref().clone();
    registrar.update(
        ShardId(0),
        &News::Changed(changed),
        version(counter.into()),
        Some(Box::new(move |result| sender.send(result).unwrap())),
    );
    outcome(&receiver)
}

#[test]
fn a_topic_that_is_new_is_told_alone() {
    let server = Running::start(Mood::Serves);
    let registrar = Registrar::start(vec![server.address.clone()], brokers(1), false);
    let all = topics(&["T", "U", "V"], 1);
    assert_eq!(outcome(&update(&registrar, 0, &all, 1)), Ok(()));
    assert_eq!(change(&registrar, &["N"], 2), Ok(()));
    assert_eq!(change(&registrar, &["U"], 3), Ok(()));
    let told = server.named.lock().unwrap().clone();
    assert_eq!(told[1..], [["N"], ["U"]]);
    let counts = ["T", "N", "U", "V"].map(|topic| server.queue_count(topic));
    assert_eq!(counts, [Some(1), Some(2), Some(3), Some(1)]);
    // One that has gone is only seen where all are told.
    let fewer = topics(&["T", "N"], 4);
    assert_eq!(outcome(&update(&registrar, 0, &fewer, 4)), Ok(()));
    assert_eq!(server.named.lock().unwrap()[3], ["N", "T"]);
}

#[test]
fn a_name_server_that_was_away_is_told_of_all_topics() {
    let server = Running::start(Mood::Serves);
    let registrar = Registrar::start(vec![server.address.clone()], brokers(1), false);
    let all = topics(&["T", "U"], 1);
    assert_eq!(outcome(&update(&registrar, 0, &all, 1)), Ok(()));
    server.die();
    eventually("its connections are closed", || {
        server.streams.lock().unwrap().is_empty()
    });
    assert!(change(&registrar, &["N"], 2).is_err());
    let again = Running::start_at(&server.address, Mood::Serves);
    eventually("it knows the broker again", || again.knows("host-0"));
    let counts = ["T", "U", "N"].map(|topic| again.queue_count(topic));
    assert_eq!(counts, [Some(1), Some(1), Some(2)]);
    // The answer may not have come yet.
    let counter = AtomicU32::new(3);
    eventually("one that is new is taken", || {
        let counter = counter.fetch_add(1, Ordering::SeqCst);
        change(&registrar, &["M"], counter).is_ok()
    });
    assert_eq!(again.named.lock().unwrap().last().unwrap(), &["M"]);
}

#[test]
fn where_it_is_wanted_all_topics_are_told_each_time() {
    let server = Running::start(Mood::Serves);
    let registrar = Registrar::start(vec![server.address.clone()], brokers(1), true);
    let all = topics(&["T", "U"], 1);
    assert_eq!(outcome(&update(&registrar, 0, &all, 1)), Ok(()));
    assert_eq!(change(&registrar, &["N"], 2), Ok(()));
    assert_eq!(server.named.lock().unwrap()[1], ["N", "T", "U"]);
}

#[test]
fn what_is_told_in_part_makes_our_name_server_forget_nothing() {
    let server = Running::start(Mood::Serves);
    let settings = "deleteTopicWithBrokerRegistration=true";
    let mut frame = Vec::new();
    encode_request(
        &mut frame,
        HeaderKind::Json,
        318,
        1,
        false,
        &[],
        settings.as_bytes(),
    );
    let mut out = Vec::new();
    let id = ConnectionId(Key {
        index: 77,
        generation: 0,
    });
    let mut scratch = Scratch::default();
    let request = decode(&frame, &mut scratch).unwrap();
    server
        .server
        .lock()
        .unwrap()
        .serve(&request, id, 0, &mut out);
    let registrar = Registrar::start(vec![server.address.clone()], brokers(1), false);
    let all = topics(&["T", "U"], 1);
    assert_eq!(outcome(&update(&registrar, 0, &all, 1)), Ok(()));
    assert_eq!(change(&registrar, &["N"], 2), Ok(()));
    assert_eq!(server.queue_count("U"), Some(1));
    let fewer = topics(&["T", "N"], 4);
    assert_eq!(outcome(&update(&registrar, 0, &fewer, 4)), Ok(()));
    assert_eq!(server.queue_count("U"), None, "it is set so");
}

#[test]
fn a_broker_with_a_single_topic_is_registered_too() {
    let server = Running::start(Mood::Serves);
    let registrar = Registrar::start(vec![server.address.clone()], brokers(1), false);
    assert_eq!(
        outcome(&update(&registrar, 0, &topics(&["T"], 4), 1)),
        Ok(())
    );
    assert_eq!(server.queue_count("T"), Some(4));
}

#[test]
fn a_name_server_that_is_not_there_is_not_waited_for() {
    let server = Running::start(Mood::Serves);
    let addresses = vec![nowhere(), server.address.clone()];
    let registrar = Registrar::start(addresses, brokers(1), false);
    let topics = topics(&["T", "TBW102"], 4);
    assert_eq!(outcome(&update(&registrar, 0, &topics, 1)), Ok(()));
    let started = Instant::now();
    assert_eq!(outcome(&update(&registrar, 0, &topics, 2)), Ok(()));
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[test]
fn where_no_name_server_can_be_reached_each_is_named() {
    let addresses = vec![
        nowhere(),
        "no-such-host.invalid:9876".to_owned(),
        "nonsense".to_owned(),
    ];
    let registrar = Registrar::start(addresses.clone(), brokers(1), false);
    let why = outcome(&update(&registrar, 0, &topics(&["T", "U"], 4), 1)).unwrap_err();
    for address in addresses {
        assert!(why.contains(&address), "{address} in: {why}");
    }
}

#[test]
fn a_name_server_that_hangs_holds_an_update_up_for_3_s_and_then_no_longer() {
    let hanging = Running::start(Mood::Hangs);
    let server = Running::start(Mood::Serves);
    let addresses = vec![hanging.address.clone(), server.address.clone()];
    let registrar = Registrar::start(addresses, brokers(1), false);
    let topics = topics(&["T", "TBW102"], 4);
    let started = Instant::now();
    let receiver = update(&registrar, 0, &topics, 1);
    assert_eq!(outcome(&receiver), Ok(()));
    assert!(Duration::from_secs(2) < started.elapsed());
    // After 6 s without an answer it is known to be away.
    std::thread::sleep(Duration::from_secs(6).saturating_sub(started.elapsed()));
    std::thread::sleep(Duration::from_millis(700));
    let started = Instant::now();
    assert_eq!(outcome(&update(&registrar, 0, &topics, 2)), Ok(()));
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[test]
fn a_refusal_is_an_error_with_the_name_servers_reason() {
    let refusing = Running::start(Mood::Refuses);
    let server = Running::start(Mood::Serves);
    let addresses = vec![refusing.address.clone(), server.address.clone()];
    let registrar = Registrar::start(addresses, brokers(1), false);
    let why = outcome(&update(&registrar, 0, &topics(&["T", "U"], 4), 1)).unwrap_err();
    assert!(
        why.contains(&refusing.address) && why.contains("not today"),
        "{why}"
    );
    assert!(!why.contains(&server.address), "{why}");
    assert!(server.knows("host-0"));
    // The next update is tried at once, not when the pause after a refusal is over.
    let started = Instant::now();
    for counter in 2..5 {
        outcome(&update(&registrar, 0, &topics(&["T", "U"], 4), counter)).unwrap_err();
    }
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn a_name_server_that_was_started_again_learns_the_brokers_by_itself() {
    let first = Running::start(Mood::Serves);
    let address = first.address.clone();
    let registrar = Registrar::start(vec![address.clone()], brokers(2), false);
    let topics = topics(&["T", "TBW102"], 4);
    for shard in 0..2 {
        assert_eq!(outcome(&update(&registrar, shard, &topics, 1)), Ok(()));
    }
    first.die();
    eventually("the port is free", || TcpListener::bind(&address).is_ok());
    let second = Running::start_at(&address, Mood::Serves);
    eventually("both brokers are back", || {
        second.knows("host-0") && second.knows("host-1")
    });
    assert_eq!(outcome(&update(&registrar, 0, &topics, 2)), Ok(()));
}

#[test]
fn a_stop_unregisters_everywhere_and_takes_at_most_a_second() {
    let server = Running::start(Mood::Serves);
    let hanging = Running::start(Mood::Hangs);
    let addresses = vec![server.address.clone(), hanging.address.clone(), nowhere()];
    let registrar = Registrar::start(addresses, brokers(4), false);
    let topics = topics(&["T", "TBW102"], 4);
    for shard in 0..4 {
        registrar.update(
            ShardId(shard),
            &News::All(Arc::clone(&topics)),
            version(1),
            None,
        );
    }
    eventually("all are registered", || {
        (0..4).all(|shard| server.knows(&format!("host-{shard}")))
    });
    let pending = update(&registrar, 0, &topics, 2);
    let started = Instant::now();
    registrar.stop();
    let took = started.elapsed();
    assert!(took < Duration::from_millis(1_500), "{took:?}");
    for shard in 0..4 {
        assert!(!server.knows(&format!("host-{shard}")));
    }
    // A name server that hangs sees the connections close: nothing waits for its answer any more.
    std::thread::sleep(Duration::from_millis(300));
    assert!(hanging.streams.lock().unwrap().is_empty());
    // Nobody is left waiting, neither from before nor from after.
    let _ = outcome(&pending);
    let why = outcome(&update(&registrar, 0, &topics, 3)).unwrap_err();
    assert!(why.contains("stopping"), "{why}");
    std::thread::sleep(Duration::from_millis(200));
    assert!(!server.knows("host-0"), "it does not register again");
}

#[test]
fn topics_beyond_what_a_frame_holds_as_json_are_registered_compressed() {
    let server = Running::start(Mood::Serves);
    let registrar = Registrar::start(vec![server.address.clone()], brokers(1), false);
    let long = "x".repeat(100);
    let names: Vec<_> = (0..45_000).map(|index| format!("{index}-{long}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let topics = topics(&names, 4);
    registrar.update(
        ShardId(0),
        &News::All(Arc::clone(&topics)),
        version(1),
        None,
    );
    eventually("the last topic is there", || {
        server.queue_count(names[44_999]) == Some(4)
    });
}

#[test]
#[ignore = "takes 31 s"]
fn registrations_are_repeated_within_30_s() {
    let server = Running::start(Mood::Serves);
    let registrar = Registrar::start(vec![server.address.clone()], brokers(1), false);
    assert_eq!(
        outcome(&update(&registrar, 0, &topics(&["T", "U"], 4), 1)),
        Ok(())
    );
    std::thread::sleep(Duration::from_secs(26));
    assert_eq!(server.registrations.load(Ordering::SeqCst), 1);
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(server.registrations.load(Ordering::SeqCst), 2);
}

/// Asks a name server over a connection of its own.
fn ask(address: &str, code: i32, fields: &[(&str, &str)]) -> (i32, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let mut out = Vec::new();
    encode_request(&mut out, HeaderKind::Json, code, 1, false, fields, b"");
    stream.write_all(&out).unwrap();
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    while frame_size(&received).unwrap() != Some(received.len()) {
        let count = stream.read(&mut buffer).unwrap();
        assert!(0 < count, "closed");
        received.extend_from_slice(&buffer[..count]);
    }
    let mut scratch = Scratch::default();
    let answer = decode(&received, &mut scratch).unwrap();
    (
        answer.code,
        String::from_utf8(answer.body.to_vec()).unwrap(),
    )
}

#[test]
#[ignore = "needs Apache's NameServer at the address in APACHE_NAMESRV; HOLD_SECONDS leaves time to look with mqadmin"]
fn apaches_name_server_takes_our_brokers_and_forgets_them_at_the_stop() {
    let address = std::env::var("APACHE_NAMESRV").expect("APACHE_NAMESRV=host:port");
    let registrar = Registrar::start(vec![address.clone()], brokers(2), false);
    let one = topics(&["OnlyTopic"], 3);
    assert_eq!(outcome(&update(&registrar, 0, &one, 1)), Ok(()));
    let two = topics(&["OnlyTopic", "Other"], 3);
    assert_eq!(outcome(&update(&registrar, 1, &two, 1)), Ok(()));
    let (code, route) = ask(&address, 105, &[("topic", "OnlyTopic")]);
    assert_eq!(code, 0);
    println!("{route}");
    for part in [
        "host-0",
        "host-1",
        "127.0.0.1:28931",
        "127.0.0.1:28941",
        "\"readQueueNums\":3",
    ] {
        assert!(route.contains(part), "{part} in {route}");
    }
    let wide = topics(&["OnlyTopic", "Other"], 5);
    assert_eq!(outcome(&update(&registrar, 1, &wide, 2)), Ok(()));
    let (_, route) = ask(&address, 105, &[("topic", "Other")]);
    assert!(route.contains("\"readQueueNums\":5"), "{route}");
    // One that is new is told alone; it has the others still.
    assert_eq!(change(&registrar, &["New"], 6), Ok(()));
    for (topic, count) in [("New", 6), ("OnlyTopic", 3)] {
        let (code, route) = ask(&address, 105, &[("topic", topic)]);
        assert_eq!(code, 0, "{topic}");
        let wanted = format!("\"readQueueNums\":{count}");
        assert!(route.contains(&wanted), "{route}");
    }
    let long = "x".repeat(100);
    let names: Vec<_> = (0..45_000).map(|index| format!("{index}-{long}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    registrar.update(ShardId(1), &News::All(topics(&names, 7)), version(3), None);
    eventually("the compressed form is taken", || {
        ask(&address, 105, &[("topic", names[44_999])]).0 == 0
    });
    let hold = std::env::var("HOLD_SECONDS").map_or(0, |text| text.parse().unwrap());
    std::thread::sleep(Duration::from_secs(hold));
    registrar.stop();
    // It unregisters in batches, a little later.
    eventually("the brokers are forgotten", || {
        !ask(&address, 106, &[]).1.contains("host-")
    });
}

#[test]
#[ignore = "needs a broker of Apache's named `apache` that registers with the address in OUR_NAMESRV; HOLD_SECONDS leaves time to look with mqadmin"]
fn apaches_broker_registers_with_our_name_server() {
    let address = std::env::var("OUR_NAMESRV").expect("OUR_NAMESRV=host:port");
    let server = Running::start_at(&address, Mood::Serves);
    let started = Instant::now();
    while !(server.knows("apache") && server.queue_count("TBW102").is_some()) {
        assert!(
            started.elapsed() < Duration::from_secs(120),
            "no broker came"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("{}", ask(&address, 105, &[("topic", "TBW102")]).1);
    let hold = std::env::var("HOLD_SECONDS").map_or(0, |text| text.parse().unwrap());
    std::thread::sleep(Duration::from_secs(hold));
    println!(
        "{} registrations",
        server.registrations.load(Ordering::SeqCst)
    );
}
