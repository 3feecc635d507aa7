//! Names of what an io_uring may have beyond what it must: for the command line, the log and the doctor.
//! What each of them is worth stands in kernel-notes/ring-setup.md and kernel-notes/registered-resources.md.

use std::fmt;

/// Something that a ring may have. Without it something slower stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum RingFeature {
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
}

impl RingFeature {
    /// All, oldest first where it makes no other difference.
    pub const ALL: [Self; 11] = [
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
        }
    }

    /// The Linux that brought it in the form that is used here.
    #[must_use]
    pub const fn since(self) -> &'static str {
        match self {
            Self::WorkerBound => "5.15",
            Self::RegisteredRing => "5.18",
            Self::CoopTaskrun | Self::MultishotAccept => "5.19",
            Self::SingleIssuer | Self::MultishotReceive => "6.0",
            Self::DeferTaskrun | Self::SendZc => "6.1",
            Self::NoSqarray => "6.6",
            Self::RegisteredWait => "6.13",
            Self::NoIowait => "6.15",
        }
    }
}

/// A set of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RingFeatures(u16);

const _: () = assert!(RingFeature::ALL.len() <= 16);

impl RingFeatures {
    /// None.
    pub const NONE: Self = Self(0);

    /// All.
    #[must_use]
    pub fn all() -> Self {
        RingFeature::ALL.into_iter().collect()
    }

    /// Whether it is in the set.
    #[must_use]
    pub const fn has(self, feature: RingFeature) -> bool {
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
    pub fn iter(self) -> impl Iterator<Item = RingFeature> {
        RingFeature::ALL
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
                let of_name = |feature: &RingFeature| feature.name() == name;
                RingFeature::ALL.into_iter().find(of_name).ok_or(name)
            })
            .collect()
    }
}

impl FromIterator<RingFeature> for RingFeatures {
    fn from_iter<I: IntoIterator<Item = RingFeature>>(features: I) -> Self {
        let add = |set: u16, feature: RingFeature| set | 1 << feature as u8;
        Self(features.into_iter().fold(0, add))
    }
}

impl fmt::Display for RingFeatures {
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
        for feature in RingFeature::ALL {
            let alone = RingFeatures::parse(feature.name()).unwrap();
            assert_eq!(alone.iter().collect::<Vec<_>>(), [feature]);
        }
        let all = RingFeatures::all();
        assert_eq!(RingFeatures::parse(&all.to_string()), Ok(all));
        assert_eq!(all.iter().count(), RingFeature::ALL.len());
        assert_eq!(RingFeatures::parse(" , "), Ok(RingFeatures::NONE));
        assert_eq!(RingFeatures::parse("send-zc,sendzc"), Err("sendzc"));
    }

    #[test]
    fn a_mask_takes_away_and_adds_nothing() {
        let mask = RingFeatures::parse("send-zc,no-iowait").unwrap();
        let left = RingFeatures::all().without(mask);
        assert!(!left.has(RingFeature::SendZc) && left.has(RingFeature::DeferTaskrun));
        assert_eq!(RingFeatures::NONE.without(mask), RingFeatures::NONE);
        assert_eq!(RingFeatures::NONE.to_string(), "nothing");
    }
}
