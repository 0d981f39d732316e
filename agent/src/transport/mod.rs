//! How the host reaches the agent: virtio-serial ports under QEMU, vsock under Firecracker. docs/agent-api.md, "The byte
//! stream", is what the handshake follows.

mod framing;
mod port;
mod reactor;
mod session;
mod vsock;

use std::fs;
use std::path::PathBuf;
use std::rc::Rc;

use crate::app::App;
use crate::console;

const PORTS: &str = "/sys/class/virtio-ports";
const PORT_PREFIX: &str = "mvm.agent.";

/// Serves every port of this machine, and vsock where there is one.
pub fn start(app: &Rc<App>) {
    let ports = find_ports();
    if !ports.is_empty() {
        match reactor::Reactor::start() {
            Ok(reactor) => ports.into_iter().for_each(|path| serve_port(app, &reactor, path)),
            Err(error) => console::say(&format!("agent ports: {error}")),
        }
    }
    vsock::start(app);
}

fn serve_port(app: &Rc<App>, reactor: &Rc<reactor::Reactor>, path: PathBuf) {
    match port::Port::open(&path, reactor) {
        Ok(port) => drop(tokio::task::spawn_local(session::serve_port(app.clone(), port))),
        Err(error) => console::say(&format!("{}: {error}", path.display())),
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
