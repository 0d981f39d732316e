//! vsock, for hypervisors that have it (vsock(7)).

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;

use tokio::io::unix::AsyncFd;
use tokio::io::Interest;

use crate::api;
use crate::app::App;
use crate::async_fd::{set_nonblocking, watch, AsyncFile};

const PORT: u32 = 52;
const BACKLOG: i32 = 16;

/// Listens where the kernel has vsock; a machine without it has virtio-serial ports.
pub fn start(app: &Rc<App>) {
    if let Ok(listener) = listen() {
        tokio::task::spawn_local(accept_all(app.clone(), listener));
    }
}

fn listen() -> io::Result<AsyncFd<OwnedFd>> {
    let socket =
        check(unsafe { libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) })?;
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
    address.svm_cid = libc::VMADDR_CID_ANY;
    address.svm_port = PORT;
    let length = std::mem::size_of_val(&address) as libc::socklen_t;
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
    check(unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) })?;
    set_nonblocking(&socket)?;
    watch(socket, Interest::READABLE)
}

/// Connections have an end here, and Firecracker answers the greeting itself: each is HTTP/2 from its first byte.
async fn accept_all(app: Rc<App>, listener: AsyncFd<OwnedFd>) {
    while let Ok(mut guard) = listener.readable().await {
        let accepted = guard.try_io(|listener| {
            check(unsafe {
                libc::accept4(
                    listener.as_raw_fd(),
                    std::ptr::null_mut(),
                    std::ptr::null_mut(),
                    libc::SOCK_CLOEXEC,
                )
            })
        });
        if let Ok(Ok(fd)) = accepted {
            let connection = AsyncFile::new(unsafe { OwnedFd::from_raw_fd(fd) });
            if let Ok(connection) = connection {
                tokio::task::spawn_local(api::serve_connection(app.clone(), connection));
            }
        }
    }
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}
