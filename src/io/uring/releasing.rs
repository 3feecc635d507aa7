//! Files that are needed no more: they are unmapped and closed elsewhere, when nobody uses them any more, and what has no
//! name goes in steps. See kernel-notes/preallocation.md.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::{OpenFile, Uring};
use crate::io::mapping::Mapped;
use crate::io::{Completion, Errno, FileId, Payload, Token};

/// A file without a name becomes shorter by so much at once: the journal, and whoever waits for it, get their turn
/// in between. It ends at multiples of this and so between two folios: the rest of a folio that a file ends in is
/// zeroed, and its pages may be on their way to a consumer.
const SHRINK_STEP: u64 = 32 << 20;
const SHRINK_PAUSE: Duration = Duration::from_millis(10);

/// Unmaps a file and closes it when it is dropped, which takes a while.
struct Leaving {
    map: Option<Mapped>,
    file: Arc<File>,
}

impl Leaving {
    fn of(open: OpenFile) -> Self {
        let OpenFile { file, map, .. } = open;
        Self {
            map: Some(map),
            file,
        }
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.map = None;
        // One that has another name, or that somebody else holds, stays as it is.
        let is_last = Arc::strong_count(&self.file) == 1;
        let Some(meta) = self
            .file
            .metadata()
            .ok()
            .filter(|meta| is_last && meta.nlink() == 0)
        else {
            return;
        };
        let mut size = meta.len();
        while SHRINK_STEP < size {
            size = (size - 1) / SHRINK_STEP * SHRINK_STEP;
            // Whatever is wrong with it: it is about to go.
            if self.file.set_len(size).is_err() {
                return;
            }
            std::thread::sleep(SHRINK_PAUSE);
        }
    }
}

impl Uring {
    pub(super) fn release(&mut self, token: Token, file: FileId) {
        let open = self.files.remove(file);
        self.ready.push(Completion {
            token,
            result: open.as_ref().map(|_| 0).ok_or(Errno::EBADF),
            more: false,
            payload: Payload::None,
        });
        self.leaving.extend(open);
        self.let_go();
    }

    /// Operations in flight keep a file open, and its map.
    pub(super) fn let_go(&mut self) {
        if self.leaving.is_empty() {
            return;
        }
        for open in std::mem::take(&mut self.leaving) {
            match Rc::try_unwrap(open) {
                Ok(open) => self.lanes.drop_elsewhere(Leaving::of(open)),
                Err(open) => self.leaving.push(open),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::FileExt;
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::super::super::{Fill, Io, Lanes, Op, OpenMode, Options};
    use super::*;

    /// Takes as long to be dropped as the test wants.
    struct Slow(Receiver<()>);

    impl Drop for Slow {
        fn drop(&mut self) {
            let _ = self.0.recv();
        }
    }

    fn next(uring: &mut Uring) -> Option<Completion> {
        let mut done = Vec::new();
        for _ in 0..50 {
            uring.turn(20_000_000, &mut done).unwrap();
            if let Some(completion) = done.pop() {
                assert!(done.is_empty() && completion.result.is_ok());
                return Some(completion);
            }
        }
        None
    }

    #[test]
    fn room_is_made_while_blocks_are_freed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let lanes = Lanes::start().unwrap();
        let mut uring = Uring::new(Options::SMALL, Vec::new(), lanes.clone()).unwrap();
        let (goes_on, waits) = channel();
        lanes.drop_elsewhere(Slow(waits));
        let remove = Op::Remove {
            path: folder.path().join("old"),
        };
        uring.push(Token(1), remove).unwrap();
        let removed = next(&mut uring).expect("names go meanwhile");
        assert_eq!(removed.token, Token(1));
        let mode = OpenMode::Create { size: 4096 };
        uring.push(Token(2), Op::Open { path, mode }).unwrap();
        let opened = next(&mut uring).expect("a file is opened meanwhile");
        let Payload::Opened(file, _) = opened.payload else {
            panic!("{opened:?}")
        };
        let prepare = Op::Prepare {
            file,
            at: 0,
            len: 4096,
            fill: Fill::Zeros,
        };
        uring.push(Token(3), prepare).unwrap();
        let space = Op::Space {
            path: folder.path().to_owned(),
        };
        uring.push(Token(4), space).unwrap();
        let prepared = next(&mut uring).expect("room is made meanwhile");
        assert_eq!(prepared.token, Token(3));
        assert_eq!(next(&mut uring).map(|done| done.token), None);
        goes_on.send(()).unwrap();
        let space = next(&mut uring).expect("the disk is looked at behind it");
        assert_eq!(space.token, Token(4));
    }

    #[test]
    fn what_was_put_before_a_removal_does_not_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let lanes = Lanes::start().unwrap();
        let mut uring = Uring::new(Options::SMALL, Vec::new(), lanes).unwrap();
        let queue = folder.path().join("queue");
        for number in 0..8 {
            let put = Op::Put {
                path: queue.join(number.to_string()),
                size: 4 << 20,
                pieces: vec![(0, vec![1; 4 << 20])],
            };
            uring.push(Token(number), put).unwrap();
        }
        let remove = Op::Remove {
            path: queue.clone(),
        };
        uring.push(Token(8), remove).unwrap();
        let mut done = Vec::new();
        for _ in 0..500 {
            if done.len() < 9 {
                uring.turn(20_000_000, &mut done).unwrap();
            }
        }
        let tokens: Vec<_> = done.iter().map(|completion| completion.token).collect();
        assert_eq!(tokens, (0..=8).map(Token).collect::<Vec<_>>());
        assert!(done.iter().all(|completion| completion.result.is_ok()));
        assert!(!queue.exists());
    }

    /// Pages of a file that is removed are on their way to a peer that has not read them.
    #[test]
    fn what_is_on_its_way_stays_as_it_is() {
        const SIZE: u64 = 2 * SHRINK_STEP + 100_000;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .unwrap();
        for at in 0..SIZE.div_ceil(1 << 20) {
            let len = (SIZE - (at << 20)).min(1 << 20);
            file.write_all_at(&vec![7; len as usize], at << 20).unwrap();
        }
        let (mut near, far) = UnixStream::pair().unwrap();
        let mut want = 0;
        // Around each place where it may end in between.
        for end in 1..=2_u64 {
            for at in [end * SHRINK_STEP, SIZE - end * SHRINK_STEP] {
                want += nix::sys::sendfile::sendfile64(
                    &far,
                    &file,
                    Some(&mut (at as i64 - 8_192)),
                    16_384,
                )
                .unwrap();
            }
        }
        std::fs::remove_file(&path).unwrap();
        drop(Leaving {
            map: None,
            file: Arc::new(file),
        });
        let mut got = vec![0; want];
        near.read_exact(&mut got).unwrap();
        assert!(got.iter().all(|byte| *byte == 7));
    }

    /// Says when it is dropped.
    struct Told(Sender<()>);

    impl Drop for Told {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }

    #[test]
    fn a_file_that_was_removed_shrinks_and_one_with_a_name_does_not() {
        const SIZE: u64 = 3 * SHRINK_STEP;
        for has_name in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("file");
            let lanes = Lanes::start().unwrap();
            let mut uring = Uring::new(Options::SMALL, Vec::new(), lanes.clone()).unwrap();
            let mode = OpenMode::Create { size: SIZE };
            let open = Op::Open {
                path: path.clone(),
                mode,
            };
            uring.push(Token(1), open).unwrap();
            let Some(Completion {
                payload: Payload::Opened(file, _),
                ..
            }) = next(&mut uring)
            else {
                panic!("an open brings a file")
            };
            if has_name {
                std::fs::hard_link(&path, folder.path().join("kept")).unwrap();
            }
            let seen = File::open(&path).unwrap();
            uring.push(Token(2), Op::Remove { path }).unwrap();
            assert_eq!(next(&mut uring).unwrap().token, Token(2));
            assert_eq!(seen.metadata().unwrap().len(), SIZE, "somebody may read it");
            uring.push(Token(3), Op::Release { file }).unwrap();
            assert_eq!(next(&mut uring).unwrap().token, Token(3));
            let (tell, told) = channel();
            lanes.drop_elsewhere(Told(tell));
            told.recv().unwrap();
            let left = if has_name { SIZE } else { SHRINK_STEP };
            assert_eq!(seen.metadata().unwrap().len(), left);
        }
    }
}
