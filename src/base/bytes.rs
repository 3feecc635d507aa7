//! Big-endian bytes: every layout of the wire and of the store is written in this order.

/// Reads numbers and slices off the front of a slice; `None` where the slice ends too early.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

macro_rules! read_number {
    ($($name:ident: $type:ty),*) => {$(
        #[doc = concat!("The next big-endian `", stringify!($type), "`.")]
        pub fn $name(&mut self) -> Option<$type> {
            let (head, rest) = self.rest.split_first_chunk()?;
            self.rest = rest;
            Some(<$type>::from_be_bytes(*head))
        }
    )*};
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What was not read yet.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    read_number!(u8: u8, i8: i8, u16: u16, i16: i16, u32: u32, i32: i32, u64: u64, i64: i64);

    /// The next `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(head)
    }
}

/// Appends big-endian numbers to a vector.
pub trait Writer {
    /// Appends bytes as they are.
    fn put(&mut self, bytes: &[u8]);

    /// Appends one byte.
    fn put_u8(&mut self, value: u8) {
        self.put(&[value]);
    }

    /// Appends two bytes.
    fn put_u16(&mut self, value: u16) {
        self.put(&value.to_be_bytes());
    }

    /// Appends four bytes.
    fn put_u32(&mut self, value: u32) {
        self.put(&value.to_be_bytes());
    }

    /// Appends four bytes.
    fn put_i32(&mut self, value: i32) {
        self.put(&value.to_be_bytes());
    }

    /// Appends eight bytes.
    fn put_u64(&mut self, value: u64) {
        self.put(&value.to_be_bytes());
    }

    /// Appends eight bytes.
    fn put_i64(&mut self, value: i64) {
        self.put(&value.to_be_bytes());
    }
}

impl Writer for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_the_end_is_noticed() {
        let mut bytes = Vec::new();
        bytes.put_u8(7);
        bytes.put_u16(0x0102);
        bytes.put_i32(-2);
        bytes.put_u64(u64::MAX - 1);
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.u8(), Some(7));
        assert_eq!(reader.i16(), Some(0x0102));
        assert_eq!(reader.i32(), Some(-2));
        assert_eq!(
            reader.u32().map(|_| reader.u64()),
            Some(None),
            "only four bytes are left"
        );
    }
}
