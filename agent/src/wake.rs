//! Telling a guest who it is: after a boot, and after a restore, when it is one of many with the same memory.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::Duration;

use base64::prelude::{Engine, BASE64_STANDARD};
use serde::Deserialize;

use crate::api::put_archive;
use crate::app::{App, Phase};
use crate::cgroup;
use crate::console;
use crate::init::network;
use crate::kept_file::keep_open;
use crate::kernel_command_line::{parse_address, Network};
use crate::lifecycle;
use crate::other_cpu;
use crate::prepare::run_hooks;
use crate::services::Service;

const HOOK_LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Wake {
    hostname: Option<String>,
    machine_id: Option<String>,
    entropy: Option<String>,
    time_ns: Option<String>,
    role: Option<String>,
    env: BTreeMap<String, String>,
    network: Option<NetworkChange>,
    volumes: Vec<Volume>,
}

/// Files that are there when services run on.
#[derive(Debug, Deserialize)]
struct Volume {
    path: String,
    /// An archive in base64.
    tar: String,
}

#[derive(Debug, Deserialize)]
struct NetworkChange {
    mac: Option<String>,
    address: Option<String>,
    gateway: Option<String>,
    #[serde(default)]
    dns: Vec<String>,
}

/// A guest that knows who it is.
pub struct Awake {
    pub generation: u64,
    /// Services wait for the answer to be written: starting processes would keep it waiting.
    resumes_later: bool,
}

impl Awake {
    /// Lets services run on, once the answer is on its way.
    pub async fn resume(self, app: &Rc<App>) {
        if !self.resumes_later {
            return;
        }
        if let Err(error) = resume(app).await {
            console::say(&format!("services can't run on: {error}"));
        }
    }
}

/// Where hooks can fail, and the host should hear of it, services run on before this returns.
pub async fn wake_up(app: &Rc<App>, request: Wake) -> io::Result<Awake> {
    let generation = become_another(app, request).await?;
    let resumes_later = app.config.hooks.post_restore.is_empty();
    if !resumes_later {
        resume(app).await?;
    }
    Ok(Awake {
        generation,
        resumes_later,
    })
}

/// Sets whatever must differ between two clones, and returns the new generation. No service runs on before `resume`.
async fn become_another(app: &Rc<App>, mut wake: Wake) -> io::Result<u64> {
    let network = wake.network.take();
    let network = network.map(|change| other_cpu::run(move || change_network(&change)));
    connect_early(app, &wake);
    for Volume { path, tar } in &wake.volumes {
        put_archive(app, path, &decode(tar)?)?;
    }
    if let Some(entropy) = &wake.entropy {
        add_entropy(&decode(entropy)?)?;
    }
    if let Some(time) = &wake.time_ns {
        set_clock(time.parse().map_err(io::Error::other)?)?;
    }
    set_identity(&wake)?;
    if let Some(change) = network {
        if let Err(error) = change.end().await? {
            console::say(&format!("network: {error}"));
        }
    }
    if let Some(role) = wake.role {
        *app.role.borrow_mut() = role;
    }
    *app.env.borrow_mut() = wake.env;
    for check in &app.checks {
        check.forget();
    }
    app.generation.set(app.generation.get() + 1);
    Ok(app.generation.get())
}

/// Lets checks connect meanwhile to services that were captured, if these run on soon, and as they are.
fn connect_early(app: &App, wake: &Wake) {
    let starts_anew = |service: &Rc<Service>| service.must_restart(true, &wake.env);
    let meanwhile = other_cpu::is_there();
    let restored = app.phase.get() == Phase::Prepared;
    let soon = app.config.hooks.post_restore.is_empty();
    if meanwhile && restored && soon && !app.services.iter().any(starts_anew) {
        app.checks.iter().for_each(|check| check.connect_early());
    }
}

/// After a boot: starts services. After a restore (or a second `wake`): lets them run on, and restarts those that must not.
async fn resume(app: &Rc<App>) -> io::Result<()> {
    if app.phase.get() == Phase::Held {
        lifecycle::start_services(app);
        return Ok(());
    }
    let restored = app.phase.get() == Phase::Prepared;
    cgroup::thaw_all()?;
    if restored {
        run_hooks(
            app,
            "postRestore",
            &app.config.hooks.post_restore,
            HOOK_LIMIT,
        )
        .await?;
    }
    app.set_phase(Phase::Running);
    for check in &app.checks {
        check.run_now();
    }
    let env = app.env.borrow().clone();
    for service in &app.services {
        if service.must_restart(restored, &env) {
            let (service, app) = (service.clone(), app.clone());
            service.mark_restarting(&app);
            tokio::task::spawn_local(async move { service.restart(&app).await });
        }
    }
    Ok(())
}

fn decode(base64: &str) -> io::Result<Vec<u8>> {
    BASE64_STANDARD.decode(base64).map_err(io::Error::other)
}

/// RNDADDENTROPY and RNDRESEEDCRNG of random(4): credits the bytes, and makes the generator use them now.
fn add_entropy(bytes: &[u8]) -> io::Result<()> {
    const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;
    const RNDRESEEDCRNG: libc::c_ulong = 0x5207;
    let mut request = Vec::with_capacity(8 + bytes.len());
    request.extend_from_slice(&(bytes.len() as i32 * 8).to_ne_bytes());
    request.extend_from_slice(&(bytes.len() as i32).to_ne_bytes());
    request.extend_from_slice(bytes);
    let random = random_device()?;
    for (call, argument) in [
        (RNDADDENTROPY, request.as_ptr()),
        (RNDRESEEDCRNG, std::ptr::null()),
    ] {
        if unsafe { libc::ioctl(random.as_raw_fd(), call as _, argument) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

fn random_device() -> io::Result<&'static File> {
    static DEVICE: OnceLock<File> = OnceLock::new();
    keep_open(&DEVICE, || "/dev/urandom".into())
}

/// Nanoseconds since 1970.
fn set_clock(time_ns: i64) -> io::Result<()> {
    let time = libc::timespec {
        tv_sec: time_ns / 1_000_000_000,
        tv_nsec: time_ns % 1_000_000_000,
    };
    if unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn set_identity(wake: &Wake) -> io::Result<()> {
    if let Some(id) = &wake.machine_id {
        rewrite("/etc/machine-id", &format!("{id}\n"))?;
    }
    let Some(name) = &wake.hostname else {
        return Ok(());
    };
    set_hostname(name)?;
    name_files(name)
}

fn name_files(name: &str) -> io::Result<()> {
    rewrite("/etc/hostname", &format!("{name}\n"))?;
    rewrite(
        "/etc/hosts",
        &format!("127.0.0.1 localhost {name}\n::1 localhost {name}\n"),
    )
}

/// For a guest whose next wake gives it another name: no file has to be shortened then, which takes an emulated guest 3 ms.
pub fn forget_name() -> io::Result<()> {
    name_files("")
}

/// Writes over what is there, and cuts off the rest, if there is any: to empty the file first takes an emulated guest 4 ms.
fn rewrite(path: &str, text: &str) -> io::Result<()> {
    let mut file = File::options()
        .write(true)
        .open(path)
        .or_else(|_| File::create(path))?;
    let before = file.seek(SeekFrom::End(0))?;
    file.write_all_at(text.as_bytes(), 0)?;
    if before > text.len() as u64 {
        file.set_len(text.len() as u64)?;
    }
    Ok(())
}

pub fn set_hostname(name: &str) -> io::Result<()> {
    let text = CString::new(name)?;
    if unsafe { libc::sethostname(text.as_ptr(), name.len()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn change_network(change: &NetworkChange) -> io::Result<()> {
    if let Some(mac) = &change.mac {
        let mac = network::parse_mac(mac)
            .ok_or_else(|| io::Error::other(format!("'{mac}' is no hardware address")))?;
        network::set_mac(mac)?;
    }
    let Some((address, prefix)) = change.address.as_deref().and_then(parse_address) else {
        return Ok(());
    };
    network::configure(&Network {
        address,
        prefix,
        gateway: change.gateway.as_ref().and_then(|text| text.parse().ok()),
        dns: change.dns.first().and_then(|text| text.parse().ok()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn of_a_longer_text_nothing_is_left() {
        let path = std::env::temp_dir().join(format!("mvm-rewrite-{}", std::process::id()));
        let path = path.to_str().unwrap();
        for text in ["a longer name\n", "short\n", "again longer\n"] {
            rewrite(path, text).unwrap();
            assert_eq!(fs::read_to_string(path).unwrap(), text);
        }
        fs::remove_file(path).unwrap();
    }
}
