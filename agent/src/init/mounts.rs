//! The guest's file systems.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::context;
use crate::console;

pub fn mount(
    source: &str,
    target: &Path,
    kind: &str,
    flags: libc::c_ulong,
    data: &str,
) -> io::Result<()> {
    let source_c = CString::new(source)?;
    let target_c = CString::new(target.as_os_str().as_bytes())?;
    let kind_c = CString::new(kind)?;
    let data_c = CString::new(data)?;
    let result = unsafe {
        libc::mount(
            source_c.as_ptr(),
            target_c.as_ptr(),
            kind_c.as_ptr(),
            flags,
            data_c.as_ptr().cast(),
        )
    };
    if result == 0 {
        return Ok(());
    }
    Err(context(format!("mount {source} at {}", target.display()))(
        io::Error::last_os_error(),
    ))
}

/// What everything else needs: the kernel may have mounted /dev already.
pub fn early() -> io::Result<()> {
    let safe = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    for (target, kind, flags) in [
        ("/proc", "proc", safe),
        ("/sys", "sysfs", safe),
        ("/dev", "devtmpfs", libc::MS_NOSUID),
    ] {
        fs::create_dir_all(target)?;
        match mount(kind, Path::new(target), kind, flags, "") {
            Err(error) if error.raw_os_error() != Some(libc::EBUSY) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// In the guest's own root. A mount that fails is said and lived without.
pub fn late() {
    let safe = libc::MS_NOSUID | libc::MS_NODEV;
    let all = [
        (
            "devpts",
            "/dev/pts",
            "devpts",
            libc::MS_NOSUID | libc::MS_NOEXEC,
            "mode=0620,ptmxmode=0666,gid=5",
        ),
        ("shm", "/dev/shm", "tmpfs", safe, "mode=1777"),
        ("run", "/run", "tmpfs", safe, "mode=0755"),
        ("tmp", "/tmp", "tmpfs", safe, "mode=1777"),
        (
            "cgroup2",
            "/sys/fs/cgroup",
            "cgroup2",
            safe | libc::MS_NOEXEC,
            "",
        ),
        ("config", "/mnt/config", "tmpfs", safe, "mode=0755"),
        (
            "secrets",
            "/mnt/secrets",
            "tmpfs",
            safe | libc::MS_NOEXEC,
            "mode=0750",
        ),
    ];
    for (source, target, kind, flags, data) in all {
        let target = Path::new(target);
        let result =
            fs::create_dir_all(target).and_then(|()| mount(source, target, kind, flags, data));
        if let Err(error) = result {
            console::say(&error.to_string());
        }
    }
    let _ = fs::create_dir_all("/run/lock");
    if let Err(error) = mount_data_disk() {
        console::say(&error.to_string());
    }
}

/// ext4's superblock lies 1024 bytes in; the label is 16 bytes at 120 in it (fs/ext4/ext4.h, s_volume_name).
const LABEL_OFFSET: u64 = 1024 + 120;
const DATA_LABEL: &[u8] = b"mvm-data";

fn mount_data_disk() -> io::Result<()> {
    let Some(device) = find_data_disk()? else {
        return Ok(());
    };
    let target = Path::new("/mnt/data");
    fs::create_dir_all(target)?;
    mount(
        &device.to_string_lossy(),
        target,
        "ext4",
        libc::MS_NOSUID | libc::MS_NODEV,
        "",
    )?;
    // Services that keep data make directories of their own in it.
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(target, fs::Permissions::from_mode(0o1777))
}

fn find_data_disk() -> io::Result<Option<PathBuf>> {
    for entry in fs::read_dir("/sys/block")? {
        let device = Path::new("/dev").join(entry?.file_name());
        if has_data_label(&device) {
            return Ok(Some(device));
        }
    }
    Ok(None)
}

fn has_data_label(device: &Path) -> bool {
    use std::os::unix::fs::FileExt;
    let mut label = [0; 16];
    fs::File::open(device)
        .and_then(|file| file.read_exact_at(&mut label, LABEL_OFFSET))
        .is_ok_and(|()| {
            label.starts_with(DATA_LABEL) && label[DATA_LABEL.len()..].iter().all(|byte| *byte == 0)
        })
}
