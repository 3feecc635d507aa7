//! The id that names a stored message by its host and place (P§3.5).

use std::net::{IpAddr, SocketAddr};

use super::{HOST_SIZE_V4, HOST_SIZE_V6, parse_host};
use crate::base::{PhysicalOffset, Reader};

/// Appends the id that names a stored message by its host and place (P§3.5), in upper-case hex.
pub fn put_message_id(out: &mut String, host: SocketAddr, offset: PhysicalOffset) {
    let mut put = |bytes: &[u8]| {
        const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
        for byte in bytes {
            out.push(char::from(DIGITS[usize::from(byte >> 4)]));
            out.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    };
    match host.ip().to_canonical() {
        IpAddr::V4(ip) => put(&ip.octets()),
        IpAddr::V6(ip) => put(&ip.octets()),
    }
    put(&u32::from(host.port()).to_be_bytes());
    put(&offset.0.to_be_bytes());
}

/// The id that names a stored message by its host and place: 32 or 56 characters.
#[must_use]
pub fn message_id(host: SocketAddr, offset: PhysicalOffset) -> String {
    let mut text = String::with_capacity(MESSAGE_ID_SIZE_V6);
    put_message_id(&mut text, host, offset);
    text
}

const MESSAGE_ID_SIZE_V4: usize = 2 * (HOST_SIZE_V4 + 8);
const MESSAGE_ID_SIZE_V6: usize = 2 * (HOST_SIZE_V6 + 8);

/// Host and place from such an id; `None` if it is none. Beware: a client's unique key looks the same.
#[must_use]
pub fn parse_message_id(text: &str) -> Option<(SocketAddr, PhysicalOffset)> {
    if text.len() != MESSAGE_ID_SIZE_V4 && text.len() != MESSAGE_ID_SIZE_V6 {
        return None;
    }
    let mut bytes = [0; MESSAGE_ID_SIZE_V6 / 2];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = (high * 16 + low) as u8;
    }
    let mut reader = Reader::new(&bytes);
    let host = parse_host(&mut reader, text.len() == MESSAGE_ID_SIZE_V6)?.ok()?;
    Some((host, PhysicalOffset(reader.u64()?)))
}
