//! The kernel's poll set: readiness, then one read or write a connection.

use crate::{Outcome, fail};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::os::fd::AsFd;

/// A connection is known by its token.
pub struct Poll {
    epoll: Epoll,
    events: Vec<EpollEvent>,
}

impl Poll {
    pub fn new() -> Outcome<Poll> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Poll {
            epoll,
            events: vec![EpollEvent::empty(); 512],
        })
    }

    /// Waits for readiness, at most `wait_ms`, and returns the tokens that have something.
    pub fn wait(&mut self, wait_ms: u8, ready: &mut Vec<usize>) -> Outcome<()> {
        ready.clear();
        let count = match self
            .epoll
            .wait(&mut self.events, EpollTimeout::from(wait_ms))
        {
            Ok(count) => count,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(errno) => return fail(format!("epoll_wait: {errno}")),
        };
        let events = &self.events[..count];
        ready.extend(events.iter().map(|event| event.data() as usize));
        Ok(())
    }

    pub fn add(&self, fd: impl AsFd, token: usize) -> Outcome<()> {
        Ok(self
            .epoll
            .add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token as u64))?)
    }

    pub fn set_writable(&self, fd: impl AsFd, token: usize, wanted: bool) -> Outcome<()> {
        let out = if wanted {
            EpollFlags::EPOLLOUT
        } else {
            EpollFlags::empty()
        };
        let mut event = EpollEvent::new(EpollFlags::EPOLLIN | out, token as u64);
        Ok(self.epoll.modify(fd, &mut event)?)
    }
}
