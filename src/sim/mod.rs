//! The same seam as `io`, made of a seed: one seed, one history.
