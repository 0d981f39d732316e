//! A virtio-serial port as an asynchronous stream (drivers/char/virtio_console.c in the kernel).

use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::reactor::{Reactor, Readiness};
use crate::async_fd;

pub struct Port {
    fd: OwnedFd,
    readiness: Rc<Readiness>,
}

impl Port {
    pub fn open(path: &Path, reactor: &Reactor) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)?;
        let fd = OwnedFd::from(file);
        let readiness = reactor.add(&fd)?;
        Ok(Self { fd, readiness })
    }
}

impl AsyncRead for Port {
    /// Reads nothing, as at an end, whenever the host's side was found disconnected; the next read waits for a change.
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.readiness.readable.get() {
            *self.readiness.reader.borrow_mut() = Some(context.waker().clone());
            return Poll::Pending;
        }
        match async_fd::read(&self.fd, buffer.initialize_unfilled()) {
            Ok(count) => {
                if count == 0 {
                    self.readiness.readable.set(false);
                }
                buffer.advance(count);
                Poll::Ready(Ok(()))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readiness.readable.set(false);
                *self.readiness.reader.borrow_mut() = Some(context.waker().clone());
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl AsyncWrite for Port {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.readiness.writable.get() {
            match async_fd::write(&self.fd, data) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readiness.writable.set(false)
                }
                result => return Poll::Ready(result),
            }
        }
        *self.readiness.writer.borrow_mut() = Some(context.waker().clone());
        Poll::Pending
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
