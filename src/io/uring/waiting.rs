//! Into the kernel and back: submitting, staying awake for a moment, sleeping.
#![allow(unsafe_code)]

use nix::errno::Errno;

use super::Uring;

impl Uring {
    /// Submits and waits for the first completion: awake where that pays, then asleep.
    pub(super) fn wait(&mut self, mut wait_ns: u64) -> Result<(), Errno> {
        if 0 < wait_ns && self.spin.is_on() {
            wait_ns = self.stay_awake(wait_ns)?;
        }
        self.enter(u32::from(0 < wait_ns), wait_ns)?;
        if 0 < wait_ns && self.spin.is_on() {
            let slept_ns = self.clock.look_ns().saturating_sub(self.slept_from_ns);
            self.spin.slept(slept_ns);
        }
        Ok(())
    }

    /// Submits and watches for a completion without sleeping, where that has paid lately and nobody else has
    /// to run. Answers how long to sleep then.
    fn stay_awake(&mut self, wait_ns: u64) -> Result<u64, Errno> {
        let from_ns = self.clock.look_ns();
        let bound_ns = self.spin.bound_ns(from_ns).min(wait_ns);
        self.slept_from_ns = from_ns;
        if bound_ns == 0 || self.elsewhere != 0 {
            return Ok(wait_ns);
        }
        self.enter(0, 0)?;
        let (mut now_ns, mut away_ns) = (from_ns, 0);
        let mut found = false;
        while !found && now_ns < from_ns + bound_ns {
            for _ in 0..16 {
                std::hint::spin_loop();
            }
            found = self.ring.submission().taskrun() || !self.ring.completion().is_empty();
            let then_ns = std::mem::replace(&mut now_ns, self.clock.look_ns());
            away_ns = away_ns.max(now_ns.saturating_sub(then_ns));
        }
        self.spin.spun(found, away_ns, now_ns);
        self.slept_from_ns = now_ns;
        Ok(if found { 0 } else { wait_ns })
    }

    /// The submission queue takes what fits; the rest waits for the next entry into the kernel.
    pub(super) fn fill_queue(&mut self) {
        let mut queue = self.ring.submission();
        while let Some(entry) = self.backlog.front() {
            // SAFETY: every buffer behind an entry is heap memory owned by its flight, which stays in
            // `flights` until the completion was read; moving a flight does not move that memory.
            if unsafe { queue.push(entry) }.is_err() {
                break;
            }
            self.backlog.pop_front();
        }
    }

    pub(super) fn enter(&mut self, want: u32, wait_ns: u64) -> Result<(), Errno> {
        let queued = self.ring.submission().len() as u32;
        let entered = self.door.enter(queued, want, wait_ns);
        if self.workers_first && queued != 0 && self.elsewhere != 0 {
            // A worker that has just got something to do waits for this CPU. It needs it for some ten
            // microseconds to give a sync to the disk, which then works while this thread goes on; without this
            // it may wait for the end of a time slice. See kernel-notes/write-and-sync.md.
            std::thread::yield_now();
        }
        match entered {
            // EBUSY and EAGAIN: completions must be taken first. EINTR: a signal. ETIME: time is up.
            Ok(()) | Err(Errno::ETIME | Errno::EINTR | Errno::EBUSY | Errno::EAGAIN) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::super::{Io, Lanes, Op, OpenMode, Options, Payload, Route, Source, Token};
    use super::*;

    #[test]
    fn what_was_begun_is_done_without_another_turn() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let lanes = Lanes::start().unwrap();
        let mut uring = Uring::new(Options::SMALL, Vec::new(), lanes).unwrap();
        let open = Op::Open {
            path: path.clone(),
            mode: OpenMode::Create { size: 4 },
        };
        uring.push(Token(1), open).unwrap();
        let mut done = Vec::new();
        while done.is_empty() {
            uring.turn(20_000_000, &mut done).unwrap();
        }
        let Payload::Opened(file, _) = done.remove(0).payload else {
            panic!("an open brings a file")
        };
        let write = Op::Write {
            file,
            at: 0,
            from: Source::of(b"here".to_vec()),
            durable: false,
            route: Route::Ring,
        };
        uring.push(Token(2), write).unwrap();
        uring.begin().unwrap();
        let is_there = || {
            std::thread::sleep(Duration::from_millis(1));
            std::fs::read(&path).unwrap() == b"here"
        };
        assert!((0..5_000).any(|_| is_there()), "it was not begun");
        uring.turn(1_000_000_000, &mut done).unwrap();
        let told: Vec<_> = done.iter().map(|it| (it.token, it.result)).collect();
        assert_eq!(told, [(Token(2), Ok(4))]);
    }
}
