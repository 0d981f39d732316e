//! Counts what is under way, for whoever has to wait until nothing is.

use std::cell::Cell;
use std::rc::Rc;

use tokio::sync::Notify;

#[derive(Default)]
pub struct InFlight {
    count: Cell<usize>,
    ended: Notify,
}

impl InFlight {
    /// Counted until the value is dropped.
    pub fn enter(self: &Rc<Self>) -> Entry {
        self.count.set(self.count.get() + 1);
        Entry(self.clone())
    }

    pub async fn until_none(&self) {
        loop {
            let ended = self.ended.notified();
            if self.count.get() == 0 {
                return;
            }
            ended.await;
        }
    }
}

pub struct Entry(Rc<InFlight>);

impl Drop for Entry {
    fn drop(&mut self) {
        self.0.count.set(self.0.count.get() - 1);
        self.0.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    #[test]
    fn waits_for_the_last_that_entered() {
        let in_flight = Rc::new(InFlight::default());
        let (first, second) = (in_flight.enter(), in_flight.enter());
        let mut none = pin!(in_flight.until_none());
        let mut is_ready = || {
            let mut context = Context::from_waker(Waker::noop());
            none.as_mut().poll(&mut context).is_ready()
        };
        assert!(!is_ready());
        drop(first);
        assert!(!is_ready());
        drop(second);
        assert!(is_ready());
    }
}
