//! What the agent says on the guest's console.

use std::io::Write;

/// Writes one line. A console that can't be written to is no reason to fail.
pub fn say(message: &str) {
    if let Ok(mut console) = std::fs::OpenOptions::new().write(true).open("/dev/console") {
        let _ = console.write_all(format!("mvm-agent: {message}\n").as_bytes());
    }
}
