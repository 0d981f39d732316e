//! From the initrd into the guest's root: the image read-only, a tmpfs above it for what is written.

use std::ffi::CString;
use std::fs;
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::context;
use super::mounts::mount;
use crate::kernel_command_line::KernelCommandLine;

const DEVICE_TIMEOUT: Duration = Duration::from_secs(10);
/// Below the overlay, where the image and the tmpfs stay reachable for whoever looks into the mount table.
const LOWER: &str = "/mvm/image";
const UPPER: &str = "/mvm/writes";
const NEW_ROOT: &str = "/mvm/root";

pub fn enter(command_line: &KernelCommandLine) -> io::Result<()> {
    let device = Path::new(&command_line.root);
    wait_for(device)?;
    for directory in [LOWER, UPPER, NEW_ROOT] {
        fs::create_dir_all(directory)?;
    }
    mount(
        &command_line.root,
        Path::new(LOWER),
        &command_line.root_type,
        libc::MS_RDONLY,
        "",
    )?;
    mount("writes", Path::new(UPPER), "tmpfs", 0, "mode=0755,size=75%")?;
    for directory in ["upper", "work"] {
        fs::create_dir(Path::new(UPPER).join(directory))?;
    }
    let layers = format!("lowerdir={LOWER},upperdir={UPPER}/upper,workdir={UPPER}/work");
    mount("root", Path::new(NEW_ROOT), "overlay", 0, &layers)?;
    for directory in ["/dev", "/sys", "/proc"] {
        let target = Path::new(NEW_ROOT).join(&directory[1..]);
        fs::create_dir_all(&target)?;
        mount(directory, &target, "", libc::MS_MOVE, "")?;
    }
    free_initrd();
    switch(NEW_ROOT)
}

fn wait_for(device: &Path) -> io::Result<()> {
    let deadline = Instant::now() + DEVICE_TIMEOUT;
    while !device.exists() {
        if Instant::now() > deadline {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("there is no root device {}", device.display()),
            ));
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// The initrd's files would take memory for the guest's whole life. This program's own stays while it runs.
fn free_initrd() {
    for path in ["/lib", "/modules", "/modules.list", "/init"] {
        let path = Path::new(path);
        let _ = if path.is_dir() {
            fs::remove_dir_all(path)
        } else {
            fs::remove_file(path)
        };
    }
}

/// As switch_root(8) does it: the new root is moved over the old one.
fn switch(root: &str) -> io::Result<()> {
    std::env::set_current_dir(root)?;
    mount(".", Path::new("/"), "", libc::MS_MOVE, "")?;
    let here = CString::new(".")?;
    if unsafe { libc::chroot(here.as_ptr()) } != 0 {
        return Err(context("enter the new root".into())(
            io::Error::last_os_error(),
        ));
    }
    std::env::set_current_dir("/")
}
