//! Reads of messages that are not in memory: whether the page cache can be asked about, and gone past.

use super::report::{Entry, NOT_SEEN};
use crate::base::Feature;
use crate::io::{Errno, FileTrial};

const NAME: &str = "cold reads";
const PAGE: &str = "kernel-notes/page-cache-and-cold-reads.md";

pub(super) fn check(trial: Result<FileTrial, Errno>) -> Entry {
    let trial = match trial {
        Ok(trial) => trial,
        Err(errno) => {
            let reason = format!("no file could be made to try them: {}", errno.desc());
            return Entry::ok(NAME, NOT_SEEN, reason);
        }
    };
    let words = Feature::OF_FILES.map(|feature| match trial.answer(feature) {
        Some(Err(errno)) => format!("{} no ({errno:?})", feature.name()),
        _ => format!("{} yes", feature.name()),
    });
    let value = words.join(", ");
    let asked = match trial.cachestat {
        Ok(()) => "the page cache is asked about by one call",
        Err(_) => "the page cache is asked about page by page (mincore; Linux 6.5 adds cachestat)",
    };
    match (trial.direct_io, trial.dontcache) {
        (Ok(()), _) => {
            let reason = format!("{asked}, and old messages are read past it ({PAGE})");
            Entry::ok(NAME, value, reason)
        }
        (Err(_), Ok(())) => {
            let reason =
                format!("{asked}, and old messages leave it after they were read ({PAGE})");
            Entry::ok(NAME, value, reason)
        }
        (Err(_), Err(_)) => {
            let reason = format!(
                "{asked}; old messages are read through it, and may take the place of new ones ({PAGE})"
            );
            Entry::advice(NAME, value, reason, super::measured::ELSEWHERE)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Verdict;
    use super::*;

    fn judged(cachestat: bool, direct_io: bool, dontcache: bool) -> Entry {
        let answer = |has: bool, errno| if has { Ok(()) } else { Err(errno) };
        check(Ok(FileTrial {
            cachestat: answer(cachestat, Errno::ENOSYS),
            direct_io: answer(direct_io, Errno::EINVAL),
            dontcache: answer(dontcache, Errno::EOPNOTSUPP),
        }))
    }

    #[test]
    fn one_way_around_the_page_cache_is_enough() {
        let old = judged(false, true, false);
        assert_eq!(old.verdict, Verdict::Ok);
        assert_eq!(
            old.value,
            "cachestat no (ENOSYS), direct-io yes, dontcache no (EOPNOTSUPP)"
        );
        assert!(old.reason.contains("mincore"), "{old:?}");
        let once = judged(true, false, true);
        assert_eq!(once.verdict, Verdict::Ok);
        assert!(once.reason.contains("leave it"), "{once:?}");
        let none = judged(true, false, false);
        assert_eq!(none.verdict, Verdict::Advice);
        assert!(none.reason.contains("may take the place"), "{none:?}");
        assert_eq!(check(Err(Errno::EACCES)).value, NOT_SEEN);
    }
}
