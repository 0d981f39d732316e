//! Process 1 inherits every orphan. One place waits for all children and tells whoever started them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use serde::Serialize;
use tokio::signal::unix::{signal, SignalKind};
use tokio::sync::oneshot;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

impl Exit {
    fn from_status(status: i32) -> Self {
        if libc::WIFSIGNALED(status) {
            Self::Signal(libc::WTERMSIG(status))
        } else {
            Self::Code(libc::WEXITSTATUS(status))
        }
    }

    pub fn success(self) -> bool {
        self == Self::Code(0)
    }

    /// As a shell counts: 128 + the signal.
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(formatter, "code {code}"),
            Self::Signal(signal) => write!(formatter, "signal {signal}"),
        }
    }
}

#[derive(Default)]
pub struct Reaper {
    waiting: RefCell<HashMap<i32, oneshot::Sender<Exit>>>,
}

impl Reaper {
    /// To be called before control returns to the runtime after a spawn: until then nobody reaps.
    pub fn expect(&self, pid: i32) -> oneshot::Receiver<Exit> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.borrow_mut().insert(pid, sender);
        receiver
    }

    fn reap(&self) {
        loop {
            let mut status = 0;
            let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
            if pid <= 0 {
                return;
            }
            if let Some(waiter) = self.waiting.borrow_mut().remove(&pid) {
                let _ = waiter.send(Exit::from_status(status));
            }
        }
    }
}

/// Reaps whenever a child has ended.
pub fn start(reaper: Rc<Reaper>) {
    let mut children = signal(SignalKind::child()).expect("SIGCHLD can be caught");
    tokio::task::spawn_local(async move {
        while children.recv().await.is_some() {
            reaper.reap();
        }
    });
}
