//! What is to be measured: contenders out of axes and peers, and the loads they all get.

use super::Options;
use crate::bed::{Contender, Work, flush_family};
use crate::report_html::file_name;
use crate::{Cli, Outcome, fail};
use clap::Parser;
use std::path::{Path, PathBuf};

pub fn split(text: &str) -> Outcome<Vec<String>> {
    match shlex::split(text) {
        Some(words) if !words.is_empty() => Ok(words),
        _ => fail(format!(
            "'{text}' is no command: is a quote missing its partner?"
        )),
    }
}

/// `NAME=COMMAND`; a command alone is named after its program.
pub fn named(text: &str) -> Outcome<(String, Vec<String>)> {
    let is_name = |name: &str| {
        let legal = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ' ');
        !name.is_empty() && name.chars().all(legal)
    };
    if let Some((name, command)) = text.split_once('=')
        && is_name(name)
        && !name.contains(' ')
    {
        return Ok((name.to_owned(), split(command)?));
    }
    let words = split(text)?;
    let stem = Path::new(&words[0]).file_stem();
    let name = stem.map_or_else(|| words[0].clone(), |stem| stem.to_string_lossy().into());
    Ok((name, words))
}

/// The broker that was built together with this program.
pub fn own_broker() -> Outcome<String> {
    let own = std::env::current_exe()?;
    let broker: PathBuf = own.with_file_name("corelane");
    if !broker.exists() {
        return fail(format!(
            "{} is missing; build it with `cargo build --release`, or name a broker's command with --broker",
            broker.display()
        ));
    }
    let path = broker.to_string_lossy();
    let path = shlex::try_quote(&path)?;
    Ok(format!(
        "corelane={path} serve --store {{store}} --port {{port}} --nameserver-port {{nameserver-port}} --shards 1"
    ))
}

/// Every value of `axis` with every one of `known`.
fn times(
    known: Vec<Vec<(String, String)>>,
    name: &str,
    values: &[String],
) -> Vec<Vec<(String, String)>> {
    if values.is_empty() {
        return known;
    }
    let with = |settings: &Vec<(String, String)>, value: &String| {
        let mut settings = settings.clone();
        settings.push((name.to_owned(), value.clone()));
        settings
    };
    known
        .iter()
        .flat_map(|settings| values.iter().map(move |value| with(settings, value)))
        .collect()
}

/// A broker under one choice of settings.
fn variant(name: &str, words: &[String], settings: &[(String, String)]) -> Contender {
    let mut contender = Contender {
        name: name.to_owned(),
        words: words.to_vec(),
        flush: String::new(),
        ..Contender::default()
    };
    for (key, value) in settings {
        contender.name += &format!(" {value}");
        if key == "flush" {
            contender.flush.clone_from(value);
        }
        let place = format!("{{{key}}}");
        if words.iter().any(|word| word.contains(&place)) {
            for word in &mut contender.words {
                *word = word.replace(&place, value);
            }
        } else {
            contender.words.extend(appended(key, value));
        }
    }
    contender
}

/// A setting as the broker's flags have it. A way to sync is a key of its own there: `sync-dsync` is
/// `--flush sync` with flushMethod dsync.
pub fn appended(key: &str, value: &str) -> Vec<String> {
    let (family, method) = match value.split_once('-') {
        Some(("sync", method)) if key == "flush" => ("sync", method),
        _ => return vec![format!("--{key}"), value.to_owned()],
    };
    let method = format!("flushMethod={method}");
    ["--flush", family, "--set", &method]
        .map(str::to_owned)
        .to_vec()
}

fn peer(text: &str, flushes: &[String], found: &mut Vec<Contender>) -> Outcome<()> {
    let (name, words) = named(text)?;
    let flushes_as_told = words.iter().any(|word| word.contains("{flush"));
    let mut families: Vec<&str> = Vec::new();
    for flush in flushes {
        let family = flush_family(flush);
        if flushes_as_told && !families.contains(&family) {
            families.push(family);
        }
    }
    if families.is_empty() {
        families.push(if flushes_as_told { "async" } else { "" });
    }
    for family in families {
        found.push(Contender {
            name: format!("{name} {family}").trim_end().to_owned(),
            words: words.clone(),
            flush: family.to_owned(),
            is_peer: true,
            ..Contender::default()
        });
    }
    Ok(())
}

pub fn contenders(options: &Options) -> Outcome<Vec<Contender>> {
    let brokers = if options.broker.is_empty() {
        vec![own_broker()?]
    } else {
        options.broker.clone()
    };
    let mut found = Vec::new();
    for broker in &brokers {
        let (name, words) = named(broker)?;
        let mut all = vec![Vec::new()];
        for (axis, values) in [
            ("flush", &options.flush),
            ("append", &options.append),
            ("egress", &options.egress),
        ] {
            all = times(all, axis, values);
        }
        found.extend(all.iter().map(|settings| variant(&name, &words, settings)));
    }
    for text in &options.peer {
        peer(text, &options.flush, &mut found)?;
    }
    for (at, contender) in found.iter().enumerate() {
        if found[..at].iter().any(|other| other.name == contender.name) {
            return fail(format!(
                "two contenders are called '{}': name them with NAME=COMMAND",
                contender.name
            ));
        }
    }
    Ok(found)
}

/// Loads that answer most questions in little time.
const WORKS: [&str; 4] = [
    "sends-64x8=produce --connections 64 --in-flight 8",
    "sends-1x1=produce --connections 1 --in-flight 1",
    "batches-50x100=produce --connections 8 --in-flight 4 --batch 50 --size 100",
    "e2e-5000=e2e --connections 8 --in-flight 64 --rate 5000 --own-delay withhold",
];

pub fn works(options: &Options) -> Outcome<Vec<Work>> {
    let texts: Vec<&str> = if options.load.is_empty() {
        WORKS.to_vec()
    } else {
        options.load.iter().map(String::as_str).collect()
    };
    let mut works: Vec<Work> = Vec::new();
    for text in texts {
        let Some((name, command)) = text.split_once('=') else {
            return fail(format!(
                "'{text}' has no name: write NAME=COMMAND ARGUMENTS"
            ));
        };
        let mut words = split(command)?;
        let kind = words.remove(0);
        if !["produce", "consume", "e2e", "mixed"].contains(&kind.as_str()) {
            return fail(format!(
                "'{kind}' drives no server: a load is produce, consume, e2e or mixed"
            ));
        }
        if file_name(name) != name || works.iter().any(|work| work.name == name) {
            return fail(format!(
                "'{name}' cannot name a load: use A-Z a-z 0-9 . and single -, each name once"
            ));
        }
        let work = Work {
            name: name.to_owned(),
            kind,
            words,
            limit_s: 0.0,
        };
        check(&work)?;
        works.push(work);
    }
    Ok(works)
}

/// What the generator would refuse is better refused before anything has started.
fn check(work: &Work) -> Outcome<()> {
    let mut line = vec!["corelane-bench", &work.kind, "--addr", "127.0.0.1:1"];
    line.extend(work.words.iter().map(String::as_str));
    let told = match Cli::try_parse_from(line) {
        Ok(cli) => cli.command.check_load().map_err(|error| error.0),
        Err(error) => Err(error.to_string()),
    };
    told.or_else(|error| fail(format!("load '{}': {error}", work.name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bed::Places;

    #[derive(Parser)]
    struct Words {
        #[command(flatten)]
        options: Options,
    }

    fn options(words: &[&str]) -> Options {
        let words = std::iter::once("compare").chain(words.iter().copied());
        Words::parse_from(words).options
    }

    fn names(words: &[&str]) -> Vec<String> {
        let found = contenders(&options(words)).unwrap();
        found.into_iter().map(|contender| contender.name).collect()
    }

    #[test]
    fn the_matrix_is_the_product_of_its_axes() {
        let broker = "b=broker --store {store}";
        assert_eq!(
            names(&[
                "--broker",
                broker,
                "--flush",
                "async,sync",
                "--egress",
                "auto,copy"
            ]),
            ["b async auto", "b async copy", "b sync auto", "b sync copy"]
        );
        assert_eq!(names(&["--broker", broker]), ["b"]);
    }

    #[test]
    fn every_way_beside_every_other_is_one_matrix() {
        let flush = "async,sync-fdatasync,sync-dsync,sync-direct,none";
        let egress = "auto,sendfile,splice,gather,send-zc,copy";
        let mut words = vec!["--broker", "b=x", "--flush", flush];
        words.extend(["--append", "auto,ring,inline,direct", "--egress", egress]);
        let all = names(&words);
        assert_eq!(all.len(), 5 * 4 * 6);
        assert_eq!(all[119], "b none direct copy");
    }

    #[test]
    fn peers_come_once_for_each_way_to_flush_that_they_know() {
        let flush = "async,sync-fdatasync,sync-dsync,none";
        let peers = ["--peer", "p=peer {flush}", "--peer", "q=other"];
        let mut words = vec!["--broker", "b=x", "--flush", flush];
        words.extend(peers);
        let all = names(&words);
        assert_eq!(all[4..], ["p async", "p sync", "q"], "{all:?}");
    }

    #[test]
    fn places_are_filled_and_settings_that_have_none_are_appended() {
        let words = [
            "--broker",
            "b='a b' {store} {port} {nameserver-port} {flush}",
        ];
        let mut all = words.to_vec();
        all.extend(["--flush", "sync-dsync", "--append", "ring"]);
        let found = contenders(&options(&all)).unwrap();
        let places = Places {
            store: Path::new("s"),
            port: 7,
            nameserver_port: 8,
        };
        let filled = found[0].filled(&places);
        assert_eq!(
            filled,
            ["a b", "s", "7", "8", "sync-dsync", "--append", "ring"]
        );
        let peer = Contender {
            is_peer: true,
            words: vec!["{flush}".into(), "{flush-disk-type}".into()],
            ..found[0].clone()
        };
        assert_eq!(peer.filled(&places), ["sync", "SYNC_FLUSH"]);
    }

    #[test]
    fn a_way_to_sync_is_a_key_of_the_broker() {
        let words = ["--broker", "b=broker", "--flush", "sync-dsync,async"];
        let found = contenders(&options(&words)).unwrap();
        let wanted = ["broker", "--flush", "sync", "--set", "flushMethod=dsync"];
        assert_eq!(found[0].words, wanted);
        assert_eq!(
            (found[0].name.as_str(), found[0].flush.as_str()),
            ("b sync-dsync", "sync-dsync")
        );
        assert_eq!(found[1].words, ["broker", "--flush", "async"]);
        assert_eq!(appended("flush", "none"), ["--flush", "none"]);
    }

    #[test]
    fn what_make_bench_compares_takes_less_than_five_minutes() {
        let makefile = include_str!("../../../Makefile");
        let line = makefile.split("corelane-bench compare ").nth(1).unwrap();
        let mut words = split(line.split('\\').next().unwrap()).unwrap();
        words.extend(["--broker", "b=x"].map(str::to_owned));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let options = options(&words);
        for way in ["async", "sync-fdatasync", "sync-dsync", "none"] {
            assert!(options.flush.iter().any(|flush| flush == way), "{way}");
        }
        let (contenders, works) = (contenders(&options).unwrap(), works(&options).unwrap());
        let expected_s = crate::bed::expected_s(&options.bed, &contenders, &works);
        assert!(expected_s <= 285.0, "{expected_s} s");
    }

    #[test]
    fn wrong_loads_are_refused_before_anything_starts() {
        for load in [
            "produce",
            "a=idle",
            "a=produce --sice 7",
            "a=produce --arrival poisson",
            "a/b=produce",
            "a=produce '",
        ] {
            assert!(works(&options(&["--load", load])).is_err(), "{load}");
        }
        assert_eq!(works(&options(&[])).unwrap().len(), WORKS.len());
    }
}
