//! What leaves without passing through a buffer of ours: gathers, sendfile, splice.
#![allow(unsafe_code)]

use std::os::fd::AsRawFd;
use std::rc::Rc;

use io_uring::{opcode, squeue, types};
use nix::errno::Errno;

use super::super::direct::{self, Moved};
use super::super::residency;
use super::super::{FileId, Op, OwnCalls, Payload, SocketId, Span, Token};
use super::features::Cachestat;
use super::{Borrowed, OpenFile, Socket, Uring};
use crate::base::Key;

/// Bytes one sendfile may move before others get their turn.
const SENDFILE_TURN_SIZE: u64 = 1 << 20;

/// A range of this size is asked about at once: cheap while its folios are large, bounded where they are not
/// (kernel-notes/page-cache-and-cold-reads.md).
const WHOLE_SIZE_MAX: u64 = 4 << 20;

/// Pieces that one sendmsg takes (IOV_MAX).
const PIECES_MAX: usize = 1024;

pub(super) struct Gather {
    pub(super) head: Vec<u8>,
    pub(super) spans: Vec<Span>,
    vectors: Vec<libc::iovec>,
    message: libc::msghdr,
}

impl Uring {
    pub(super) fn push_gather(&mut self, token: Token, op: Op) {
        let Op::Gather {
            socket,
            head,
            spans,
            skip,
            hot,
            zero_copy,
        } = op
        else {
            unreachable!("called for gathers only")
        };
        let Some(open) = self.socket(socket) else {
            return self.fail(token, Errno::EBADF, Payload::Gathered(head, spans));
        };
        let Some(files) = self.files_of(&spans) else {
            return self.fail(token, Errno::EBADF, Payload::Gathered(head, spans));
        };
        let hot = hot || is_resident_as_a_whole(self.features.cachestat.as_ref(), &spans, &files);
        let mut vectors = Vec::with_capacity(spans.len() + 1);
        let mut skip_left = skip;
        let mut cut = |start: *const u8, len: u64| {
            let skipped = skip_left.min(len);
            skip_left -= skipped;
            // What is beyond the kernel's bound goes with the rest: a gather may end short.
            if skipped < len && vectors.len() < PIECES_MAX {
                vectors.push(libc::iovec {
                    iov_base: start.wrapping_add(skipped as usize).cast_mut().cast(),
                    iov_len: (len - skipped) as usize,
                });
            }
        };
        cut(head.as_ptr(), head.len() as u64);
        for span in &spans {
            let of_span = |file: &&(FileId, _)| file.0 == span.file;
            let (_, file) = files.iter().find(of_span).expect("was looked up");
            let start = match start_of(self.features.cachestat.as_ref(), file, *span, hot) {
                Ok(start) => start,
                Err(errno) => return self.fail(token, errno, Payload::Gathered(head, spans)),
            };
            cut(start, u64::from(span.len));
        }
        let mut gather = Box::new(Gather {
            head,
            spans,
            vectors,
            message: direct::no_message(),
        });
        gather.message.msg_iov = gather.vectors.as_mut_ptr();
        gather.message.msg_iovlen = gather.vectors.len() as _;
        let message: *const libc::msghdr = &raw const gather.message;
        let entry = self.send_message(&open, message, zero_copy);
        let key = self.fly(token, Borrowed::Gather(gather));
        self.keep_socket(key, open);
        for (_, file) in files {
            self.keep_file(key, file);
        }
        self.submit(key, entry);
    }

    /// The files that spans lie in, each once; hardly ever more than two.
    fn files_of(&self, spans: &[Span]) -> Option<Vec<(FileId, Rc<OpenFile>)>> {
        let mut files: Vec<(FileId, Rc<OpenFile>)> = Vec::new();
        for span in spans {
            if !files.iter().rev().any(|(id, _)| *id == span.file) {
                files.push((span.file, self.file(span.file)?));
            }
        }
        Some(files)
    }

    fn send_message(
        &self,
        socket: &Socket,
        message: *const libc::msghdr,
        zero_copy: bool,
    ) -> squeue::Entry {
        let fd = types::Fd(socket.fd.as_raw_fd());
        let flags = (libc::MSG_NOSIGNAL | libc::MSG_WAITALL) as u32;
        match &self.features.send_zc {
            Some(send_zc) if zero_copy => send_zc.entry(fd, message, flags),
            _ => opcode::SendMsg::new(fd, message).flags(flags).build(),
        }
    }

    pub(super) fn push_sendfile(&mut self, token: Token, socket: SocketId, span: Span, hot: bool) {
        let Some(open) = self.socket(socket) else {
            return self.fail(token, Errno::EBADF, Payload::None);
        };
        let Some(file) = self.file(span.file) else {
            return self.fail(token, Errno::EBADF, Payload::None);
        };
        let left = u64::from(span.len);
        let key = self.fly(
            token,
            Borrowed::SendFile {
                socket: open,
                file,
                at: span.at,
                left,
                sent: 0,
                hot,
            },
        );
        self.direct.push_back(key);
    }

    /// Runs what has no opcode. A socket without room is polled for and comes back here.
    pub(super) fn run_direct(&mut self) {
        self.own_calls = OwnCalls::default();
        if self.direct.is_empty() {
            return;
        }
        let begun_ns = self.clock.look_ns();
        self.run_direct_calls();
        self.own_calls.took_ns = self.clock.look_ns().saturating_sub(begun_ns);
    }

    fn run_direct_calls(&mut self) {
        for _ in 0..self.direct.len() {
            let Some(key) = self.direct.pop_front() else {
                break;
            };
            let Some(flight) = self.flights.get_mut(key) else {
                continue;
            };
            if let Borrowed::InPlace(write) = &flight.borrowed {
                self.own_calls.writes += 1;
                let result = write.run();
                self.land_write(key, result);
                continue;
            }
            let Borrowed::SendFile {
                socket,
                file,
                at,
                left,
                sent,
                hot,
            } = &mut flight.borrowed
            else {
                unreachable!("nothing else is run directly")
            };
            if !*hot && !is_resident(self.features.cachestat.as_ref(), file, *at, *left) {
                // What was sent is sent: a partial count says so, EAGAIN only where nothing was.
                let result = if *sent == 0 {
                    Err(Errno::EAGAIN)
                } else {
                    Ok(*sent as u32)
                };
                self.land(key, result);
                continue;
            }
            self.own_calls.sends += 1;
            let len = (*left).min(SENDFILE_TURN_SIZE);
            match direct::send_file(&socket.fd, &file.file, *at, len) {
                Ok(Moved::Bytes(0)) => self.land_short(key),
                Ok(Moved::Bytes(count)) => {
                    *at += count;
                    *left -= count;
                    *sent += count;
                    if *left == 0 {
                        let all = *sent as u32;
                        self.land(key, Ok(all));
                    } else {
                        self.direct.push_back(key);
                    }
                }
                Ok(Moved::NoRoom) => {
                    let fd = types::Fd(socket.fd.as_raw_fd());
                    self.submit(key, opcode::PollAdd::new(fd, libc::POLLOUT as u32).build());
                }
                Err(errno) => self.land(key, Err(errno)),
            }
        }
    }

    /// Whether the page cache holds a range; not what no file of ours has.
    pub(super) fn is_in_cache(&self, file: FileId, at: u64, len: u64) -> bool {
        let cachestat = self.features.cachestat.as_ref();
        self.file(file)
            .is_some_and(|file| is_resident(cachestat, &file, at, len))
    }

    fn land_short(&mut self, key: Key) {
        let sent = match self.flights.get(key).map(|flight| &flight.borrowed) {
            Some(Borrowed::SendFile { sent, .. }) => *sent as u32,
            _ => 0,
        };
        self.land(key, Ok(sent));
    }
}

/// One question for all spans instead of one each: records of a pull lie close to each other, and what lies
/// between them belongs to pulls of other queues. Only a yes says something.
fn is_resident_as_a_whole(
    cachestat: Option<&Cachestat>,
    spans: &[Span],
    files: &[(FileId, Rc<OpenFile>)],
) -> bool {
    let (Some(first), Some(last), [(_, file)]) = (spans.first(), spans.last(), files) else {
        return false;
    };
    let len = (last.at + u64::from(last.len)).saturating_sub(first.at);
    1 < spans.len()
        && spans.is_sorted_by_key(|span| span.at)
        && len <= WHOLE_SIZE_MAX
        && is_resident(cachestat, file, first.at, len)
}

/// Where a span begins in memory. EAGAIN: it has to be read.
fn start_of(
    cachestat: Option<&Cachestat>,
    file: &OpenFile,
    span: Span,
    hot: bool,
) -> Result<*const u8, Errno> {
    let len = u64::from(span.len);
    match file.map.address(&file.file, span.at, len) {
        Ok(start) if hot || is_resident(cachestat, file, span.at, len) => Ok(start),
        Ok(_) => Err(Errno::EAGAIN),
        Err(Errno::ERANGE) => Err(Errno::ERANGE),
        // No map to be had (of a file system that has stopped, say): as if it were not in memory,
        // so that it is read, or the read says why not.
        Err(errno) => {
            tracing::debug!(%errno, "a segment cannot be mapped");
            Err(Errno::EAGAIN)
        }
    }
}

/// Whether every page of a range is in the page cache now. It may leave before it is used: the caller then waits
/// for one page of the disk, which is rare and short. What nobody can say counts as not there, and is read.
fn is_resident(cachestat: Option<&Cachestat>, file: &OpenFile, at: u64, len: u64) -> bool {
    file.apart.is_delivered_from(&file.file);
    // A no is not final: the count stops short now and then of what is all there, and one file's refusal is not the
    // kernel's. The map is asked then too. See kernel-notes/page-cache-and-cold-reads.md.
    let counted = cachestat.is_some_and(|it| it.holds(&file.file, at, len).unwrap_or(false));
    counted || {
        let start = file.map.address(&file.file, at, len);
        start.is_ok_and(|start| residency::by_mincore(start, len))
    }
}
