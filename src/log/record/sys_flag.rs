//! Meaning of the bits of a record's system flag (P§3.2).

/// The body is compressed.
pub const COMPRESSED: i32 = 0x1;
/// The topic's messages may have several tags.
pub const MULTI_TAGS: i32 = 0x2;
/// The two bits that say what part of a transaction a record is.
pub const TRANSACTION_MASK: i32 = 0xC;
/// Not in a transaction.
pub const TRANSACTION_NONE: i32 = 0x0;
/// A half message.
pub const TRANSACTION_PREPARED: i32 = 0x4;
/// A committed message.
pub const TRANSACTION_COMMIT: i32 = 0x8;
/// The trace of one that was taken back.
pub const TRANSACTION_ROLLBACK: i32 = 0xC;
/// The born host has 16 address bytes.
pub const BORN_HOST_V6: i32 = 0x10;
/// The store host has 16 address bytes.
pub const STORE_HOST_V6: i32 = 0x20;
