//! Which way a delivery travels. The thresholds come from kernel-notes/splice-and-sendfile.md.

use crate::io::{GATHER_SPANS_MAX, Span};

/// From this mean length of several runs on sendfile costs less than gathering the same bytes from a map: a call
/// costs about 1 µs whatever it moves, mostly for the segment that it sends, and two fcntl around it. Below, one
/// sendmsg for all runs does.
const SENDFILE_RUN_SIZE_MIN: u64 = 32 << 10;

/// A single run is one call either way, and from here on copying costs more than what sendfile does.
const SENDFILE_SINGLE_SIZE_MIN: u64 = 4 << 10;

/// A way for bytes to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// Page cache to socket, a call per run.
    Sendfile,
    /// Page cache to pipe to socket, by a worker of the kernel.
    Splice,
    /// One sendmsg from a read-only map.
    Gather,
    /// The same, and the kernel sends the pages themselves where the device can (MSG_ZEROCOPY).
    SendZc,
    /// Read into a buffer of ours from the page cache, and sent.
    Copy,
    /// Sent out of windows that were read past the page cache: for what it does not hold. Not to be chosen.
    Cold,
}

/// What `--egress` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// By the length of runs.
    Auto,
    /// Always this one.
    Fixed(Way),
}

impl Policy {
    /// The way for these spans. A gather has a bound on spans; longer lists go by sendfile.
    #[must_use]
    pub fn choose(self, spans: &[Span]) -> Way {
        match self {
            Self::Fixed(Way::Gather | Way::SendZc) if GATHER_SPANS_MAX < spans.len() => {
                Way::Sendfile
            }
            Self::Fixed(way) => way,
            Self::Auto => {
                let total: u64 = spans.iter().map(|span| u64::from(span.len)).sum();
                let long_runs = match spans.len() {
                    1 => SENDFILE_SINGLE_SIZE_MIN <= total,
                    count => SENDFILE_RUN_SIZE_MIN * count as u64 <= total,
                };
                if long_runs || GATHER_SPANS_MAX < spans.len() {
                    Way::Sendfile
                } else {
                    Way::Gather
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::FileId;

    #[test]
    fn long_runs_go_by_sendfile_and_scattered_records_are_gathered() {
        let span = |len| Span {
            file: FileId(0),
            at: 0,
            len,
        };
        assert_eq!(Policy::Auto.choose(&[span(1 << 20)]), Way::Sendfile);
        assert_eq!(Policy::Auto.choose(&[span(4 << 10)]), Way::Sendfile);
        assert_eq!(
            Policy::Auto.choose(&[span(4 << 10), span(4 << 10)]),
            Way::Gather
        );
        assert_eq!(Policy::Auto.choose(&[span(32 << 10); 2]), Way::Sendfile);
        assert_eq!(Policy::Auto.choose(&vec![span(1 << 10); 32]), Way::Gather);
        assert_eq!(
            Policy::Auto.choose(&vec![span(100); GATHER_SPANS_MAX + 1]),
            Way::Sendfile
        );
        assert_eq!(Policy::Fixed(Way::Copy).choose(&[span(1 << 20)]), Way::Copy);
    }
}
