//! Finding where one client's bytes end and the next one's begin, on a port that has no connections of its own.

/// The largest frame payload that the agent accepts: HTTP/2's default (RFC 9113, section 6.5.2).
const MAX_FRAME: usize = 16_384;
const FRAME_HEADER: usize = 9;
const PREFACE: usize = 24; // "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
const CONNECT: &[u8] = b"CONNECT 52 ";
const WAKE: &[u8] = b"WAKE 52 ";
const MAX_NONCE: usize = 64;
const FILLER: u8 = 0xFF;
/// Digits of the longest request that a greeting carries; an HTTP/2 request may be longer.
const MAX_LENGTH_DIGITS: usize = 5;

/// Follows the frames of one HTTP/2 session.
#[derive(Debug)]
pub struct FrameTracker {
    /// Bytes of the preface or of a frame's payload that are still to come.
    remaining: usize,
    header: [u8; FRAME_HEADER],
    header_length: usize,
}

impl FrameTracker {
    pub fn new() -> Self {
        Self {
            remaining: PREFACE,
            header: [0; FRAME_HEADER],
            header_length: 0,
        }
    }

    /// How many of these bytes belong to the session. Fewer than all: what follows is no frame, the session is over.
    pub fn accept(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            if self.remaining > 0 {
                let step = self.remaining.min(bytes.len() - at);
                self.remaining -= step;
                at += step;
                continue;
            }
            self.header[self.header_length] = bytes[at];
            self.header_length += 1;
            at += 1;
            if self.header_length == 3 && self.payload_length() > MAX_FRAME {
                // The bytes of a header that began in an earlier read are lost to the scan; a repeated greeting follows.
                return at.saturating_sub(3);
            }
            if self.header_length == FRAME_HEADER {
                self.remaining = self.payload_length();
                self.header_length = 0;
            }
        }
        at
    }

    fn payload_length(&self) -> usize {
        usize::from(self.header[0]) << 16
            | usize::from(self.header[1]) << 8
            | usize::from(self.header[2])
    }
}

/// What a client begins with.
#[derive(Debug, PartialEq)]
pub struct Greeting {
    pub nonce: String,
    /// The request of a client that has the guest woken before anything else.
    pub wake: Option<Vec<u8>>,
}

/// What stands in a stream where a client may begin.
#[derive(Debug, PartialEq)]
pub enum Scan {
    /// A whole greeting; so many bytes up to its end.
    Found { greeting: Greeting, end: usize },
    /// Nothing yet; so many bytes can be dropped.
    Nothing { drop: usize },
}

/// Looks for `CONNECT 52 <nonce>\n`, and for `WAKE 52 <nonce> <length>\n` with so many bytes behind it.
pub fn scan(bytes: &[u8]) -> Scan {
    let mut from = 0;
    while let Some(start) = find_greeting(&bytes[from..]).map(|at| from + at) {
        match parse(&bytes[start..]) {
            Parsed::Whole { greeting, length } => {
                return Scan::Found {
                    greeting,
                    end: start + length,
                }
            }
            Parsed::Incomplete => return Scan::Nothing { drop: start },
            Parsed::Other => from = start + 1,
        }
    }
    // The end may be the beginning of a greeting.
    let tail = bytes.len().saturating_sub(CONNECT.len() - 1);
    let drop = (tail..bytes.len())
        .find(|start| {
            [CONNECT, WAKE]
                .iter()
                .any(|begin| begin.starts_with(&bytes[*start..]))
        })
        .unwrap_or(bytes.len());
    Scan::Nothing { drop }
}

enum Parsed {
    Whole { greeting: Greeting, length: usize },
    Incomplete,
    Other,
}

/// Bytes that begin like a greeting.
fn parse(bytes: &[u8]) -> Parsed {
    let prefix = if bytes.starts_with(WAKE) {
        WAKE
    } else {
        CONNECT
    };
    let longest = prefix.len() + MAX_NONCE + 1 + MAX_LENGTH_DIGITS;
    let Some(line) = bytes.iter().position(|byte| *byte == b'\n') else {
        return if bytes.len() <= longest && bytes[prefix.len()..].iter().all(is_of_greeting) {
            Parsed::Incomplete
        } else {
            Parsed::Other
        };
    };
    let mut words = bytes[prefix.len()..line].split(|byte| *byte == b' ');
    let nonce = words.next().and_then(parse_nonce);
    let length = words.next().map(parse_length);
    let body = line + 1;
    match (nonce, length, words.next()) {
        (Some(nonce), None, None) if prefix == CONNECT => Parsed::Whole {
            greeting: Greeting { nonce, wake: None },
            length: body,
        },
        (Some(nonce), Some(Some(length)), None) if prefix == WAKE => {
            let end = body + length;
            // No JSON has this byte, and a host that greets again begins with it: the rest of an earlier greeting will not come.
            if bytes[body..end.min(bytes.len())].contains(&FILLER) {
                return Parsed::Other;
            }
            bytes
                .get(body..end)
                .map_or(Parsed::Incomplete, |request| Parsed::Whole {
                    greeting: Greeting {
                        nonce,
                        wake: Some(request.to_vec()),
                    },
                    length: end,
                })
        }
        _ => Parsed::Other,
    }
}

fn is_of_greeting(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || *byte == b' '
}

fn parse_nonce(word: &[u8]) -> Option<String> {
    let fits = (1..=MAX_NONCE).contains(&word.len()) && word.iter().all(u8::is_ascii_alphanumeric);
    fits.then(|| String::from_utf8_lossy(word).into_owned())
}

fn parse_length(word: &[u8]) -> Option<usize> {
    let fits = (1..=MAX_LENGTH_DIGITS).contains(&word.len()) && word.iter().all(u8::is_ascii_digit);
    fits.then(|| {
        word.iter()
            .fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'))
    })
}

fn find_greeting(haystack: &[u8]) -> Option<usize> {
    (0..haystack.len()).find(|at| {
        let rest = &haystack[*at..];
        rest.starts_with(CONNECT) || rest.starts_with(WAKE)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFACE_BYTES: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    fn frame(length: usize) -> Vec<u8> {
        let mut bytes = vec![
            (length >> 16) as u8,
            (length >> 8) as u8,
            length as u8,
            0,
            0,
            0,
            0,
            0,
            1,
        ];
        bytes.extend(vec![0xCC; length]);
        bytes
    }

    fn session(frames: &[usize]) -> Vec<u8> {
        let mut bytes = PREFACE_BYTES.to_vec();
        frames
            .iter()
            .for_each(|length| bytes.extend(frame(*length)));
        bytes
    }

    #[test]
    fn a_whole_session_is_accepted_however_it_is_cut() {
        let bytes = session(&[0, 5, 16_384, 1]);
        for size in [1, 7, 100, 20_000] {
            let mut tracker = FrameTracker::new();
            for chunk in bytes.chunks(size) {
                assert_eq!(tracker.accept(chunk), chunk.len());
            }
        }
    }

    #[test]
    fn a_new_greeting_where_a_frame_should_begin_ends_the_session() {
        let bytes = session(&[5]);
        let end = bytes.len();
        for greeting in [&b"CONNECT 52 abc\n"[..], b"WAKE 52 abc 2\n{}"] {
            let bytes = [&bytes, greeting].concat();
            assert_eq!(FrameTracker::new().accept(&bytes), end);
        }
    }

    #[test]
    fn the_filler_ends_whatever_frame_was_cut_off() {
        for cut in [0, 1, 8, 9, 10, 16_000] {
            let mut bytes = session(&[100]);
            bytes.extend(&frame(16_384)[..cut]);
            bytes.extend(vec![0xFF; 16_393]);
            let accepted = FrameTracker::new().accept(&bytes);
            assert!(accepted < bytes.len(), "cut {cut}");
        }
    }

    fn found(bytes: &[u8]) -> (Greeting, usize) {
        match scan(bytes) {
            Scan::Found { greeting, end } => (greeting, end),
            Scan::Nothing { .. } => panic!("not found"),
        }
    }

    #[test]
    fn a_greeting_is_found_behind_noise_and_in_pieces() {
        let noise = [
            &[0xFF; 100][..],
            b"CONNECT 52 bad-nonce\nCONNECT 52 good1\nPRI",
        ]
        .concat();
        let (greeting, end) = found(&noise);
        assert_eq!(greeting.nonce, "good1");
        assert_eq!(greeting.wake, None);
        assert_eq!(&noise[end..], b"PRI");
        assert_eq!(scan(b"xxCONNECT 5"), Scan::Nothing { drop: 2 });
        assert_eq!(scan(b"xxCONNECT 52 abc"), Scan::Nothing { drop: 2 });
        assert_eq!(scan(b"xxWAK"), Scan::Nothing { drop: 2 });
        assert_eq!(scan(b"WAKE 52 abc 1"), Scan::Nothing { drop: 0 });
        assert_eq!(scan(b"noise"), Scan::Nothing { drop: 5 });
    }

    #[test]
    fn a_greeting_with_a_request_is_one_when_all_of_it_is_there() {
        let whole = b"noiseWAKE 52 abc 7\n{\"a\":1}CONNECT";
        let end = whole.len() - b"CONNECT".len();
        for cut in b"noiseWAKE 52 ".len()..end {
            assert_eq!(scan(&whole[..cut]), Scan::Nothing { drop: 5 }, "cut {cut}");
        }
        let (greeting, at) = found(whole);
        assert_eq!(greeting.nonce, "abc");
        assert_eq!(greeting.wake.as_deref(), Some(&b"{\"a\":1}"[..]));
        assert_eq!(at, end);
    }

    #[test]
    fn the_filler_ends_a_greeting_that_was_cut_off() {
        for cut in [14, 20, 5_000] {
            let mut bytes = b"WAKE 52 abc 90000\n".to_vec();
            bytes.extend(vec![b'x'; cut]);
            bytes.extend(vec![0xFF; 16_393]);
            bytes.extend(b"CONNECT 52 next\n");
            let (greeting, end) = found(&bytes);
            assert_eq!((greeting.nonce.as_str(), end), ("next", bytes.len()));
        }
    }

    #[test]
    fn what_only_looks_like_a_greeting_is_none() {
        for text in [
            &b"WAKE 52 abc\n"[..],
            b"WAKE 52 abc 100000\n",
            b"WAKE 52 abc -1\n",
            b"WAKE 52 abc 1 2\n",
            b"CONNECT 52 abc 7\n{\"a\":1}",
            b"CONNECT 52 \n",
        ] {
            assert_eq!(scan(text), Scan::Nothing { drop: text.len() });
        }
    }

    #[test]
    fn an_endless_nonce_is_no_greeting() {
        let long = [b"CONNECT 52 ".as_slice(), &[b'a'; 100]].concat();
        assert_eq!(scan(&long), Scan::Nothing { drop: long.len() });
    }
}
