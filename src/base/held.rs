//! Bytes that need not be copied to outlive what they came with.

use std::sync::Arc;

/// Memory that may be held on to after the request: the log writes a large body from there.
#[derive(Debug, Clone, Copy)]
pub struct Held<'a> {
    /// A whole frame.
    pub frame: &'a Arc<Vec<u8>>,
    /// Byte position of the body in it.
    pub body_at: usize,
}
