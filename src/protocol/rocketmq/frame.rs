//! Frames: where one ends, what its header says, and how one is written (P§1.1 to §1.5).

use std::fmt;

use crate::base::Reader;

use super::arena::Arena;
use super::codes;
use super::header_binary;
use super::header_json::{self, Forms};
pub use super::note::Note;
use super::queue_mark::Places;

/// The largest frame, including the 4 bytes of its own length: Java's decoder closes the channel above it.
pub const FRAME_SIZE_MAX: usize = 16 * 1024 * 1024;

/// The largest header. Properties end at 32,767 bytes, sixfold if every one of them is written as `\u0001`;
/// four times that is room enough, and no peer can make a [`Scratch`] grow beyond it.
pub const HEADER_SIZE_MAX: usize = 1024 * 1024;

/// The most extension fields a header may have.
pub const FIELD_COUNT_MAX: usize = 128;

/// A remark is cut here: it may quote what a client sent.
const REMARK_SIZE_MAX: usize = 32 * 1024;

/// What we report as our version: V5_3_3 (P§1.6).
pub const VERSION: i32 = 479;

/// Nearly every header that we write is shorter.
const HEADER_SIZE_USUAL: usize = 512;

/// Length (4), header kind (1) and header length (3).
pub(super) const HEAD_SIZE: usize = 8;

/// The bytes are not a frame. There is nobody to answer: close the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrameError {
    /// The first four bytes name a length that no frame has.
    Size {
        /// As read: it does not count itself.
        length: u32,
    },
    /// The header is said to be longer than the frame, or than any header.
    HeaderSize {
        /// As read.
        header: u32,
        /// Bytes of the frame behind the first eight.
        rest: u32,
    },
    /// Neither 0 (JSON) nor 1 (ROCKETMQ).
    HeaderKind(u8),
    /// The bytes given to `decode` are not one whole frame.
    Incomplete {
        /// Bytes that the frame says it has.
        size: usize,
        /// Bytes that were given.
        given: usize,
    },
    /// The header cannot be read.
    Header {
        /// Byte of the header.
        at: usize,
        /// What is wrong there.
        what: String,
    },
}

impl FrameError {
    pub(super) fn header(at: usize, what: impl Into<String>) -> Self {
        Self::Header {
            at,
            what: what.into(),
        }
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size { length } => write!(
                out,
                "not a frame: its length field says {length}, allowed are 4 to {}; is the peer a RocketMQ client?",
                FRAME_SIZE_MAX - 4
            ),
            Self::HeaderSize { header, rest } => write!(
                out,
                "not a frame: its header is said to have {header} bytes, but only {rest} follow (and at most {HEADER_SIZE_MAX} are allowed)"
            ),
            Self::HeaderKind(kind) => write!(
                out,
                "unknown header kind {kind}: known are 0 (JSON) and 1 (ROCKETMQ)"
            ),
            Self::Incomplete { size, given } => {
                write!(out, "a frame of {size} bytes was given as {given} bytes")
            }
            Self::Header { at, what } => {
                write!(out, "bad header: {what}, at byte {at} of the header")
            }
        }
    }
}

impl std::error::Error for FrameError {}

/// How long the frame is whose first bytes these are, including its prefix. `Ok(None)`: too few bytes to say.
///
/// A lying length is found as soon as its bytes are there.
pub fn frame_size(head: &[u8]) -> Result<Option<usize>, FrameError> {
    let mut reader = Reader::new(head);
    let Some(length) = reader.u32() else {
        return Ok(None);
    };
    let size = length as usize + 4;
    if length < 4 || FRAME_SIZE_MAX < size {
        return Err(FrameError::Size { length });
    }
    let Some(kind_and_header) = reader.u32() else {
        return Ok(None);
    };
    let kind = (kind_and_header >> 24) as u8;
    if HeaderKind::from_byte(kind).is_none() {
        return Err(FrameError::HeaderKind(kind));
    }
    let header = kind_and_header & 0x00ff_ffff;
    let rest = length - 4;
    if rest < header || HEADER_SIZE_MAX < header as usize {
        return Err(FrameError::HeaderSize { header, rest });
    }
    Ok(Some(size))
}

/// How a header is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HeaderKind {
    /// Serialize type 0.
    Json,
    /// Serialize type 1, called ROCKETMQ.
    Binary,
}

impl HeaderKind {
    /// The fifth byte of a frame.
    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Json),
            1 => Some(Self::Binary),
            _ => None,
        }
    }

    /// The other way round.
    pub(super) const fn to_byte(self) -> u8 {
        match self {
            Self::Json => 0,
            Self::Binary => 1,
        }
    }
}

/// A piece of text: either of the header itself, or of the arena where text goes that had to be rewritten.
///
/// One word, not three fields: written as three and read back as one, each piece would wait for the CPU's
/// stores (a third of the whole decoding). Bits 0 to 31 where it starts, 32 to 62 bytes, 63 in the arena.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Piece(u64);

impl Piece {
    const IN_ARENA: u64 = 1 << 63;

    /// Of the header.
    pub(super) const fn of_header(start: usize, end: usize) -> Self {
        Self(start as u64 | ((end - start) as u64) << 32)
    }

    /// Of the arena.
    pub(super) const fn of_arena(start: usize, end: usize) -> Self {
        Self(Self::of_header(start, end).0 | Self::IN_ARENA)
    }

    pub(super) const fn len(self) -> usize {
        ((self.0 & !Self::IN_ARENA) >> 32) as usize
    }

    pub(super) const fn is_in_arena(self) -> bool {
        self.0 & Self::IN_ARENA != 0
    }

    /// First byte and the one behind the last, of a piece of the header.
    pub(super) const fn in_header(self) -> Option<(usize, usize)> {
        let start = self.0 as u32 as usize;
        if self.is_in_arena() {
            None
        } else {
            Some((start, start + self.len()))
        }
    }

    /// As text, of what has been found to be text.
    #[inline]
    pub(super) fn text<'a>(self, header: &'a str, arena: &'a str) -> &'a str {
        let text = if self.0 & Self::IN_ARENA == 0 {
            header
        } else {
            arena
        };
        let start = self.0 as u32 as usize;
        &text[start..start + self.len()]
    }

    /// As bytes, while the arena is still being filled.
    #[inline]
    pub(super) fn bytes<'a>(self, header: &'a [u8], arena: &'a [u8]) -> &'a [u8] {
        let bytes = if self.0 & Self::IN_ARENA == 0 {
            header
        } else {
            arena
        };
        let start = self.0 as u32 as usize;
        &bytes[start..start + self.len()]
    }
}

/// Memory that decoding uses again and again: once warm, a request allocates nothing.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Text that does not stand in the frame as it is: JSON strings with escapes, all text of binary headers.
    pub(super) arena: Arena,
    /// Names and values of the extension fields.
    pub(super) fields: Vec<(Piece, Piece)>,
    /// What headers looked like: the next one most often looks the same.
    pub(super) forms: Forms,
    /// Where a first look found what it looks for.
    pub(super) places: Places,
}

impl Scratch {
    /// Forgets all of the last frame but its form.
    pub(super) fn clear(&mut self) {
        self.arena.clear();
        self.fields.clear();
    }
}

/// What a header says, before its pieces have become text.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Header {
    pub(super) code: i32,
    pub(super) language: Option<&'static str>,
    pub(super) version: i32,
    pub(super) opaque: i32,
    pub(super) flag: i32,
    pub(super) remark: Option<Piece>,
}

/// One decoded frame: a request, or a client's response to a request of ours.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// Request code, or response code.
    pub code: i32,
    /// How its header was written, and how its answer's has to be.
    pub kind: HeaderKind,
    /// A known name of P§1.6; `OTHER` for everything unknown.
    pub language: &'a str,
    /// Of the sender.
    pub version: i32,
    /// Pairs a response with its request.
    pub opaque: i32,
    /// Bit 0 response, bit 1 oneway.
    pub flag: i32,
    /// Error text.
    pub remark: Option<&'a str>,
    /// What follows the header.
    pub body: &'a [u8],
    header: &'a str,
    arena: &'a str,
    fields: &'a [(Piece, Piece)],
}

impl<'a> Request<'a> {
    /// Whether this answers a request of ours.
    #[must_use]
    pub const fn is_response(&self) -> bool {
        self.flag & 1 != 0
    }

    /// Whether no answer is wanted.
    #[must_use]
    pub const fn is_oneway(&self) -> bool {
        self.flag & 2 != 0
    }

    /// Go's library commits offsets without the oneway bit, throws the answers away, and closes right behind its
    /// last commits. An answer that lies unread at that moment makes its kernel reset the connection and drop the
    /// commits that it has not sent yet, so it gets none. (rocketmq-client-go 2.1.2, `InvokeOneWay`.)
    fn is_commit_of_go(&self) -> bool {
        self.code == codes::request::UPDATE_CONSUMER_OFFSET && self.language == "GO"
    }

    /// An extension field. Of several with one name the last counts, as in a Java map.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&'a str> {
        self.fields
            .iter()
            .rev()
            .find(|(key, _)| key.len() == name.len() && self.bytes_of(*key) == name.as_bytes())
            .map(|(_, value)| self.text_of(*value))
    }

    /// All extension fields, in the order in which they stand.
    pub fn fields(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let (header, arena) = (self.header, self.arena);
        let text = move |piece: Piece| piece.text(header, arena);
        let fields = self.fields.iter();
        fields.map(move |(key, value)| (text(*key), text(*value)))
    }

    /// All extension fields as they lie in memory, for whoever wants few of them as text.
    pub(super) const fn pieces(&self) -> &'a [(Piece, Piece)] {
        self.fields
    }

    /// The text of a piece.
    #[inline]
    pub(super) fn text_of(&self, piece: Piece) -> &'a str {
        piece.text(self.header, self.arena)
    }

    /// The bytes of a piece: no place in them is asked whether a character begins there.
    #[inline]
    pub(super) fn bytes_of(&self, piece: Piece) -> &'a [u8] {
        piece.bytes(self.header.as_bytes(), self.arena.as_bytes())
    }

    /// What [`encode_response`] must know of this request, for its ticket.
    #[must_use]
    pub fn note(&self) -> u64 {
        Note {
            opaque: self.opaque,
            kind: self.kind,
            oneway: self.is_oneway() || self.is_commit_of_go(),
            code: self.code,
        }
        .pack()
    }
}

/// Reads one whole frame. What the request lends comes from the frame or from `scratch`.
pub fn decode<'a>(frame: &'a [u8], scratch: &'a mut Scratch) -> Result<Request<'a>, FrameError> {
    match frame_size(frame)? {
        Some(size) if size == frame.len() => {}
        size => {
            return Err(FrameError::Incomplete {
                size: size.unwrap_or(HEAD_SIZE),
                given: frame.len(),
            });
        }
    }
    let header_size = u32::from_be_bytes([0, frame[5], frame[6], frame[7]]) as usize;
    let (head, body) = frame.split_at(HEAD_SIZE + header_size);
    let bytes = &head[HEAD_SIZE..];
    scratch.clear();
    let (kind, text, header) = if frame[4] == HeaderKind::Json.to_byte() {
        let text = std::str::from_utf8(bytes).map_err(|error| {
            FrameError::header(error.valid_up_to(), "the JSON header is not UTF-8 text")
        })?;
        let header = header_json::read(text, scratch)?;
        (HeaderKind::Json, text, header)
    } else {
        (HeaderKind::Binary, "", header_binary::read(bytes, scratch)?)
    };
    let scratch: &'a Scratch = scratch;
    let arena = scratch.arena.text()?;
    Ok(Request {
        code: header.code,
        kind,
        language: header.language.unwrap_or(codes::LANGUAGE_OTHER),
        version: header.version,
        opaque: header.opaque,
        flag: header.flag,
        remark: header.remark.map(|piece| piece.text(text, arena)),
        body,
        header: text,
        arena,
        fields: &scratch.fields,
    })
}

/// Appends a response up to its body: the caller appends exactly `body_size` bytes more.
/// Appends nothing for a oneway request.
pub fn encode_response(
    out: &mut Vec<u8>,
    note: u64,
    code: i32,
    remark: Option<&str>,
    fields: &[(&str, &str)],
    body_size: usize,
) {
    let note = Note::unpack(note);
    if note.oneway {
        return;
    }
    let ext = if fields.is_empty() && !codes::answers_with_empty_fields(note.code, code) {
        None
    } else {
        Some(fields)
    };
    let header = Written {
        kind: note.kind,
        code,
        opaque: note.opaque,
        flag: 1,
        remark: remark.map(|remark| &remark[..remark.floor_char_boundary(REMARK_SIZE_MAX)]),
        ext,
    };
    encode(out, &header, body_size);
}

/// Appends a whole request of ours, to a client or to a NameServer.
pub fn encode_request(
    out: &mut Vec<u8>,
    kind: HeaderKind,
    code: i32,
    opaque: i32,
    oneway: bool,
    fields: &[(&str, &str)],
    body: &[u8],
) {
    let header = Written {
        kind,
        code,
        opaque,
        flag: if oneway { 2 } else { 0 },
        remark: None,
        ext: if fields.is_empty() {
            None
        } else {
            Some(fields)
        },
    };
    encode(out, &header, body.len());
    out.extend_from_slice(body);
}

/// A header on its way out.
pub(super) struct Written<'a> {
    kind: HeaderKind,
    pub(super) code: i32,
    pub(super) opaque: i32,
    pub(super) flag: i32,
    pub(super) remark: Option<&'a str>,
    pub(super) ext: Option<&'a [(&'a str, &'a str)]>,
}

fn encode(out: &mut Vec<u8>, header: &Written<'_>, body_size: usize) {
    enclose(out, header.kind, body_size, |out| match header.kind {
        HeaderKind::Json => header_json::write(out, header),
        HeaderKind::Binary => header_binary::write(out, header),
    });
}

/// Appends a frame up to its body, with the header that `put` writes.
#[inline]
pub(super) fn enclose(
    out: &mut Vec<u8>,
    kind: HeaderKind,
    body_size: usize,
    put: impl FnOnce(&mut Vec<u8>),
) {
    let start = out.len();
    out.reserve(HEADER_SIZE_USUAL);
    out.extend_from_slice(&[0; HEAD_SIZE]);
    put(out);
    let header_size = out.len() - start - HEAD_SIZE;
    assert!(header_size < 1 << 24, "a header of {header_size} bytes");
    let length = 4 + header_size + body_size;
    assert!(length + 4 <= FRAME_SIZE_MAX, "a frame of {length} bytes");
    let kind_and_header = u32::from(kind.to_byte()) << 24 | header_size as u32;
    let head = u64::from(length as u32) << 32 | u64::from(kind_and_header);
    out[start..start + HEAD_SIZE].copy_from_slice(&head.to_be_bytes());
}

#[cfg(test)]
mod tests;
