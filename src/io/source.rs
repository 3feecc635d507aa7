//! What one write takes.

use std::ops::Range;
use std::sync::Arc;

/// Bytes that are written with one write: a buffer, and between its bytes others that stay where they are, so
/// that nobody copies a large body first.
#[derive(Debug, Default)]
pub struct Source {
    bytes: Vec<u8>,
    insets: Vec<Inset>,
    inset_size: usize,
}

#[derive(Debug)]
struct Inset {
    /// So many bytes of the buffer come before it.
    at: usize,
    of: Arc<Vec<u8>>,
    range: Range<usize>,
}

impl Source {
    /// Bytes of one buffer.
    #[must_use]
    pub const fn of(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            insets: Vec::new(),
            inset_size: 0,
        }
    }

    /// Bytes in all.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.bytes.len() + self.inset_size
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many pieces stay where they are.
    #[must_use]
    pub const fn inset_count(&self) -> usize {
        self.insets.len()
    }

    /// The buffer, without what is set in.
    #[must_use]
    pub fn buffer(&self) -> &[u8] {
        &self.bytes
    }

    /// The buffer, to append to.
    pub const fn buffer_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Sets bytes in where `at` bytes of the buffer come before them; not in front of what was set in earlier.
    pub fn set_in(&mut self, at: usize, of: &Arc<Vec<u8>>, range: Range<usize>) {
        let earlier = self.insets.last().map_or(0, |inset| inset.at);
        assert!(
            earlier <= at && at <= self.bytes.len(),
            "insets come in order"
        );
        assert!(range.end <= of.len(), "an inset lies in its memory");
        self.inset_size += range.len();
        self.insets.push(Inset {
            at,
            of: Arc::clone(of),
            range,
        });
    }

    /// The pieces in their order.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.insets.iter().map(|inset| inset.at));
        let ends = self.insets.iter().map(|inset| inset.at);
        let own = starts
            .zip(ends.chain([self.bytes.len()]))
            .map(|(start, end)| &self.bytes[start..end]);
        let set_in = self
            .insets
            .iter()
            .map(|inset| &inset.of[inset.range.clone()]);
        own.zip(set_in.map(Some).chain([None]))
            .flat_map(|(own, set_in)| std::iter::once(own).chain(set_in))
            .filter(|piece| !piece.is_empty())
    }

    /// All bytes, copied into one buffer.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        self.pieces().collect::<Vec<_>>().concat()
    }

    /// Only the buffer, to be used again; what was set in is let go.
    #[must_use]
    pub fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.insets.clear();
        self.inset_size = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_in_their_order() {
        let body = Arc::new(b"0123456789".to_vec());
        let mut source = Source::of(b"ab".to_vec());
        assert_eq!(source.pieces().collect::<Vec<_>>(), [b"ab"]);
        source.set_in(0, &body, 0..2);
        source.set_in(1, &body, 5..8);
        source.set_in(2, &body, 9..10);
        source.set_in(2, &body, 9..9);
        source.buffer_mut().extend(b"cd");
        let pieces: [&[u8]; 6] = [b"01", b"a", b"567", b"b", b"9", b"cd"];
        assert_eq!(source.pieces().collect::<Vec<_>>(), pieces);
        assert_eq!((source.len(), source.inset_count()), (10, 4));
        assert_eq!(source.to_vec(), b"01a567b9cd");
        assert_eq!(source.into_buffer(), b"abcd");
        assert_eq!(Arc::strong_count(&body), 1, "what was set in is let go");
        assert_eq!(Source::default().pieces().count(), 0);
    }
}
