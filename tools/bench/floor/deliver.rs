//! Delivery without a broker: pulls answered with records of a file, by sendfile or by gathering.
#![allow(unsafe_code)] // A file is mapped into memory; the place says why it is sound.

use super::{Kind, Options, end_ns, unmade};
use crate::check::{self, FIELDS_SIZE};
use crate::net::Poll;
use crate::wire::{self, Answers, Frame, NumberKey};
use crate::{Outcome, clock, fail};
use memmap2::Mmap;
use nix::sys::sendfile::sendfile;
use nix::sys::socket::{MsgFlags, send};
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, ErrorKind, IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::Path;

const SLICES_MAX: usize = 1024;
const LISTENER: usize = usize::MAX >> 2;
/// What RocketMQ gives at most unless the request says more.
const BYTES_MAX: u64 = 256 << 10;
const NO_MESSAGE: i32 = 19;

/// A file of records, all of one size.
pub struct Records {
    file: File,
    map: Mmap,
    is_interleaved: bool,
    size: u64,
    queues: u64,
    /// Records of each queue.
    each: u64,
}

/// One record as a broker stores it.
fn record(options: &Options, queue: u32, offset: u64, padding: &[u8], padding_crc: u32) -> Vec<u8> {
    let mut fields: [u8; FIELDS_SIZE] = check::blank_fields(1, check::place(&options.topic, queue));
    check::seal(&mut fields, padding_crc, 0, offset, 1);
    let mut record = vec![0; 88];
    record[4..8].copy_from_slice(&0xDAA3_20A7_u32.to_be_bytes());
    record[12..16].copy_from_slice(&queue.to_be_bytes());
    record[20..28].copy_from_slice(&offset.to_be_bytes());
    record[84..88].copy_from_slice(&options.size.to_be_bytes());
    record.extend_from_slice(padding);
    record.extend_from_slice(&fields);
    record.push(options.topic.len() as u8);
    record.extend_from_slice(options.topic.as_bytes());
    let properties = format!(
        "UNIQ_KEY\u{1}{:016X}{offset:016X}\u{2}WAIT\u{1}true\u{2}",
        queue
    );
    record.extend_from_slice(&(properties.len() as u16).to_be_bytes());
    record.extend_from_slice(properties.as_bytes());
    let size = record.len() as u32;
    record[..4].copy_from_slice(&size.to_be_bytes());
    record
}

impl Records {
    pub fn write(options: &Options, path: &Path) -> Outcome<Records> {
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path);
        let file = match opened {
            Ok(file) => file,
            Err(error) => return fail(unmade(path, &error)),
        };
        // Without a name it cannot be left behind.
        std::fs::remove_file(path)?;
        let padding = vec![b'x'; options.size as usize - FIELDS_SIZE];
        let padding_crc = crc32fast::hash(&padding);
        let make = |queue, offset| record(options, queue, offset, &padding, padding_crc);
        let size = make(0, 0).len() as u64;
        let queues = u64::from(options.queues);
        let each = (options.file_mib << 20) / size / queues;
        if each == 0 {
            return fail("--file-mib has no room for one record of each queue");
        }
        let is_interleaved = options.kind == Kind::Gather;
        let mut out = BufWriter::with_capacity(1 << 20, &file);
        for at in 0..each * queues {
            let (queue, offset) = if is_interleaved {
                (at % queues, at / queues)
            } else {
                (at / each, at % each)
            };
            out.write_all(&make(queue as u32, offset))?;
        }
        out.flush()?;
        drop(out);
        file.sync_all()?;
        // SAFETY: nobody else can open the file, it has no name, and nothing writes to it or
        // cuts it from here on.
        let map = unsafe { Mmap::map(&file) }?;
        Ok(Records {
            file,
            map,
            is_interleaved,
            size,
            queues,
            each,
        })
    }

    fn at(&self, queue: u64, offset: u64) -> u64 {
        let index = if self.is_interleaved {
            offset * self.queues + queue
        } else {
            queue * self.each + offset
        };
        index * self.size
    }

    fn bytes(&self, at: u64, size: u64) -> &[u8] {
        &self.map[at as usize..(at + size) as usize]
    }
}

/// An answer that is being sent.
struct Answer {
    /// The frame's lengths and its header.
    head: Vec<u8>,
    queue: u64,
    offset: u64,
    count: u64,
    sent: u64,
}

impl Answer {
    fn size(&self, records: &Records) -> u64 {
        self.head.len() as u64 + self.count * records.size
    }

    /// Sends what the socket takes; says whether all is gone.
    fn send(&mut self, socket: &TcpStream, records: &Records) -> std::io::Result<bool> {
        while self.sent < self.size(records) {
            let told = if records.is_interleaved {
                self.gather(socket, records)
            } else {
                self.send_file(socket, records)
            };
            match told {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.sent += count as u64,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn send_file(&self, socket: &TcpStream, records: &Records) -> std::io::Result<usize> {
        let head = self.head.len() as u64;
        if self.sent < head {
            let more = if 0 < self.count {
                MsgFlags::from_bits_retain(libc::MSG_MORE)
            } else {
                MsgFlags::empty()
            };
            let rest = &self.head[self.sent as usize..];
            return Ok(send(
                socket.as_raw_fd(),
                rest,
                more | MsgFlags::MSG_NOSIGNAL,
            )?);
        }
        let done = self.sent - head;
        let mut at = (records.at(self.queue, self.offset) + done) as i64;
        let rest = self.count * records.size - done;
        Ok(sendfile(
            socket,
            &records.file,
            Some(&mut at),
            rest as usize,
        )?)
    }

    fn gather(&self, mut socket: &TcpStream, records: &Records) -> std::io::Result<usize> {
        let head = self.head.len() as u64;
        let mut slices = Vec::with_capacity(self.count as usize + 1);
        if self.sent < head {
            slices.push(IoSlice::new(&self.head[self.sent as usize..]));
        }
        let done = self.sent.saturating_sub(head);
        let (first, part) = (done / records.size, done % records.size);
        for index in first..self.count {
            if SLICES_MAX <= slices.len() {
                break;
            }
            let skip = if index == first { part } else { 0 };
            let at = records.at(self.queue, self.offset + index) + skip;
            slices.push(IoSlice::new(records.bytes(at, records.size - skip)));
        }
        socket.write_vectored(&slices)
    }
}

struct Client {
    socket: TcpStream,
    input: Vec<u8>,
    answers: VecDeque<Answer>,
    waits_writable: bool,
}

struct Delivery<'a> {
    records: &'a Records,
    answers: Answers,
    keys: [NumberKey; 4],
}

impl Delivery<'_> {
    fn answer(&mut self, frame: &Frame<'_>) -> Outcome<Answer> {
        let (code, opaque) = self.answers.read(frame.header)?;
        let mut number = |index: usize| {
            let found = self.keys[index].read(frame.header);
            found.and_then(|found| u64::try_from(found).ok())
        };
        let (queue, offset) = (number(0).unwrap_or(0), number(1).unwrap_or(0));
        let is_there = queue < self.records.queues;
        let each = if is_there { self.records.each } else { 0 };
        let mut count = 0;
        let (code, fields) = match code {
            wire::PULL => {
                let bytes = number(3).unwrap_or(BYTES_MAX.max(self.records.size));
                let most = number(2)
                    .unwrap_or(32)
                    .min(bytes / self.records.size)
                    .max(1);
                count = each.saturating_sub(offset).min(most);
                let next = offset + count;
                let fields = format!(
                    "\"suggestWhichBrokerId\":\"0\",\"nextBeginOffset\":\"{next}\",\"minOffset\":\"0\",\"maxOffset\":\"{each}\""
                );
                (if count == 0 { NO_MESSAGE } else { 0 }, fields)
            }
            wire::MAX_OFFSET => (0, format!("\"offset\":\"{each}\"")),
            wire::MIN_OFFSET => (0, "\"offset\":\"0\"".to_string()),
            wire::CREATE_TOPIC => (0, String::new()),
            _ => (3, String::new()),
        };
        let header = format!(
            "{{\"code\":{code},\"extFields\":{{{fields}}},\"flag\":1,\"language\":\"JAVA\",\"opaque\":{opaque},\"serializeTypeCurrentRPC\":\"JSON\",\"version\":513}}"
        );
        let mut head = Vec::with_capacity(header.len() + 8);
        wire::put_frame(&mut head, header.as_bytes(), &[]);
        let size = (4 + header.len() as u64 + count * self.records.size) as u32;
        head[..4].copy_from_slice(&size.to_be_bytes());
        Ok(Answer {
            head,
            queue,
            offset,
            count,
            sent: 0,
        })
    }

    /// Reads requests and sends answers; says whether the client is still there.
    fn turn(&mut self, client: &mut Client, poll: &Poll, token: usize) -> Outcome<bool> {
        let mut bytes = [0; 16 << 10];
        match client.socket.read(&mut bytes) {
            Ok(0) => return Ok(false),
            Ok(count) => client.input.extend_from_slice(&bytes[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return Ok(false),
        }
        let mut at = 0;
        while let Some(frame) = wire::frame(&client.input[at..])? {
            at += frame.size;
            client.answers.push_back(self.answer(&frame)?);
        }
        client.input.drain(..at);
        while let Some(answer) = client.answers.front_mut() {
            match answer.send(&client.socket, self.records) {
                Ok(true) => drop(client.answers.pop_front()),
                Ok(false) => break,
                Err(_) => return Ok(false),
            }
        }
        let waits = !client.answers.is_empty();
        if client.waits_writable != waits {
            client.waits_writable = waits;
            poll.set_writable(&client.socket, token, waits)?;
        }
        Ok(true)
    }
}

pub fn serve(options: &Options, listener: TcpListener, records: &Records) -> Outcome<()> {
    listener.set_nonblocking(true)?;
    let mut poll = Poll::new()?;
    poll.add(&listener, LISTENER)?;
    let mut delivery = Delivery {
        records,
        answers: Answers::new(None),
        keys: [
            NumberKey::new("\"queueId\":"),
            NumberKey::new("\"queueOffset\":"),
            NumberKey::new("\"maxMsgNums\":"),
            NumberKey::new("\"maxMsgBytes\":"),
        ],
    };
    let mut clients: Vec<Option<Client>> = Vec::new();
    let mut ready = Vec::new();
    let end_ns = end_ns(options);
    while clock::now_ns() < end_ns {
        poll.wait(100, &mut ready)?;
        for token in &ready {
            if *token == LISTENER {
                while let Ok((socket, _)) = listener.accept() {
                    socket.set_nodelay(true)?;
                    socket.set_nonblocking(true)?;
                    poll.add(&socket, clients.len())?;
                    clients.push(Some(Client {
                        socket,
                        input: Vec::new(),
                        answers: VecDeque::new(),
                        waits_writable: false,
                    }));
                }
                continue;
            }
            let Some(client) = &mut clients[*token] else {
                continue;
            };
            if !delivery.turn(client, &poll, *token).unwrap_or(false) {
                clients[*token] = None;
            }
        }
    }
    Ok(())
}
