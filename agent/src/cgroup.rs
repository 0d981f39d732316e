//! Control groups (v2): everything that services, checks and commands start can be frozen, thawed and killed as one.
//! The kernel's Documentation/admin-guide/cgroup-v2.rst describes the files.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::kept_file::keep_open;

const TOP: &str = "/sys/fs/cgroup/mvm";
const FREEZE_TIMEOUT: Duration = Duration::from_secs(5);

/// A group, made if it is not there: `services/web`.
pub fn group(name: &str) -> PathBuf {
    let path = Path::new(TOP).join(name);
    let _ = fs::create_dir_all(&path);
    path
}

/// Process ids in a group and those below it.
pub fn processes(group: &Path) -> Vec<i32> {
    let own = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<i32> = own.lines().filter_map(|line| line.parse().ok()).collect();
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            pids.extend(processes(&entry.path()));
        }
    }
    pids
}

pub fn signal_all(group: &Path, signal: i32) {
    for pid in processes(group) {
        unsafe { libc::kill(pid, signal) };
    }
}

/// Kills all at once; nothing can fork its way out.
pub fn kill(group: &Path) {
    if fs::write(group.join("cgroup.kill"), "1").is_err() {
        signal_all(group, libc::SIGKILL);
    }
}

/// Stops every process of the guest but the agent, and returns when none runs any more.
pub async fn freeze_all() -> io::Result<()> {
    freezer()?.write_all(b"1")?;
    let deadline = Instant::now() + FREEZE_TIMEOUT;
    while !fs::read_to_string(Path::new(TOP).join("cgroup.events"))?.contains("frozen 1") {
        if Instant::now() > deadline {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the services could not be frozen in time",
            ));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

pub fn thaw_all() -> io::Result<()> {
    freezer()?.write_all(b"0")
}

/// What freezes and thaws the topmost group.
fn freezer() -> io::Result<&'static File> {
    static FREEZER: OnceLock<File> = OnceLock::new();
    keep_open(&FREEZER, || group("").join("cgroup.freeze"))
}
