//! What the page cache does not hold: windows of the log, read past the cache and shared by all who are
//! behind, so that each is read once though every queue lies scattered in it.
//!
//! See kernel-notes/page-cache-and-cold-reads.md.

use std::collections::{BTreeMap, VecDeque};

use super::COLD_ROOM;
use crate::base::{Key, Slab};
use crate::io::{Completion, Errno, FileId, Io, Op, PAGE_SIZE, Pages, Payload, Token};

/// Bytes of a window: large enough that a disk is busy with it, small enough that a sync of the log never
/// waits long behind one.
pub(super) const WINDOW_SIZE: u64 = 512 << 10;

/// Windows that are kept: 32 MiB, one or two for each of many groups that are behind at different places.
const KEPT_MAX: usize = 64;

/// Buffers kept for the next reads.
const SPARE_MAX: usize = 8;

/// Nobody was behind for so long: the memory goes back.
const REST_NS: u64 = 5_000_000_000;

/// Where bytes begin that may still change; of the file that is appended to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsettled {
    /// The last segment.
    pub file: FileId,
    /// The first byte that is not yet written.
    pub from: u64,
}

#[derive(Debug)]
enum State {
    Queued,
    Reading,
    Ready(Pages),
}

#[derive(Debug)]
struct Window {
    place: Place,
    /// First byte that is read, a page's.
    from: u64,
    /// One behind the last byte that counts, as asked for; once ready, as far as the file went.
    end: u64,
    state: State,
    waiters: Vec<Key>,
    /// When it was last of use; larger is later.
    used: u64,
}

type Place = (FileId, u64);

/// The windows of a shard.
#[derive(Debug)]
pub(super) struct Cold {
    windows: Slab<Window>,
    places: BTreeMap<Place, Key>,
    /// Somebody waits for these.
    wanted: VecDeque<Key>,
    /// Nobody waits for these yet.
    ahead: VecDeque<Key>,
    reading: u32,
    reads_max: u32,
    spare: Vec<Pages>,
    uses: u64,
    used_ns: u64,
}

/// What a window has to say about a byte.
pub(super) enum Found<'a> {
    /// It, and what follows in the window.
    Here(&'a [u8]),
    /// It is not there yet: ask for it.
    Missing,
    /// The file ends before it.
    Beyond,
}

impl Cold {
    /// `reads_max`: this shard's part of what the device is given to do at once.
    pub(super) fn new(reads_max: u32) -> Self {
        Self {
            windows: Slab::default(),
            places: BTreeMap::new(),
            wanted: VecDeque::new(),
            ahead: VecDeque::new(),
            reading: 0,
            reads_max: reads_max.max(1),
            spare: Vec::new(),
            uses: 0,
            used_ns: 0,
        }
    }

    fn at(&self, file: FileId, at: u64) -> Option<(Key, &Window)> {
        let key = *self.places.get(&(file, at / WINDOW_SIZE))?;
        Some((key, self.windows.get(key)?))
    }

    /// Looks for a byte.
    pub(super) fn find(&mut self, io: &impl Io, file: FileId, at: u64) -> Found<'_> {
        self.uses += 1;
        self.used_ns = io.now_ns();
        let uses = self.uses;
        let Some(key) = self.places.get(&(file, at / WINDOW_SIZE)).copied() else {
            return Found::Missing;
        };
        let Some(window) = self.windows.get_mut(key) else {
            return Found::Missing;
        };
        window.used = uses;
        let State::Ready(pages) = &window.state else {
            return Found::Missing;
        };
        let read_to = window.from + pages.bytes().len() as u64;
        if window.from <= at && at < window.end.min(read_to) {
            let bytes = &pages.bytes()[..(window.end.min(read_to) - window.from) as usize];
            return Found::Here(&bytes[(at - window.from) as usize..]);
        }
        if window.from <= at && at < window.end {
            return Found::Beyond;
        }
        Found::Missing
    }

    /// Has the window of a byte read for `waiter`, and what follows it for later.
    pub(super) fn want(
        &mut self,
        io: &mut impl Io,
        (file, at): (FileId, u64),
        unsettled: Option<Unsettled>,
        waiter: Key,
    ) {
        let key = self.request((file, at), unsettled, false);
        if let Some(window) = self.windows.get_mut(key) {
            window.waiters.push(waiter);
        }
        self.start_reads(io);
    }

    /// Somebody is about to need this byte, or has just had it: its window is read if it is not there, the
    /// next one too, and the one behind that where the window before is there, as whoever reads on does.
    pub(super) fn read_ahead(
        &mut self,
        io: &mut impl Io,
        (file, at): (FileId, u64),
        unsettled: Option<Unsettled>,
    ) {
        let here = at / WINDOW_SIZE;
        let follows = 0 < here && self.places.contains_key(&(file, here - 1));
        let depth = if follows { 2 } else { 1 };
        for next in here..=here + depth {
            let at = at.max(next * WINDOW_SIZE);
            let is_there = unsettled.is_none_or(|end| end.file != file || at < end.from);
            if is_there && !self.places.contains_key(&(file, next)) {
                self.request((file, at), unsettled, true);
            }
        }
        self.start_reads(io);
    }

    /// The window of a byte, made if it is not there or was read before the byte was written.
    fn request(
        &mut self,
        (file, at): (FileId, u64),
        unsettled: Option<Unsettled>,
        ahead: bool,
    ) -> Key {
        let place = (file, at / WINDOW_SIZE);
        let start = place.1 * WINDOW_SIZE;
        let settled = unsettled.filter(|end| end.file == file);
        let end = settled.map_or(start + WINDOW_SIZE, |end| end.from.min(start + WINDOW_SIZE));
        // At the end of the log only what is asked for: whoever follows it asks again and again.
        let from = if end < start + WINDOW_SIZE {
            at - at % PAGE_SIZE
        } else {
            start
        };
        if let Some((key, window)) = self.at(file, at) {
            match window.state {
                State::Queued | State::Reading if window.from <= at && at < window.end => {
                    if !ahead && matches!(window.state, State::Queued) {
                        self.ahead.retain(|other| *other != key);
                        if !self.wanted.contains(&key) {
                            self.wanted.push_back(key);
                        }
                    }
                    return key;
                }
                // Under way, but not far enough: who waits for it asks again then.
                State::Queued | State::Reading => return key,
                State::Ready(_) => self.remove(key),
            }
        }
        let key = self.windows.insert(Window {
            place,
            from,
            end,
            state: State::Queued,
            waiters: Vec::new(),
            used: self.uses,
        });
        self.places.insert(place, key);
        if ahead {
            self.ahead.push_back(key);
        } else {
            self.wanted.push_back(key);
        }
        key
    }

    fn remove(&mut self, key: Key) {
        let Some(window) = self.windows.remove(key) else {
            return;
        };
        if self.places.get(&window.place) == Some(&key) {
            self.places.remove(&window.place);
        }
        if let State::Ready(pages) = window.state {
            self.keep_spare(pages);
        }
    }

    fn keep_spare(&mut self, mut pages: Pages) {
        if self.spare.len() < SPARE_MAX {
            pages.set_len(0);
            self.spare.push(pages);
        }
    }

    fn start_reads(&mut self, io: &mut impl Io) {
        while self.reading < self.reads_max {
            let next = self.wanted.pop_front().or_else(|| self.ahead.pop_front());
            let Some(key) = next else { return };
            let Some(window) = self.windows.get_mut(key) else {
                continue;
            };
            let size = (window.end - window.from).next_multiple_of(PAGE_SIZE) as usize;
            let pages = match self.spare.pop() {
                Some(pages) => Ok(pages),
                None => Pages::new(WINDOW_SIZE as usize),
            };
            let Ok(mut into) = pages else {
                // No memory now: it is tried again when a read under way comes back, or by `rest`.
                self.wanted.push_front(key);
                return;
            };
            into.set_len(size);
            window.state = State::Reading;
            self.reading += 1;
            let token = Token::of(COLD_ROOM, key.to_u64() & ((1 << 56) - 1));
            let op = Op::ReadCold {
                file: window.place.0,
                at: window.from,
                into,
            };
            let pushed = io.push(token, op);
            assert!(pushed.is_ok(), "the ring has room for a few reads");
        }
    }

    /// Takes one answer of the kernel. Who waits for it is to look again, or hears why it cannot.
    pub(super) fn complete(
        &mut self,
        io: &mut impl Io,
        done: Completion,
    ) -> (Vec<Key>, Result<(), Errno>) {
        self.reading -= 1;
        let key = Key::from_u64(done.token.rest());
        let Payload::Pages(mut pages) = done.payload else {
            unreachable!("a cold read gives its buffer back")
        };
        let Some(window) = self.windows.get_mut(key) else {
            self.keep_spare(pages);
            self.start_reads(io);
            return (Vec::new(), Ok(()));
        };
        let waiters = std::mem::take(&mut window.waiters);
        let result = match done.result {
            Ok(count) => {
                pages.set_len(count as usize);
                window.state = State::Ready(pages);
                // Nobody has looked at it yet: it is not the one to make room for others.
                self.uses += 1;
                window.used = self.uses;
                Ok(())
            }
            Err(errno) => {
                self.keep_spare(pages);
                Err(errno)
            }
        };
        if result.is_err() {
            self.remove(key);
        }
        self.evict();
        self.start_reads(io);
        (waiters, result)
    }

    /// The windows that were of use longest ago make room.
    fn evict(&mut self) {
        let ready = |window: &Window| matches!(window.state, State::Ready(_));
        let keys = self.places.values();
        let mut kept: Vec<(u64, Key)> = keys
            .filter_map(|key| Some((*key, self.windows.get(*key)?)))
            .filter(|(_, window)| ready(window))
            .map(|(key, window)| (window.used, key))
            .collect();
        if kept.len() <= KEPT_MAX {
            return;
        }
        kept.sort_unstable();
        for (_, key) in kept.drain(..kept.len() - KEPT_MAX) {
            self.remove(key);
        }
    }

    /// Gives memory back that nobody has used for a while; begins what had found none.
    pub(super) fn rest(&mut self, io: &mut impl Io) {
        self.start_reads(io);
        let now_ns = io.now_ns();
        if now_ns < self.used_ns + REST_NS || (self.places.is_empty() && self.spare.is_empty()) {
            return;
        }
        let keys: Vec<Key> = self.places.values().copied().collect();
        for key in keys {
            let ready = |window: &Window| matches!(window.state, State::Ready(_));
            if self.windows.get(key).is_some_and(ready) {
                self.remove(key);
            }
        }
        self.spare.clear();
    }
}
