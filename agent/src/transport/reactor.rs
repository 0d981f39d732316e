//! Waiting for virtio-serial ports.
//!
//! A port whose host side is not connected says POLLHUP all the time, and tokio takes a hang-up for final. So the ports are
//! in an epoll set of our own, edge-triggered: it tells of changes only, and costs nothing while there are none. Tokio
//! watches that set, which never hangs up.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::task::Waker;

use tokio::io::unix::AsyncFd;
use tokio::io::Interest;

use crate::async_fd::watch;

/// What is known of one port since its last change.
#[derive(Default)]
pub struct Readiness {
    pub readable: Cell<bool>,
    pub writable: Cell<bool>,
    pub reader: RefCell<Option<Waker>>,
    pub writer: RefCell<Option<Waker>>,
}

impl Readiness {
    /// Something happened; what it was shows when it is tried.
    fn wake(&self) {
        self.readable.set(true);
        self.writable.set(true);
        for waiting in [&self.reader, &self.writer] {
            if let Some(waker) = waiting.borrow_mut().take() {
                waker.wake();
            }
        }
    }
}

pub struct Reactor {
    epoll: OwnedFd,
    ports: RefCell<Vec<Rc<Readiness>>>,
}

impl Reactor {
    pub fn start() -> io::Result<Rc<Self>> {
        let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if epoll < 0 {
            return Err(io::Error::last_os_error());
        }
        let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
        let watched = watch(epoll.try_clone()?, Interest::READABLE)?;
        let reactor = Rc::new(Self {
            epoll,
            ports: RefCell::default(),
        });
        tokio::task::spawn_local(reactor.clone().run(watched));
        Ok(reactor)
    }

    pub fn add(&self, fd: &impl AsRawFd) -> io::Result<Rc<Readiness>> {
        let mut ports = self.ports.borrow_mut();
        let events = (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLET) as u32;
        let mut event = libc::epoll_event {
            events,
            u64: ports.len() as u64,
        };
        let result = unsafe {
            libc::epoll_ctl(
                self.epoll.as_raw_fd(),
                libc::EPOLL_CTL_ADD,
                fd.as_raw_fd(),
                &mut event,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        let readiness = Rc::new(Readiness::default());
        readiness.wake();
        ports.push(readiness.clone());
        Ok(readiness)
    }

    async fn run(self: Rc<Self>, watched: AsyncFd<OwnedFd>) {
        let mut events: [libc::epoll_event; 32] = unsafe { std::mem::zeroed() };
        while let Ok(mut guard) = watched.readable().await {
            let count = unsafe {
                libc::epoll_wait(
                    self.epoll.as_raw_fd(),
                    events.as_mut_ptr(),
                    events.len() as i32,
                    0,
                )
            };
            if count <= 0 {
                guard.clear_ready();
                continue;
            }
            for event in &events[..count as usize] {
                let index = event.u64 as usize;
                let port = self.ports.borrow().get(index).cloned();
                port.inspect(|port| port.wake());
            }
        }
    }
}
