//! Tools that know nothing about brokers: ids as types, big-endian bytes, bytes to hold on to, a slab, a seeded
//! generator, names of what a kernel may have.

mod bytes;
mod feature;
mod held;
mod ids;
mod java;
mod latency;
mod marks;
mod prng;
mod short_text;
mod slab;

pub use bytes::{Reader, Writer};
pub use feature::{Feature, Features};
pub use held::Held;
pub use ids::{PhysicalOffset, QueueId, QueueOffset, ShardId};
pub use java::string_hash;
pub use latency::{Latency, Quantiles};
pub use marks::Marks;
pub use prng::Prng;
pub use short_text::ShortText;
pub use slab::{Key, Slab};
