//! Tools that know nothing about brokers: ids as types, big-endian bytes, bytes to hold on to, a slab, a seeded
//! generator, names of what a ring may have.

mod bytes;
mod held;
mod ids;
mod java;
mod latency;
mod marks;
mod prng;
mod ring_feature;
mod short_text;
mod slab;

pub use bytes::{Reader, Writer};
pub use held::Held;
pub use ids::{PhysicalOffset, QueueId, QueueOffset, ShardId};
pub use java::string_hash;
pub use latency::{Latency, Quantiles};
pub use marks::Marks;
pub use prng::Prng;
pub use ring_feature::{RingFeature, RingFeatures};
pub use short_text::ShortText;
pub use slab::{Key, Slab};
