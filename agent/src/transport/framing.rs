//! Finding where one client's bytes end and the next one's begin, on a port that has no connections of its own.

/// The largest frame payload that the agent accepts: HTTP/2's default (RFC 9113, section 6.5.2).
const MAX_FRAME: usize = 16_384;
const FRAME_HEADER: usize = 9;
const PREFACE: usize = 24; // "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
const GREETING: &[u8] = b"CONNECT 52 ";
const MAX_NONCE: usize = 64;

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

/// What stands in a stream where a client may begin.
#[derive(Debug, PartialEq)]
pub enum Scan {
    /// A whole greeting with its nonce; so many bytes up to its end.
    Greeting { nonce: String, end: usize },
    /// Nothing yet; so many bytes can be dropped.
    Nothing { drop: usize },
}

/// Looks for `CONNECT 52 <nonce>\n`.
pub fn scan(bytes: &[u8]) -> Scan {
    let mut from = 0;
    while let Some(start) = find(&bytes[from..], GREETING).map(|at| from + at) {
        let after = &bytes[start + GREETING.len()..];
        let length = after
            .iter()
            .take_while(|byte| byte.is_ascii_alphanumeric())
            .count();
        match after.get(length) {
            Some(b'\n') if (1..=MAX_NONCE).contains(&length) => {
                let nonce = String::from_utf8_lossy(&after[..length]).into_owned();
                return Scan::Greeting {
                    nonce,
                    end: start + GREETING.len() + length + 1,
                };
            }
            None if length <= MAX_NONCE => return Scan::Nothing { drop: start },
            _ => from = start + 1,
        }
    }
    // The end may be the beginning of a greeting.
    let keep = (1..GREETING.len())
        .rev()
        .find(|length| bytes.ends_with(&GREETING[..*length]))
        .unwrap_or(0);
    Scan::Nothing {
        drop: bytes.len() - keep,
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
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
        let mut bytes = session(&[5]);
        let end = bytes.len();
        bytes.extend(b"CONNECT 52 abc\n");
        assert_eq!(FrameTracker::new().accept(&bytes), end);
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

    #[test]
    fn a_greeting_is_found_behind_noise_and_in_pieces() {
        let noise = [
            &[0xFF; 100][..],
            b"CONNECT 52 bad-nonce\nCONNECT 52 good1\nPRI",
        ]
        .concat();
        let Scan::Greeting { nonce, end } = scan(&noise) else {
            panic!("not found")
        };
        assert_eq!((nonce.as_str(), &noise[end..]), ("good1", &b"PRI"[..]));
        assert_eq!(scan(b"xxCONNECT 5"), Scan::Nothing { drop: 2 });
        assert_eq!(scan(b"xxCONNECT 52 abc"), Scan::Nothing { drop: 2 });
        assert_eq!(scan(b"noise"), Scan::Nothing { drop: 5 });
    }

    #[test]
    fn an_endless_nonce_is_no_greeting() {
        let long = [b"CONNECT 52 ".as_slice(), &[b'a'; 100]].concat();
        assert_eq!(scan(&long), Scan::Nothing { drop: long.len() });
    }
}
