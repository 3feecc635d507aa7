//! The end of a ring: the kernel may still write into buffers of flights, which are freed only after it let
//! go of them.
#![allow(unsafe_code)]

use io_uring::{opcode, squeue, types};

use super::{BELL, Uring};

/// So long is waited at once.
const WAIT_NS: u64 = 100_000_000;
/// And so often without anything having come back: 5 s.
const WAITS_MAX: u32 = 50;

impl Uring {
    /// Cancels everything, and waits for it.
    fn close(&mut self) {
        self.closing = true;
        for key in self.sockets.keys() {
            let _ = self.sockets.remove(key);
        }
        if let Some(key) = self.bell_flight.take() {
            self.flights.remove(key);
        }
        let mut done = Vec::new();
        let mut waits = 0;
        while waits < WAITS_MAX {
            while let Some(key) = self.direct.pop_front() {
                self.flights.remove(key);
            }
            if self.flights.is_empty() {
                return;
            }
            let before = self.flights.len();
            // Says nothing where it succeeds, so that what is waited for is what was cancelled.
            let all = opcode::AsyncCancel2::new(types::CancelBuilder::any()).build();
            self.backlog
                .push_back(all.flags(squeue::Flags::SKIP_SUCCESS).user_data(BELL));
            self.fill_queue();
            if self.enter(1, WAIT_NS).is_err() {
                return;
            }
            self.reap(&mut done);
            self.answer_bell(&mut done); // Its poll was cancelled with the rest.
            done.clear();
            waits += u32::from(before <= self.flights.len());
        }
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        self.close();
        if !self.flights.is_empty() {
            // Better lost than used after free: the memory of what the kernel still holds is leaked.
            tracing::error!(
                operations = self.flights.len(),
                "the kernel did not give all operations back within 5 s; their memory is left to it"
            );
            std::mem::forget(std::mem::take(&mut self.flights));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::{
        End, Fill, Io, Lanes, ListenerId, Op, OpenMode, Options, Payload, PipeId, Token, listen,
    };
    use super::*;
    use crate::base::{Feature, Features};

    /// What waits for ever, and what a lane takes a while for, comes back before the ring goes.
    #[test]
    fn a_ring_is_closed_when_everything_has_come_back() {
        let masks = [
            Features::NONE,
            [Feature::DeferTaskrun].into_iter().collect(),
            Features::all(),
        ];
        for masked in masks {
            let folder = tempfile::tempdir().unwrap();
            let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
            let options = Options::SMALL.without(masked);
            let lanes = Lanes::start().unwrap();
            let mut uring = Uring::new(options, vec![listener], lanes).unwrap();
            let path = folder.path().join("file");
            let mode = OpenMode::Create { size: 64 << 20 };
            uring.push(Token(1), Op::Open { path, mode }).unwrap();
            let listener = ListenerId(0);
            uring.push(Token(2), Op::Accept { listener }).unwrap();
            let address = uring.listener_address(0).unwrap();
            let _peer = std::net::TcpStream::connect(address).unwrap();
            let (mut file, mut socket, mut done) = (None, None, Vec::new());
            for _ in 0..100 {
                uring.turn(20_000_000, &mut done).unwrap();
                for completion in done.drain(..) {
                    match completion.payload {
                        Payload::Opened(opened, _) => file = Some(opened),
                        Payload::Accepted(accepted, _) => socket = Some(accepted),
                        other => panic!("{other:?}"),
                    }
                }
                if file.is_some() && socket.is_some() {
                    break;
                }
            }
            let (file, socket) = (file.unwrap(), socket.unwrap());
            uring.push(Token(3), Op::Receive { socket }).unwrap();
            let splice = Op::Splice {
                from: End::Pipe(PipeId(0)), // Empty, so a thread of the kernel waits.
                to: End::Socket(socket),
                len: 1,
                more: false,
            };
            uring.push(Token(4), splice).unwrap();
            uring.push(Token(5), Op::Bell).unwrap();
            uring.turn(1_000_000, &mut done).unwrap();
            let prepare = Op::Prepare {
                file,
                at: 0,
                len: 64 << 20,
                fill: Fill::Zeros,
            };
            uring.push(Token(6), prepare).unwrap();
            assert!(done.is_empty(), "{done:?}");
            assert_eq!(uring.flights.len(), 5);
            uring.close();
            assert_eq!(uring.flights.len(), 0, "without {masked}");
        }
    }
}
