//! The kernel's announcements of devices (netlink(7), NETLINK_KOBJECT_UEVENT).

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use tokio::io::AsyncReadExt;

use crate::async_fd::AsyncFile;

/// The multicast group of the kernel itself; others are udev's.
const KERNEL_GROUP: u32 = 1;
/// An announcement is a list of short texts (UEVENT_BUFFER_SIZE in the kernel is 2048).
const MESSAGE_BYTES: usize = 8192;

pub struct Uevents(AsyncFile);

impl Uevents {
    pub fn listen() -> io::Result<Self> {
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
        let socket = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_KOBJECT_UEVENT) };
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        address.nl_groups = KERNEL_GROUP;
        let length = std::mem::size_of_val(&address) as libc::socklen_t;
        if unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self(AsyncFile::new(socket)?))
    }

    /// Waits until something about a device of this subsystem has changed.
    pub async fn next(&mut self, subsystem: &str) -> io::Result<()> {
        let wanted = format!("SUBSYSTEM={subsystem}");
        let mut message = vec![0; MESSAGE_BYTES];
        loop {
            let length = self.0.read(&mut message).await?;
            if message[..length]
                .split(|byte| *byte == 0)
                .any(|text| text == wanted.as_bytes())
            {
                return Ok(());
            }
        }
    }
}
