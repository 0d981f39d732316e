//! Making the guest quiet for a snapshot.

use std::fs;
use std::io;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::app::{App, Phase};
use crate::async_fd::AsyncFile;
use crate::cgroup;
use crate::checks::Check;
use crate::config::CommandLine;
use crate::free_pages;
use crate::init::network;
use crate::other_cpu;
use crate::process::{self, Launch, Streams};
use crate::wake::forget_name;

/// The kernel acts on a new link within a second (net/core/link_watch.c): twice that.
const LINK_LIMIT: Duration = Duration::from_secs(2);
const WARM_UP_TRIES: u32 = 3;
const WARM_UP_PAUSE: Duration = Duration::from_secs(1);

/// Runs the hooks, writes everything out, and freezes every process but this one.
pub async fn prepare(app: &App, limit: Duration) -> io::Result<()> {
    run_hooks(app, "preSnapshot", &app.config.hooks.pre_snapshot, limit).await?;
    app.set_phase(Phase::Prepared);
    cgroup::kill(&cgroup::group("checks"));
    link_settled().await;
    let quiet = async {
        forget_caches()?;
        warm_up(app).await?;
        cgroup::freeze_all().await?;
        forget_name()?;
        other_cpu::get_ready().await;
        unsafe { libc::sync() };
        free_pages::clear();
        Ok(())
    };
    quiet.await.inspect_err(|_: &io::Error| {
        let _ = cgroup::thaw_all();
        app.set_phase(Phase::Running);
    })
}

/// A guest that is healthy within a second of its boot has a link whose coming up the kernel has not told its network stack yet: it would
/// do so in every clone, while the clone has better things to do.
async fn link_settled() {
    let is = |what: &str, state: &str| {
        let path = format!("/sys/class/net/{}/{what}", network::ETHERNET);
        fs::read_to_string(path).is_ok_and(|text| text.trim() == state)
    };
    let settled = async {
        while is("carrier", "1") && is("operstate", "down") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let _ = timeout(LINK_LIMIT, settled).await;
}

/// What the page cache holds is on the disk too: a snapshot need not carry it. Names and inodes stay: they are small, and every clone
/// looks up the same ones.
fn forget_caches() -> io::Result<()> {
    unsafe { libc::sync() };
    fs::write("/proc/sys/vm/drop_caches", "1")
}

/// Runs every check once more, so that what it and its service read is in the snapshot's memory: every clone's first
/// check then finds it there. A check that no longer passes is the last chance to notice that a healthy guest is not healthy any more.
async fn warm_up(app: &App) -> io::Result<()> {
    for check in &app.checks {
        passes_again(app, check).await?;
    }
    Ok(())
}

/// What was read anew from the disk may have taken too long: a check has a few tries.
async fn passes_again(app: &App, check: &Check) -> io::Result<()> {
    let mut tries_left = WARM_UP_TRIES;
    loop {
        let outcome = check.run_once(app).await;
        tries_left -= 1;
        if outcome.passed() {
            return Ok(());
        }
        if tries_left == 0 {
            return Err(io::Error::other(format!(
                "the check '{}' passed, and fails now: {}",
                check.name,
                outcome.output.trim()
            )));
        }
        tokio::time::sleep(WARM_UP_PAUSE).await;
    }
}

/// Runs hooks as root, one after another. The first that fails ends it, with what it printed.
pub async fn run_hooks(
    app: &App,
    kind: &str,
    hooks: &[CommandLine],
    limit: Duration,
) -> io::Result<()> {
    for hook in hooks {
        let argv = hook.argv();
        timeout(limit, run_hook(app, &argv))
            .await
            .unwrap_or_else(|_| {
                Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "it did not end in time",
                ))
            })
            .map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("the {kind} hook {:?} failed: {error}", argv.last()),
                )
            })?;
    }
    Ok(())
}

async fn run_hook(app: &App, argv: &[String]) -> io::Result<()> {
    let account = app.accounts.user("root")?;
    let env = process::base_environment(&account, &app.role.borrow(), &app.env.borrow());
    let group = cgroup::group("hooks");
    let launch = Launch {
        argv,
        env,
        directory: "/",
        account: &account,
        cgroup: &group,
        streams: Streams::Output,
    };
    let running = process::spawn(&app.reaper, launch)?;
    let mut output = Vec::new();
    for fd in [running.stdout, running.stderr].into_iter().flatten() {
        AsyncFile::new(fd)?
            .take(64 * 1024)
            .read_to_end(&mut output)
            .await?;
    }
    match running.exit.await {
        Ok(exit) if exit.success() => Ok(()),
        Ok(exit) => Err(io::Error::other(format!(
            "{exit}: {}",
            String::from_utf8_lossy(&output).trim()
        ))),
        Err(_) => Err(io::Error::other("its end was missed")),
    }
}
