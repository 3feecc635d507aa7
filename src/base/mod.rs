//! Tools that know nothing about brokers: ids as types, big-endian bytes, a slab, a seeded generator.

mod bytes;
mod ids;
mod java;
mod latency;
mod marks;
mod prng;
mod short_text;
mod slab;

pub use bytes::{Reader, Writer};
pub use ids::{PhysicalOffset, QueueId, QueueOffset, ShardId};
pub use java::string_hash;
pub use latency::{Latency, Quantiles};
pub use marks::Marks;
pub use prng::Prng;
pub use short_text::ShortText;
pub use slab::{Key, Slab};
