//! What services wrote: a ring for each, and a wake-up for whoever follows.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tokio::sync::Notify;

use crate::in_flight::InFlight;

/// Kept of each service's output.
const RING_BYTES: usize = 256 * 1024;
/// A longer line is cut into several.
pub const LINE_BYTES: usize = 16 * 1024;

#[derive(Debug, Clone, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    pub service: String,
    pub stream: &'static str,
    pub time_ms: u64,
    pub text: String,
    /// Counts all lines of the guest, so that a follower knows what it has seen.
    #[serde(skip)]
    pub number: u64,
}

#[derive(Default)]
pub struct Logs {
    rings: RefCell<BTreeMap<String, Ring>>,
    count: RefCell<u64>,
    /// The streams that are read.
    pub sources: Rc<InFlight>,
    closed: Cell<bool>,
    /// There is a line more, or there will be none.
    pub changed: Notify,
}

#[derive(Default)]
struct Ring {
    lines: VecDeque<Line>,
    bytes: usize,
}

impl Logs {
    pub fn add(&self, service: &str, stream: &'static str, text: String) {
        let mut count = self.count.borrow_mut();
        *count += 1;
        let line = Line {
            service: service.into(),
            stream,
            time_ms: now_ms(),
            text,
            number: *count,
        };
        let mut rings = self.rings.borrow_mut();
        let ring = rings.entry(service.to_string()).or_default();
        ring.bytes += line.text.len();
        ring.lines.push_back(line);
        while ring.bytes > RING_BYTES {
            ring.bytes -= ring.lines.pop_front().map_or(0, |line| line.text.len());
        }
        self.changed.notify_waiters();
    }

    /// Nothing more will be said: who follows has heard all.
    pub fn close(&self) {
        self.closed.set(true);
        self.changed.notify_waiters();
    }

    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// Lines after `seen`, of one service or of all, in the order they were written.
    pub fn after(&self, seen: u64, service: Option<&str>) -> Vec<Line> {
        let rings = self.rings.borrow();
        let mut lines: Vec<Line> = rings
            .iter()
            .filter(|(name, _)| service.is_none_or(|wanted| wanted == *name))
            .flat_map(|(_, ring)| ring.lines.iter().filter(|line| line.number > seen).cloned())
            .collect();
        lines.sort_by_key(|line| line.number);
        lines
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_lines_of_each_service_in_order() {
        let logs = Logs::default();
        logs.add("a", "stdout", "one".into());
        logs.add("b", "stderr", "two".into());
        logs.add("a", "stdout", "three".into());
        let texts = |lines: Vec<Line>| lines.into_iter().map(|line| line.text).collect::<Vec<_>>();
        assert_eq!(texts(logs.after(0, None)), ["one", "two", "three"]);
        assert_eq!(texts(logs.after(0, Some("a"))), ["one", "three"]);
        assert_eq!(texts(logs.after(2, None)), ["three"]);
    }

    #[test]
    fn forgets_what_is_beyond_the_ring() {
        let logs = Logs::default();
        for _ in 0..100 {
            logs.add("a", "stdout", "x".repeat(LINE_BYTES));
        }
        let kept: usize = logs.after(0, None).iter().map(|line| line.text.len()).sum();
        assert!(
            kept <= RING_BYTES && kept > RING_BYTES - 2 * LINE_BYTES,
            "{kept}"
        );
    }
}
