//! An io_uring: all receives and sends of a turn go to the kernel with one call.
#![allow(unsafe_code)] // The ring is given memory by address; each place says who owns it.

use super::{Connection, Wait};
use crate::{Outcome, fail};
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, squeue};
use std::net::{Shutdown, TcpListener};
use std::os::fd::AsRawFd;

const ENTRIES: u32 = 1024;
/// So many sends are handed in at once: with more, the other side would idle while this one makes
/// its requests, and the two would take turns instead of working at the same time.
const SENDS_TOGETHER: usize = 16;
/// What a completion is of; the token stands above these bits.
const RECEIVE: u64 = 0;
const SEND: u64 = 1;
const LISTEN: u64 = 2;
const KINDS_BITS: u32 = 2;

pub struct Ring {
    ring: IoUring,
    /// Operations that the kernel holds memory of.
    in_flight: usize,
    /// Sends that were not handed in yet.
    unsubmitted: usize,
}

impl Ring {
    /// None where the kernel does not allow it or is older than 6.1.
    pub fn new() -> Option<Ring> {
        let ring = IoUring::builder()
            .setup_clamp()
            .setup_cqsize(ENTRIES * 8)
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .build(ENTRIES)
            .ok()?;
        Some(Ring {
            ring,
            in_flight: 0,
            unsubmitted: 0,
        })
    }

    fn push(&mut self, entry: squeue::Entry) -> Outcome<()> {
        // SAFETY: the memory behind an entry is a connection's `input` or `flight`. Neither moves
        // nor shrinks while `is_receiving` or `is_sending` says that the kernel has it, and a
        // connection is dropped only after `let_go`.
        while unsafe { self.ring.submission().push(&entry) }.is_err() {
            self.submit(0, None)?;
        }
        Ok(())
    }

    fn submit(&mut self, want: usize, timeout: Option<Timespec>) -> Outcome<()> {
        self.unsubmitted = 0;
        let told = match &timeout {
            Some(limit) => {
                let args = SubmitArgs::new().timespec(limit);
                self.ring.submitter().submit_with_args(want, &args)
            }
            None => self.ring.submit_and_wait(want),
        };
        match told.map_err(|error| error.raw_os_error()) {
            Ok(_) | Err(Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)) => Ok(()),
            Err(code) => fail(format!("io_uring_enter failed with errno {code:?}")),
        }
    }

    /// Says `token` whenever somebody wants to connect.
    pub fn listen(&mut self, listener: &TcpListener, token: usize) -> Outcome<()> {
        let entry = opcode::PollAdd::new(Fd(listener.as_raw_fd()), libc::POLLIN as u32)
            .multi(true)
            .build();
        self.push(entry.user_data((token as u64) << KINDS_BITS | LISTEN))
    }

    /// Asks for what comes next; the memory is lent to the kernel.
    pub fn receive(&mut self, connection: &mut Connection, token: usize) -> Outcome<()> {
        if connection.is_receiving || connection.is_closed {
            return Ok(());
        }
        let fd = Fd(connection.socket.as_raw_fd());
        let room = connection.room();
        let entry = opcode::Recv::new(fd, room.as_mut_ptr(), room.len() as u32).build();
        connection.is_receiving = true;
        self.in_flight += 1;
        self.push(entry.user_data((token as u64) << KINDS_BITS | RECEIVE))
    }

    /// Sends what stands in `out`, behind what is being sent.
    pub fn send(&mut self, connection: &mut Connection, token: usize) -> Outcome<()> {
        if connection.is_sending || connection.is_closed {
            return Ok(());
        }
        if connection.flight_at == connection.flight.len() {
            connection.flight.clear();
            connection.flight_at = 0;
            std::mem::swap(&mut connection.flight, &mut connection.out);
        }
        let rest = &connection.flight[connection.flight_at..];
        if rest.is_empty() {
            return Ok(());
        }
        let size = u32::try_from(rest.len()).unwrap_or(u32::MAX);
        let entry = opcode::Send::new(Fd(connection.socket.as_raw_fd()), rest.as_ptr(), size)
            .flags(libc::MSG_NOSIGNAL)
            .build();
        connection.is_sending = true;
        self.in_flight += 1;
        self.push(entry.user_data((token as u64) << KINDS_BITS | SEND))?;
        self.unsubmitted += 1;
        if SENDS_TOGETHER <= self.unsubmitted {
            self.submit(0, None)?;
        }
        Ok(())
    }

    /// Hands everything in, waits as told, and takes what is complete.
    pub fn wait(
        &mut self,
        wait: Wait,
        connections: &mut [Option<Connection>],
        ready: &mut Vec<usize>,
    ) -> Outcome<()> {
        let is_due = {
            let queue = self.ring.submission();
            !queue.is_empty() || queue.taskrun() || queue.cq_overflow()
        };
        match wait {
            Wait::Spin if is_due => self.submit(0, None)?,
            Wait::Spin => {}
            Wait::Sleep { ns } => {
                let limit = Timespec::new()
                    .sec(ns / 1_000_000_000)
                    .nsec((ns % 1_000_000_000) as u32);
                self.submit(1, Some(limit))?;
            }
        }
        self.reap(connections, ready)
    }

    fn reap(
        &mut self,
        connections: &mut [Option<Connection>],
        ready: &mut Vec<usize>,
    ) -> Outcome<()> {
        loop {
            let Some(entry) = self.ring.completion().next() else {
                return Ok(());
            };
            let token = (entry.user_data() >> KINDS_BITS) as usize;
            let kind = entry.user_data() & ((1 << KINDS_BITS) - 1);
            if kind == LISTEN {
                ready.push(token);
                continue;
            }
            self.in_flight -= 1;
            let Some(connection) = connections.get_mut(token).and_then(Option::as_mut) else {
                continue;
            };
            let count = entry.result();
            let is_retry = matches!(-count, libc::EINTR | libc::EAGAIN);
            if kind == RECEIVE {
                connection.is_receiving = false;
                match count {
                    1.. => connection.received(count as usize),
                    0 => connection.is_closed = true,
                    _ if is_retry => {}
                    _ => close(connection, -count),
                }
                ready.push(token);
            } else {
                connection.is_sending = false;
                match count {
                    0.. => connection.flight_at += count as usize,
                    _ if is_retry => {}
                    _ => {
                        close(connection, -count);
                        ready.push(token);
                    }
                }
                self.send(connection, token)?;
            }
        }
    }

    /// Gets the memory of all connections back from the kernel; says whether it did.
    pub fn let_go(&mut self, connections: &mut [Option<Connection>]) -> bool {
        for connection in connections.iter_mut().flatten() {
            connection.is_closed = true;
            // A shut-down socket completes what waits on it; one that is gone already does too.
            let _ = connection.socket.shutdown(Shutdown::Both);
        }
        let mut ready = Vec::new();
        for _ in 0..100 {
            if self.in_flight == 0 {
                return true;
            }
            let wait = Wait::Sleep { ns: 10_000_000 };
            if self.wait(wait, connections, &mut ready).is_err() {
                return false;
            }
        }
        false
    }
}

fn close(connection: &mut Connection, errno: i32) {
    connection.is_closed = true;
    connection.broken = Some(std::io::Error::from_raw_os_error(errno));
}
