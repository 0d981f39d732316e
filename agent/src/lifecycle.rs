//! Starting all services, and the end of the guest.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use tokio::signal::unix::{signal, SignalKind};
use tokio::time::timeout;

use crate::app::{App, Phase};
use crate::cgroup;
use crate::console;

/// Starts every service and every check.
pub fn start_services(app: &Rc<App>) {
    app.set_phase(Phase::Running);
    for service in &app.services {
        service.start(app);
    }
    for check in &app.checks {
        tokio::task::spawn_local(check.clone().keep_running(app.clone()));
    }
}

/// What busybox's reboot, halt and poweroff send to process 1 (init/halt.c). The kernel drops those that it does not catch.
const ENDINGS: [fn() -> SignalKind; 3] = [
    SignalKind::terminate,
    SignalKind::user_defined1,
    SignalKind::user_defined2,
];
/// For services to stop, where nobody outside says how long they have.
const OWN_LIMIT: Duration = Duration::from_secs(10);

/// Shuts down when somebody in the guest asks for it.
pub fn end_when_told(app: &Rc<App>) {
    for ending in ENDINGS {
        let mut told = signal(ending()).expect("these can be caught");
        let app = app.clone();
        tokio::task::spawn_local(async move {
            if told.recv().await.is_some() {
                shut_down(app, OWN_LIMIT).await;
            }
        });
    }
}

/// Longest that the guest stays after its services ended for what they said last to be read.
const FAREWELL: Duration = Duration::from_secs(1);

/// Stops services within the time, lets clients hear them out, writes everything to disk, and powers off.
pub async fn shut_down(app: Rc<App>, limit: Duration) {
    app.set_phase(Phase::Stopping);
    let _ = cgroup::thaw_all();
    let stops: Vec<_> = app
        .services
        .iter()
        .map(|service| {
            let service = service.clone();
            tokio::task::spawn_local(async move { service.stop().await })
        })
        .collect();
    let all = async {
        for stop in stops {
            let _ = stop.await;
        }
    };
    if timeout(limit, all).await.is_err() {
        console::say("some services did not stop in time");
    }
    cgroup::kill(&cgroup::group(""));
    let _ = timeout(FAREWELL, say_farewell(&app)).await;
    unmount_data();
    power_off(app.command_line.reboot_by_keyboard)
}

/// Until the last line of every service is with who follows the logs, and the clients have hung up.
async fn say_farewell(app: &App) {
    app.logs.sources.until_none().await;
    app.logs.close();
    app.connections.until_none().await;
}

fn unmount_data() {
    unsafe {
        libc::sync();
        libc::umount2(c"/mnt/data".as_ptr(), 0);
    }
}

/// With ACPI the machine can be switched off. Without it, a microVM's monitor ends the VM when the guest reboots.
pub fn power_off(reboot_by_keyboard: bool) -> ! {
    let has_acpi = Path::new("/sys/firmware/acpi").exists();
    let how = if has_acpi && !reboot_by_keyboard {
        libc::RB_POWER_OFF
    } else {
        libc::RB_AUTOBOOT
    };
    unsafe {
        libc::sync();
        libc::reboot(how);
    }
    loop {
        std::thread::park();
    }
}
