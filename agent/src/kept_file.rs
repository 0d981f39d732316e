//! Files that are opened once, before a snapshot: to find one takes a restored, emulated guest one or two milliseconds.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::OnceLock;

/// The file behind `kept`, opened for writing by the first that asks.
pub fn keep_open(
    kept: &'static OnceLock<File>,
    path: impl FnOnce() -> PathBuf,
) -> io::Result<&'static File> {
    if let Some(file) = kept.get() {
        return Ok(file);
    }
    let file = File::options().write(true).open(path())?;
    Ok(kept.get_or_init(|| file))
}
