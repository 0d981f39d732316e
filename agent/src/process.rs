//! Starting programs in the guest: as the right user, in the right control group.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use tokio::sync::oneshot;

use crate::accounts::Account;
use crate::reaper::{Exit, Reaper};

pub const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/run/current-system/sw/bin";

/// How the error of a program that is not there begins.
pub const NO_PROGRAM: &str = "there is no program";

pub struct Launch<'a> {
    pub argv: &'a [String],
    pub env: BTreeMap<String, String>,
    pub directory: &'a str,
    pub account: &'a Account,
    pub cgroup: &'a Path,
    pub streams: Streams,
}

/// Where a program's standard streams lead.
pub enum Streams {
    /// Nothing to read; what it writes comes through pipes.
    Output,
    /// Pipes for all three.
    All,
    /// This terminal is its own, and the session's.
    Terminal(OwnedFd),
}

pub struct Running {
    pub pid: i32,
    pub exit: oneshot::Receiver<Exit>,
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
}

/// The environment of whatever the agent starts, before what is particular to it.
pub fn base_environment(
    account: &Account,
    role: &str,
    run: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut env = BTreeMap::from([
        ("PATH".to_string(), DEFAULT_PATH.to_string()),
        ("HOME".to_string(), account.home.clone()),
        ("USER".to_string(), account.name.clone()),
        ("MVM_ROLE".to_string(), role.to_string()),
    ]);
    env.extend(run.clone());
    env
}

/// Starts a program in a session of its own. A program that can't be executed is an error here.
pub fn spawn(reaper: &Reaper, launch: Launch<'_>) -> io::Result<Running> {
    let program = launch
        .argv
        .first()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the command is empty"))?;
    let program = find_program(
        program,
        launch.env.get("PATH").map_or(DEFAULT_PATH, String::as_str),
    )?;
    let mut command = Command::new(program);
    command
        .arg0(&launch.argv[0])
        .args(&launch.argv[1..])
        .env_clear()
        .envs(&launch.env)
        .current_dir(launch.directory);
    let is_terminal = matches!(launch.streams, Streams::Terminal(_));
    match &launch.streams {
        Streams::Output => command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped()),
        Streams::All => command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped()),
        Streams::Terminal(terminal) => command
            .stdin(terminal.try_clone()?)
            .stdout(terminal.try_clone()?)
            .stderr(terminal.try_clone()?),
    };
    let procs = OpenOptions::new()
        .write(true)
        .open(launch.cgroup.join("cgroup.procs"))?;
    let Account {
        uid, gid, groups, ..
    } = launch.account.clone();
    // Between fork and exec: system calls only, nothing that allocates.
    unsafe {
        command.pre_exec(move || {
            check(libc::write(procs.as_raw_fd(), b"0".as_ptr().cast(), 1) as i32)?;
            libc::setsid();
            if is_terminal {
                check(libc::ioctl(0, libc::TIOCSCTTY, 0))?;
            }
            if uid != 0 && !is_terminal {
                // So that it can open /dev/stdout and /dev/stderr, which are these pipes.
                libc::fchown(1, uid, gid);
                libc::fchown(2, uid, gid);
            }
            check(libc::setgroups(groups.len(), groups.as_ptr()))?;
            check(libc::setgid(gid))?;
            check(libc::setuid(uid))
        });
    }
    let mut child = command.spawn()?;
    let pid = child.id() as i32;
    Ok(Running {
        pid,
        exit: reaper.expect(pid),
        stdin: child.stdin.take().map(OwnedFd::from),
        stdout: child.stdout.take().map(OwnedFd::from),
        stderr: child.stderr.take().map(OwnedFd::from),
    })
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Looked up here, in the guest's PATH: the agent's own environment has none.
fn find_program(name: &str, path: &str) -> io::Result<String> {
    if name.contains('/') {
        return match Path::new(name).exists() {
            true => Ok(name.into()),
            false => Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("{NO_PROGRAM} '{name}'"),
            )),
        };
    }
    path.split(':')
        .map(|directory| format!("{directory}/{name}"))
        .find(|candidate| Path::new(candidate).is_file())
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("there is no program '{name}'"),
            )
        })
}
