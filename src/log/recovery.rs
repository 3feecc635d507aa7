//! Opening a log: which files there are, where its records end, and what lies behind the end.
//!
//! A bad record above the durable mark is a torn tail: the log ends there. One below it is rot: it is named
//! and stepped over, and nothing behind it is thrown away.

use std::path::PathBuf;

use super::cut::{make_durable, rewrite, wipe};
use super::options::Mutant;
use super::record::{Damage, Record, Verdict, check, parse};
use super::segments::{Segment, Segments, parse_file_name};
use crate::base::PhysicalOffset;
use crate::io::{Completion, Errno, Io, Op, OpenMode, Payload, Token};

/// Read at once while walking.
const CHUNK: usize = 4 << 20;

/// What the checkpoint knows about a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Start walking here: everything before is in the indexes.
    pub from: u64,
    /// Durable up to here.
    pub synced: u64,
    /// Nothing was ever appended behind this.
    pub horizon: u64,
    /// Below this another broker wrote records, perhaps without the whole-record checksum.
    pub takeover: u64,
    /// The last stop was clean: behind the end there are only zeros.
    pub clean: bool,
    /// This broker's checkpoint was there. Without it nobody knows what is durable, and damage with good
    /// segments behind it is never called a torn tail.
    pub known: bool,
}

/// What walking finds.
#[derive(Debug)]
pub enum Found<'a> {
    /// A good record.
    Record(&'a Record<'a>),
    /// Damage below the durable mark, stepped over.
    Rot {
        /// First bad byte.
        from: u64,
        /// First byte of the next good record, or the end of the walk.
        to: u64,
        /// What is wrong.
        why: Damage,
    },
}

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The kernel refused.
    #[error("cannot {doing} {path}: {errno}")]
    Io {
        /// What.
        doing: &'static str,
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        errno: Errno,
    },
    /// A segment between others is not there.
    #[error("segment {missing:020} is missing in {folder}, between {before:020} and {after:020}")]
    Missing {
        /// Folder of the log.
        folder: PathBuf,
        /// Base of what is missing.
        missing: u64,
        /// Base of the segment before.
        before: u64,
        /// Base of the segment behind.
        after: u64,
    },
    /// A segment has another size than it should.
    #[error("segment {path} has {have} bytes instead of {want}")]
    Size {
        /// File.
        path: PathBuf,
        /// Bytes.
        have: u64,
        /// mappedFileSizeCommitLog.
        want: u64,
    },
    /// What is durable for sure ends before the files do.
    #[error(
        "the log in {folder} ends at {end}, but the checkpoint says that {synced} bytes are durable"
    )]
    Shorter {
        /// Folder of the log.
        folder: PathBuf,
        /// End of the last file.
        end: u64,
        /// From the checkpoint.
        synced: u64,
    },
    /// Damage, and good segments behind it, in a store without a durable mark.
    #[error(
        "the record at {offset} in {folder} is damaged ({why}), and records follow in later segments"
    )]
    Damaged {
        /// Folder of the log.
        folder: PathBuf,
        /// Where.
        offset: u64,
        /// What.
        why: Damage,
    },
}

/// Runs one operation to its end; only while nothing else is in flight.
pub fn run_one(io: &mut impl Io, op: Op) -> Completion {
    const TOKEN: Token = Token(u64::MAX - 1);
    assert!(
        io.push(TOKEN, op).is_ok(),
        "the ring is empty while a store is opened"
    );
    let mut done = Vec::new();
    loop {
        // An interrupted turn is no reason to give up; the operation completes in a later one.
        let _ = io.turn(1_000_000_000, &mut done);
        if let Some(at) = done.iter().position(|completion| completion.token == TOKEN) {
            return done.swap_remove(at);
        }
    }
}

/// Opens the files of a log.
///
/// # Errors
/// Files that are missing, too short, or cannot be opened.
pub fn open_segments(
    io: &mut impl Io,
    folder: &std::path::Path,
    size: u64,
) -> Result<Segments, RecoveryError> {
    let fault = |doing, path: PathBuf, errno| RecoveryError::Io { doing, path, errno };
    let listed = run_one(
        io,
        Op::List {
            path: folder.to_owned(),
        },
    );
    let names = match (listed.result, listed.payload) {
        (Ok(_), Payload::Names(names)) => names,
        (result, _) => {
            let errno = result.err().unwrap_or(Errno::EIO);
            return Err(fault("list", folder.to_owned(), errno));
        }
    };
    let mut segments = Segments::new(folder.to_owned(), size);
    for name in names {
        let Some(base) = parse_file_name(&name.name) else {
            continue;
        };
        let path = folder.join(&name.name);
        if name.size == 0 && segments.end_offset() <= base {
            // Made and not grown when the power went: nothing was ever in it.
            continue;
        }
        if name.size != size {
            return Err(RecoveryError::Size {
                path,
                have: name.size,
                want: size,
            });
        }
        if !segments.is_empty() && segments.end_offset() != base {
            return Err(RecoveryError::Missing {
                folder: folder.to_owned(),
                missing: segments.end_offset(),
                before: segments.end_offset() - size,
                after: base,
            });
        }
        let opened = run_one(
            io,
            Op::Open {
                path: path.clone(),
                mode: OpenMode::Write,
            },
        );
        match (opened.result, opened.payload) {
            (Ok(_), Payload::Opened(file, _)) => {
                segments.push(Segment {
                    base,
                    file,
                    last_ms: name.modified_ms,
                });
            }
            (result, _) => {
                return Err(fault("open", path, result.err().unwrap_or(Errno::EIO)));
            }
        }
    }
    Ok(segments)
}

/// Walks the records of a log in order.
#[derive(Debug)]
pub struct Walker<'a> {
    segments: &'a Segments,
    buffer: Vec<u8>,
    /// Physical offset of the buffer's first byte.
    start: u64,
    mutant: Mutant,
}

impl<'a> Walker<'a> {
    /// Over these files.
    #[must_use]
    pub const fn new(segments: &'a Segments) -> Self {
        Self {
            segments,
            buffer: Vec::new(),
            start: 0,
            mutant: Mutant::None,
        }
    }

    /// At least `need` bytes from an offset on, as far as the segment has them.
    pub(super) fn bytes(
        &mut self,
        io: &mut impl Io,
        offset: u64,
        need: usize,
    ) -> Result<&[u8], RecoveryError> {
        let have =
            self.start <= offset && offset + need as u64 <= self.start + self.buffer.len() as u64;
        if !have {
            let segment = *self.segments.at(offset).expect("the walk stays in the log");
            let at = offset - segment.base;
            let len = (self.segments.size() - at).min(need.max(CHUNK) as u64) as usize;
            let mut buffer = std::mem::take(&mut self.buffer);
            buffer.clear();
            buffer.resize(len, 0);
            let mut count = 0;
            while count < len {
                // Short reads are followed up; the end of the file is an error of the file.
                let into = vec![0; len - count];
                let read = run_one(
                    io,
                    Op::Read {
                        file: segment.file,
                        at: at + count as u64,
                        into,
                    },
                );
                let (Ok(more @ 1..), Payload::Buffer(bytes)) = (read.result, read.payload) else {
                    return Err(RecoveryError::Io {
                        doing: "read",
                        path: self.segments.path(segment.base),
                        errno: read.result.err().unwrap_or(Errno::EIO),
                    });
                };
                buffer[count..count + more as usize].copy_from_slice(&bytes[..more as usize]);
                count += more as usize;
            }
            self.buffer = buffer;
            self.start = offset;
        }
        Ok(&self.buffer[(offset - self.start) as usize..])
    }

    /// What stands at an offset: the record's size where it is good.
    fn look(
        &mut self,
        io: &mut impl Io,
        offset: u64,
        need_trailer: bool,
        sink: &mut impl FnMut(Found<'_>),
    ) -> Result<Stand, RecoveryError> {
        let mut need = 8;
        let room = self.segments.size() - offset % self.segments.size();
        let careless = self.mutant == Mutant::TrailerIgnored;
        loop {
            let bytes = self.bytes(io, offset, need)?;
            match check(bytes, PhysicalOffset(offset), need_trailer) {
                Verdict::Record(record) if room < u64::from(record.size) + 8 => {
                    return Ok(Stand::Bad(Damage::Blank(record.size as i32)));
                }
                Verdict::Record(record) => {
                    sink(Found::Record(&record));
                    return Ok(Stand::Good(u64::from(record.size)));
                }
                Verdict::Blank { len } if u64::from(len) == room => return Ok(Stand::Good(room)),
                Verdict::Blank { len } => return Ok(Stand::Bad(Damage::Blank(len as i32))),
                Verdict::End => return Ok(Stand::End),
                Verdict::Short { need: more } if need < more && more as u64 <= room => need = more,
                Verdict::Short { need } => return Ok(Stand::Bad(Damage::Blank(need as i32))),
                Verdict::Bad(Damage::Trailer { .. } | Damage::TrailerMissing) if careless => {
                    let record = parse(bytes).expect("it was parsed to find the trailer");
                    sink(Found::Record(&record));
                    return Ok(Stand::Good(u64::from(record.size)));
                }
                Verdict::Bad(why) => return Ok(Stand::Bad(why)),
            }
        }
    }

    /// Whether a segment behind the one of `offset` begins with something good.
    fn segment_follows(&mut self, io: &mut impl Io, offset: u64) -> Result<bool, RecoveryError> {
        let later: Vec<u64> = self.segments.iter().map(|segment| segment.base).collect();
        for base in later.into_iter().filter(|base| offset < *base) {
            if let Stand::Good(_) = self.look(io, base, false, &mut |_| ())? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The next place at or behind `from` where a good record or blank stands, below `to`.
    fn next_good(
        &mut self,
        io: &mut impl Io,
        from: u64,
        to: u64,
        need_trailer: bool,
    ) -> Result<Option<u64>, RecoveryError> {
        let mut offset = from;
        while offset < to {
            let room = self.segments.size() - offset % self.segments.size();
            let bytes = self.bytes(io, offset, room.min(8) as usize)?;
            // Both magics begin with a byte that is rare in text; the rest is for `check`.
            let candidate = bytes.len() < 8 || bytes[4] == 0xDA || bytes[4] == 0xCB;
            if candidate && let Stand::Good(_) = self.look(io, offset, need_trailer, &mut |_| ())? {
                return Ok(Some(offset));
            }
            offset += 1;
        }
        Ok(None)
    }
}

enum Stand {
    Good(u64),
    End,
    Bad(Damage),
}

/// Walks from the mark to the end of the log and wipes what lies behind it. Answers the end.
///
/// # Errors
/// See [`RecoveryError`]; nothing was changed then.
pub fn recover(
    io: &mut impl Io,
    segments: &Segments,
    mark: Mark,
    sink: impl FnMut(Found<'_>),
) -> Result<u64, RecoveryError> {
    recover_mutant(io, segments, mark, Mutant::None, sink)
}

/// [`recover`] with a planted mistake, for the test of the simulator.
///
/// # Errors
/// See [`recover`].
#[doc(hidden)]
pub fn recover_mutant(
    io: &mut impl Io,
    segments: &Segments,
    mark: Mark,
    mutant: Mutant,
    mut sink: impl FnMut(Found<'_>),
) -> Result<u64, RecoveryError> {
    let folder = || segments.folder().to_owned();
    let files_end = segments.end_offset();
    if files_end < mark.synced {
        return Err(RecoveryError::Shorter {
            folder: folder(),
            end: files_end,
            synced: mark.synced,
        });
    }
    let mut walker = Walker::new(segments);
    walker.mutant = mutant;
    let mut offset = mark.from.max(segments.first_offset());
    while offset < files_end {
        let need_trailer = mark.takeover <= offset;
        let why = match walker.look(io, offset, need_trailer, &mut sink)? {
            Stand::Good(size) => {
                offset += size;
                continue;
            }
            Stand::End if mark.synced <= offset => break,
            Stand::End => Damage::TrailerMissing,
            Stand::Bad(why) => why,
        };
        if mark.synced <= offset {
            if !mark.known && walker.segment_follows(io, offset)? {
                return Err(RecoveryError::Damaged {
                    folder: folder(),
                    offset,
                    why,
                });
            }
            tracing::warn!(offset, %why, "the log's last record was torn; the log ends before it");
            break;
        }
        let next = walker.next_good(io, offset + 1, mark.synced, need_trailer)?;
        let to = next.unwrap_or(mark.synced);
        sink(Found::Rot {
            from: offset,
            to,
            why,
        });
        offset = to;
    }
    if mark.clean && offset == mark.synced {
        return Ok(offset);
    }
    let to = mark.horizon.max(offset).min(files_end);
    if mutant != Mutant::NoWipe {
        wipe(io, segments, offset, to, mark.known)?;
    }
    if mutant != Mutant::ReadIsDurable {
        if mark.known {
            rewrite(io, segments, mark.synced, offset)?;
        }
        make_durable(io, segments, mark.synced.min(offset))?;
    }
    Ok(offset)
}
