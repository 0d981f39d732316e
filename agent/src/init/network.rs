//! Network interfaces by ioctl(2): no program of the image is needed. netdevice(7) describes the calls.

use std::fs;
use std::io;
use std::mem;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::OnceLock;

use crate::console;
use crate::kernel_command_line::Network;

pub const ETHERNET: &str = "eth0";

/// Brings up `lo`, and `eth0` with the given addresses.
pub fn bring_up(network: Option<&Network>) {
    let result = set_up("lo").and_then(|()| network.map_or(Ok(()), configure));
    if let Err(error) = result {
        console::say(&format!("network: {error}"));
    }
}

/// Gives `eth0` its address, the default route and the name server.
pub fn configure(network: &Network) -> io::Result<()> {
    let mask = u32::MAX
        .checked_shl(32 - u32::from(network.prefix))
        .unwrap_or(0);
    request(ETHERNET, libc::SIOCSIFADDR, |ifr| {
        ifr.ifr_ifru.ifru_addr = socket_address(network.address)
    })?;
    request(ETHERNET, libc::SIOCSIFNETMASK, |ifr| {
        ifr.ifr_ifru.ifru_netmask = socket_address(Ipv4Addr::from(mask))
    })?;
    announce_changes()?;
    without_ipv6();
    set_up(ETHERNET)?;
    if let Some(gateway) = network.gateway {
        add_default_route(gateway)?;
    }
    if let Some(dns) = network.dns {
        fs::write("/etc/resolv.conf", format!("nameserver {dns}\n"))?;
    }
    Ok(())
}

/// `52:54:00:12:34:56`.
pub fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Vec<u8> = text
        .split(':')
        .map(|part| u8::from_str_radix(part, 16))
        .collect::<Result<_, _>>()
        .ok()?;
    bytes.try_into().ok()
}

/// Changes the hardware address. virtio-net takes that while the interface is up, and addresses and routes stay.
pub fn set_mac(mac: [u8; 6]) -> io::Result<()> {
    request(ETHERNET, libc::SIOCSIFHWADDR, |ifr| {
        let mut address: libc::sockaddr = unsafe { mem::zeroed() };
        address.sa_family = libc::ARPHRD_ETHER;
        for (target, byte) in address.sa_data.iter_mut().zip(mac) {
            *target = byte as libc::c_char;
        }
        ifr.ifr_ifru.ifru_hwaddr = address;
    })
}

/// The neighbours must hear of a new hardware address: whoever remembers the old one would send into the void for over a minute.
/// With arp_notify the kernel tells them (ip-sysctl.rst). Set at the boot, so that no restored guest has to.
fn announce_changes() -> io::Result<()> {
    fs::write(
        format!("/proc/sys/net/ipv4/conf/{ETHERNET}/arp_notify"),
        "1",
    )
}

/// No VM's network has IPv6 (docs/support.md). The kernel would look for its routers for seconds, and a guest that was captured then
/// goes on with that in each of its clones.
fn without_ipv6() {
    let _ = fs::write(
        format!("/proc/sys/net/ipv6/conf/{ETHERNET}/disable_ipv6"),
        "1",
    );
}

fn set_up(interface: &str) -> io::Result<()> {
    request(interface, libc::SIOCSIFFLAGS, |ifr| {
        ifr.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    })
}

fn add_default_route(gateway: Ipv4Addr) -> io::Result<()> {
    let mut route: libc::rtentry = unsafe { mem::zeroed() };
    route.rt_dst = socket_address(Ipv4Addr::UNSPECIFIED);
    route.rt_genmask = socket_address(Ipv4Addr::UNSPECIFIED);
    route.rt_gateway = socket_address(gateway);
    route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
    match control(libc::SIOCADDRT, &mut route) {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        result => result,
    }
}

fn request(
    interface: &str,
    call: libc::c_ulong,
    fill: impl FnOnce(&mut libc::ifreq),
) -> io::Result<()> {
    let mut ifr: libc::ifreq = unsafe { mem::zeroed() };
    for (target, byte) in ifr.ifr_name.iter_mut().zip(interface.bytes()) {
        *target = byte as libc::c_char;
    }
    fill(&mut ifr);
    control(call, &mut ifr)
        .map_err(|error| io::Error::new(error.kind(), format!("{interface}: {error}")))
}

fn control<T>(call: libc::c_ulong, argument: &mut T) -> io::Result<()> {
    let socket = control_socket()?;
    if unsafe { libc::ioctl(socket.as_raw_fd(), call as _, argument as *mut T) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Opened at the boot and kept: to open and close one takes a restored, emulated guest as long as what it is for.
fn control_socket() -> io::Result<&'static OwnedFd> {
    static SOCKET: OnceLock<OwnedFd> = OnceLock::new();
    if let Some(socket) = SOCKET.get() {
        return Ok(socket);
    }
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(SOCKET.get_or_init(|| unsafe { OwnedFd::from_raw_fd(socket) }))
}

fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    let mut inet: libc::sockaddr_in = unsafe { mem::zeroed() };
    inet.sin_family = libc::AF_INET as libc::sa_family_t;
    inet.sin_addr.s_addr = u32::from(address).to_be();
    // Both are the kernel's view of the same 16 bytes.
    unsafe { mem::transmute(inet) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses_have_six_bytes() {
        assert_eq!(
            parse_mac("52:54:00:0a:ff:01"),
            Some([0x52, 0x54, 0, 10, 255, 1])
        );
        assert_eq!(parse_mac("52:54:00"), None);
        assert_eq!(parse_mac("52:54:00:0a:ff:zz"), None);
    }
}
