//! Bringing the guest up: first in the initrd, then in its root.

mod modules;
mod mounts;
pub mod network;
mod root;

use std::fs;
use std::io;
use std::path::Path;

use crate::console;
use crate::kernel_command_line::KernelCommandLine;

/// From the kernel's hand-over to a guest with all its mounts and its network.
pub fn bring_up() -> io::Result<KernelCommandLine> {
    mounts::early()?;
    let command_line = KernelCommandLine::parse(&fs::read_to_string("/proc/cmdline")?);
    if Path::new(modules::LIST).exists() {
        modules::load_all()?;
        root::enter(&command_line)?;
    }
    mounts::late();
    network::bring_up(command_line.network.as_ref());
    Ok(command_line)
}

/// A guest that can't come up says why on its console and ends, so that nobody waits for it.
pub fn give_up(error: &io::Error) -> ! {
    console::say(&format!("the guest can't start: {error}"));
    crate::lifecycle::power_off(false)
}

/// An error with what was being done.
fn context(doing: String) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{doing}: {error}"))
}

/// Milliseconds since the kernel started.
pub fn uptime_ms() -> u64 {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds: f64 = text
        .split(' ')
        .next()
        .and_then(|field| field.parse().ok())
        .unwrap_or(0.0);
    (seconds * 1000.0) as u64
}
