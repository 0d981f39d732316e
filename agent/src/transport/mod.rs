//! How the host reaches the agent: virtio-serial ports under QEMU, vsock under Firecracker. docs/agent-api.md, "The byte
//! stream", is what the handshake follows.

mod framing;
mod port;
mod reactor;
mod session;
mod uevents;
mod vsock;

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use crate::app::App;
use crate::console;

const PORTS: &str = "/sys/class/virtio-ports";
const SUBSYSTEM: &str = "virtio-ports";
const PORT_PREFIX: &str = "mvm.agent.";

/// Serves every port of this machine, and vsock where there is one.
pub fn start(app: &Rc<App>) {
    tokio::task::spawn_local(serve_ports(app.clone()));
    vsock::start(app);
}

/// Ports come one by one, and get their names a moment after their devices: each announcement is a reason to look again.
async fn serve_ports(app: Rc<App>) {
    if let Err(error) = find_and_serve(&app).await {
        console::say(&format!("agent ports: {error}"));
    }
}

async fn find_and_serve(app: &Rc<App>) -> io::Result<()> {
    let mut uevents = uevents::Uevents::listen()?;
    let reactor = reactor::Reactor::start()?;
    let mut served = HashSet::new();
    loop {
        for path in find_ports()
            .into_iter()
            .filter(|path| !served.contains(path))
            .collect::<Vec<_>>()
        {
            // A device whose node is not there yet is announced again.
            if let Ok(port) = port::Port::open(&path, &reactor) {
                served.insert(path);
                tokio::task::spawn_local(session::serve_port(app.clone(), port));
            }
        }
        uevents.next(SUBSYSTEM).await?;
    }
}

/// Devices of the ports with our names: without udev, the kernel's own names are in /dev.
fn find_ports() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(PORTS).into_iter().flatten().flatten() {
        let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if name.trim().starts_with(PORT_PREFIX) {
            found.push(PathBuf::from("/dev").join(entry.file_name()));
        }
    }
    found
}
