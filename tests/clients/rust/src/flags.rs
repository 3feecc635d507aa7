//! The command line: a verb and flags, each flag with a value.

pub struct Flags {
    pub verb: String,
    pub namesrv: String,
    pub topic: String,
    pub group: String,
    pub mode: String,
    pub tag: String,
    pub body: String,
    pub keys: String,
    pub subscription: String,
    pub model: String,
    pub listener: String,
    pub instance: String,
    pub kind: String,
    pub count: usize,
    pub threads: usize,
    pub first: usize,
    pub size: usize,
    pub timeout: u64,
    pub linger: u64,
    pub fail_until: i32,
    pub queue: Option<usize>,
    pub max_reconsume: Option<i32>,
}

const VERBS: &[&str] = &["produce", "consume", "pull", "big", "chinese"];

impl Flags {
    pub fn parse(arguments: &[String]) -> Result<Flags, String> {
        let (verb, rest) = arguments.split_first().ok_or("no verb given")?;
        one_of("verb", verb, VERBS)?;
        let mut flags = Flags::defaults(verb);
        for pair in rest.chunks(2) {
            let [name, value] = pair else { return Err(format!("{} has no value", pair[0])) };
            flags.set(name, value)?;
        }
        one_of("--mode", &flags.mode, &["sync", "async", "oneway", "batch"])?;
        one_of("--keys", &flags.keys, &["yes", "no"])?;
        one_of("--model", &flags.model, &["clustering", "broadcasting"])?;
        one_of("--listener", &flags.listener, &["concurrent", "orderly"])?;
        one_of("--kind", &flags.kind, &["lite", "pull"])?;
        if flags.namesrv.is_empty() || flags.topic.is_empty() {
            return Err("--namesrv and --topic are required".to_string());
        }
        Ok(flags)
    }

    fn defaults(verb: &str) -> Flags {
        Flags {
            verb: verb.to_string(),
            namesrv: String::new(),
            topic: String::new(),
            group: "rust".to_string(),
            mode: "sync".to_string(),
            tag: String::new(),
            body: "m".to_string(),
            keys: "yes".to_string(),
            subscription: "*".to_string(),
            model: "clustering".to_string(),
            listener: "concurrent".to_string(),
            instance: String::new(),
            kind: "pull".to_string(),
            count: 1,
            threads: 1,
            first: 0,
            size: 0,
            timeout: 60,
            linger: 2,
            fail_until: 0,
            queue: None,
            max_reconsume: None,
        }
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "--namesrv" => self.namesrv = value.to_string(),
            "--topic" => self.topic = value.to_string(),
            "--group" => self.group = value.to_string(),
            "--mode" => self.mode = value.to_string(),
            "--tag" => self.tag = value.to_string(),
            "--body" => self.body = value.to_string(),
            "--keys" => self.keys = value.to_string(),
            "--subscription" => self.subscription = value.to_string(),
            "--model" => self.model = value.to_string(),
            "--listener" => self.listener = value.to_string(),
            "--instance" => self.instance = value.to_string(),
            "--kind" => self.kind = value.to_string(),
            "--count" => self.count = number(name, value)?,
            "--threads" => self.threads = number(name, value)?,
            "--first" => self.first = number(name, value)?,
            "--size" => self.size = number(name, value)?,
            "--timeout" => self.timeout = number(name, value)?,
            "--linger" => self.linger = number(name, value)?,
            "--fail-until" => self.fail_until = number(name, value)?,
            "--queue" => self.queue = Some(number(name, value)?),
            "--max-reconsume" => self.max_reconsume = Some(number(name, value)?),
            _ => return Err(format!("unknown flag {name}")),
        }
        Ok(())
    }
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{name} {value:?} is not a number that fits"))
}

fn one_of(name: &str, value: &str, known: &[&str]) -> Result<(), String> {
    if known.contains(&value) {
        return Ok(());
    }
    Err(format!("{name} {value:?} is none of {}", known.join(", ")))
}
