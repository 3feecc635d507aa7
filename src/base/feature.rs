//! Names of what a kernel may have beyond what it must: for the command line, the log and the doctor.
//! What each of them is worth stands in kernel-notes: ring-setup.md and registered-resources.md have what is
//! of a ring, page-cache-and-cold-reads.md what is of files.

use std::fmt;

/// Something that a kernel may have. Without it something else stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Feature {
    /// Completions interrupt nobody.
    CoopTaskrun,
    /// The kernel may count on one thread that submits.
    SingleIssuer,
    /// The work behind completions runs when that thread asks for them.
    DeferTaskrun,
    /// Submissions are taken in order, without an array of their places.
    NoSqarray,
    /// An accept that stays armed.
    MultishotAccept,
    /// A receive that stays armed.
    MultishotReceive,
    /// A bound on the threads of the kernel that do what blocks.
    WorkerBound,
    /// The ring is entered without looking its descriptor up.
    RegisteredRing,
    /// Sending from the memory of the process without a copy.
    SendZc,
    /// How long to wait is read from memory that both sides share.
    RegisteredWait,
    /// A wait that does not count as waiting for a disk.
    NoIowait,
    /// How much of a range the page cache holds, in one answer.
    Cachestat,
    /// Reads and writes past the page cache.
    DirectIo,
    /// A read that leaves nothing in the page cache.
    Dontcache,
}

impl Feature {
    /// What a ring has; oldest first where it makes no other difference.
    pub const OF_RING: [Self; 11] = [
        Self::CoopTaskrun,
        Self::SingleIssuer,
        Self::DeferTaskrun,
        Self::NoSqarray,
        Self::MultishotAccept,
        Self::MultishotReceive,
        Self::WorkerBound,
        Self::RegisteredRing,
        Self::SendZc,
        Self::RegisteredWait,
        Self::NoIowait,
    ];

    /// What is asked of files. All but the first is a matter of their file system too.
    pub const OF_FILES: [Self; 3] = [Self::Cachestat, Self::DirectIo, Self::Dontcache];

    /// All.
    pub const ALL: [Self; 14] = {
        let mut all = [Self::Cachestat; 14];
        let (of_ring, of_files) = all.split_at_mut(Self::OF_RING.len());
        of_ring.copy_from_slice(&Self::OF_RING);
        of_files.copy_from_slice(&Self::OF_FILES);
        all
    };

    /// As it is typed and printed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CoopTaskrun => "coop-taskrun",
            Self::SingleIssuer => "single-issuer",
            Self::DeferTaskrun => "defer-taskrun",
            Self::NoSqarray => "no-sqarray",
            Self::MultishotAccept => "multishot-accept",
            Self::MultishotReceive => "multishot-receive",
            Self::WorkerBound => "worker-bound",
            Self::RegisteredRing => "registered-ring",
            Self::SendZc => "send-zc",
            Self::RegisteredWait => "registered-wait",
            Self::NoIowait => "no-iowait",
            Self::Cachestat => "cachestat",
            Self::DirectIo => "direct-io",
            Self::Dontcache => "dontcache",
        }
    }

    /// The Linux that brought it in the form that is used here.
    #[must_use]
    pub const fn since(self) -> &'static str {
        match self {
            Self::DirectIo => "2.4",
            Self::WorkerBound => "5.15",
            Self::RegisteredRing => "5.18",
            Self::CoopTaskrun | Self::MultishotAccept => "5.19",
            Self::SingleIssuer | Self::MultishotReceive => "6.0",
            Self::DeferTaskrun | Self::SendZc => "6.1",
            Self::Cachestat => "6.5",
            Self::NoSqarray => "6.6",
            Self::RegisteredWait => "6.13",
            Self::Dontcache => "6.14",
            Self::NoIowait => "6.15",
        }
    }
}

/// A set of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Features(u16);

const _: () = assert!(Feature::ALL.len() <= 16);

impl Features {
    /// None.
    pub const NONE: Self = Self(0);

    /// All.
    #[must_use]
    pub fn all() -> Self {
        Feature::ALL.into_iter().collect()
    }

    /// Whether it is in the set.
    #[must_use]
    pub const fn has(self, feature: Feature) -> bool {
        self.0 & (1 << feature as u8) != 0
    }

    /// Those that are not in the other set.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Its members.
    pub fn iter(self) -> impl Iterator<Item = Feature> {
        Feature::ALL
            .into_iter()
            .filter(move |feature| self.has(*feature))
    }

    /// Names with commas between them; the error is the first that names nothing.
    pub fn parse(text: &str) -> Result<Self, &str> {
        let names = text
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty());
        names
            .map(|name| {
                let of_name = |feature: &Feature| feature.name() == name;
                Feature::ALL.into_iter().find(of_name).ok_or(name)
            })
            .collect()
    }
}

impl FromIterator<Feature> for Features {
    fn from_iter<I: IntoIterator<Item = Feature>>(features: I) -> Self {
        let add = |set: u16, feature: Feature| set | 1 << feature as u8;
        Self(features.into_iter().fold(0, add))
    }
}

impl fmt::Display for Features {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return out.write_str("nothing");
        }
        for (index, feature) in self.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(out, "{comma}{}", feature.name())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_back_as_it_is_printed() {
        for feature in Feature::ALL {
            let alone = Features::parse(feature.name()).unwrap();
            assert_eq!(alone.iter().collect::<Vec<_>>(), [feature]);
        }
        let all = Features::all();
        assert_eq!(Features::parse(&all.to_string()), Ok(all));
        assert_eq!(all.iter().count(), Feature::ALL.len());
        assert_eq!(Features::parse(" , "), Ok(Features::NONE));
        assert_eq!(Features::parse("send-zc,sendzc"), Err("sendzc"));
    }

    #[test]
    fn a_mask_takes_away_and_adds_nothing() {
        let mask = Features::parse("send-zc,no-iowait").unwrap();
        let left = Features::all().without(mask);
        assert!(!left.has(Feature::SendZc) && left.has(Feature::DeferTaskrun));
        assert_eq!(Features::NONE.without(mask), Features::NONE);
        assert_eq!(Features::NONE.to_string(), "nothing");
    }
}
