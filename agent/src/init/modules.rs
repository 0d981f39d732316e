//! Kernel modules of the initrd.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;

use super::context;
use crate::console;

/// Paths of modules, one a line, each after those it needs.
pub const LIST: &str = "/modules.list";

pub fn load_all() -> io::Result<()> {
    for path in fs::read_to_string(LIST)
        .map_err(context(format!("read {LIST}")))?
        .lines()
    {
        if let Err(error) = load(path) {
            console::say(&format!("module {path}: {error}"));
        }
    }
    Ok(())
}

/// A module that the kernel has already is fine.
fn load(path: &str) -> io::Result<()> {
    let file = File::open(path)?;
    let parameters = CString::default();
    let result = unsafe {
        libc::syscall(
            libc::SYS_finit_module,
            file.as_raw_fd(),
            parameters.as_ptr(),
            0,
        )
    };
    match io::Error::last_os_error() {
        _ if result == 0 => Ok(()),
        error if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        error => Err(error),
    }
}
