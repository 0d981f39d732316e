//! Archives into the guest: nothing leaves its directory, and a file is replaced whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{chown, lchown, symlink, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use tar::{Archive, Entry, EntryType};

use super::absolute;
use crate::api::query::Query;
use crate::api::reply::ApiError;
use crate::app::App;

const CONFIG: &str = "/mnt/config";
const SECRETS: &str = "/mnt/secrets";

#[derive(Default)]
pub struct Counts {
    pub files: u64,
    pub bytes: u64,
}

/// Where an archive goes, and whose its files become.
pub struct Target {
    directory: PathBuf,
    directory_mode: u32,
    replace: bool,
    owner: Option<u32>,
    group: Option<u32>,
    /// The mode of files and directories, where the place decides it and not the archive.
    file_mode: Option<u32>,
    inner_mode: Option<u32>,
}

impl Target {
    pub fn from_query(app: &App, query: &Query) -> Result<Self, ApiError> {
        let directory = absolute(query)?;
        let is_secret = directory.starts_with(SECRETS);
        let is_config = directory.starts_with(CONFIG);
        let owner = query
            .text("owner")
            .map(|name| app.accounts.user(name))
            .transpose()?;
        let group = match query.text("group") {
            Some(name) => Some(app.accounts.group(name)?),
            None if is_secret => app.accounts.group(&app.config.service_group).ok(),
            None => owner.as_ref().map(|account| account.gid),
        };
        let mode = query
            .text("mode")
            .and_then(|text| u32::from_str_radix(text, 8).ok());
        Ok(Self {
            directory,
            directory_mode: mode.unwrap_or(if is_secret { 0o750 } else { 0o755 }),
            replace: query.flag("replace"),
            owner: owner.map(|account| account.uid).or(is_secret.then_some(0)),
            group,
            file_mode: if is_secret {
                Some(0o440)
            } else if is_config {
                Some(0o444)
            } else {
                None
            },
            inner_mode: if is_secret { Some(0o750) } else { None },
        })
    }

    pub fn unpack(&self, source: impl Read) -> io::Result<Counts> {
        self.make_directory()?;
        let mut counts = Counts::default();
        let mut archive = Archive::new(source);
        for entry in archive.entries()? {
            let mut entry = entry?;
            let path = entry.path()?.into_owned();
            let inside = relative(&path).ok_or_else(|| unsafe_name(&path))?;
            if inside.as_os_str().is_empty() {
                continue;
            }
            self.refuse_links(&inside)?;
            counts.bytes += self.place(&mut entry, &self.directory.join(&inside))?;
            counts.files += 1;
        }
        Ok(counts)
    }

    fn make_directory(&self) -> io::Result<()> {
        if !self.directory.exists() {
            fs::create_dir_all(&self.directory)?;
            fs::set_permissions(
                &self.directory,
                fs::Permissions::from_mode(self.directory_mode),
            )?;
        } else if self.replace {
            for entry in fs::read_dir(&self.directory)? {
                remove(&entry?.path())?;
            }
        }
        if self.owner.is_some() || self.group.is_some() {
            chown(&self.directory, self.owner, self.group)?;
        }
        Ok(())
    }

    /// No part of the way to an entry may be a link: it could lead out of the directory.
    fn refuse_links(&self, inside: &Path) -> io::Result<()> {
        let mut at = self.directory.clone();
        for part in inside.parent().into_iter().flat_map(Path::components) {
            at.push(part);
            match fs::symlink_metadata(&at) {
                Ok(found) if found.is_symlink() => return Err(unsafe_name(inside)),
                Ok(_) => {}
                Err(_) => {
                    fs::create_dir(&at)?;
                    self.finish(&at, self.inner_mode.unwrap_or(0o755))?;
                }
            }
        }
        Ok(())
    }

    /// Returns the bytes of a file's content.
    fn place(&self, entry: &mut Entry<'_, impl Read>, path: &Path) -> io::Result<u64> {
        let mode = entry.header().mode().unwrap_or(0o644) & 0o7777;
        match entry.header().entry_type() {
            EntryType::Directory => {
                make_room_for_directory(path)?;
                self.finish(path, self.inner_mode.unwrap_or(mode))?;
                Ok(0)
            }
            EntryType::Symlink => {
                let target = entry.link_name()?.ok_or_else(|| unsafe_name(path))?;
                refuse_directory(path)?;
                remove(path)?;
                symlink(target, path)?;
                lchown(path, self.owner, self.group)?;
                Ok(0)
            }
            EntryType::Regular | EntryType::Continuous => {
                self.place_file(entry, path, self.file_mode.unwrap_or(mode))
            }
            other => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{}: {other:?} is no file", path.display()),
            )),
        }
    }

    /// Written beside its place, with nobody's access, and renamed when it is whole: a cut connection leaves the old file.
    fn place_file(
        &self,
        entry: &mut Entry<'_, impl Read>,
        path: &Path,
        mode: u32,
    ) -> io::Result<u64> {
        refuse_directory(path)?;
        let size = entry.size();
        let modified = entry.header().mtime().unwrap_or(0);
        let unfinished = path.with_file_name(format!(".mvm-copy-{}", std::process::id()));
        remove(&unfinished)?;
        let written = (|| {
            let mut file: File = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&unfinished)?;
            let bytes = io::copy(entry, &mut file)?;
            if bytes != size {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("{} came only in part", path.display()),
                ));
            }
            // Not the guest's own: volumes come while the clock is still the snapshot's, and other content would look as old.
            if let Some(time) = UNIX_EPOCH.checked_add(Duration::from_secs(modified)) {
                file.set_modified(time)?;
            }
            self.finish(&unfinished, mode)?;
            fs::rename(&unfinished, path)?;
            Ok(bytes)
        })();
        written.inspect_err(|_| {
            let _ = remove(&unfinished);
        })
    }

    fn finish(&self, path: &Path, mode: u32) -> io::Result<()> {
        chown(path, self.owner, self.group)?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    }
}

/// As with cp(1), a directory and anything else never replace one another: a slip would cost a whole tree.
fn refuse_directory(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => Err(in_the_way(path, "is a directory")),
        _ => Ok(()),
    }
}

fn make_room_for_directory(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(found) if !found.is_symlink() => return Err(in_the_way(path, "is no directory")),
        _ => remove(path)?,
    }
    fs::create_dir(path)
}

fn in_the_way(path: &Path, why: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::AlreadyExists,
        format!("{} {why}", path.display()),
    )
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    }
}

/// An archive's name, if it stays inside.
fn relative(path: &Path) -> Option<PathBuf> {
    let mut inside = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => inside.push(name),
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(inside)
}

fn unsafe_name(path: &Path) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!(
            "the archive's entry {} leads out of its directory",
            path.display()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::super::append;
    use super::*;
    use tar::Builder;

    fn target(directory: &Path) -> Target {
        Target {
            directory: directory.into(),
            directory_mode: 0o755,
            replace: false,
            owner: None,
            group: None,
            file_mode: None,
            inner_mode: None,
        }
    }

    #[test]
    fn names_stay_inside() {
        assert_eq!(relative(Path::new("./a/b")), Some("a/b".into()));
        for path in ["../a", "/etc/passwd", "a/../../b"] {
            assert_eq!(relative(Path::new(path)), None, "{path}");
        }
    }

    #[test]
    fn an_archive_does_not_follow_a_link_out() {
        let place = std::env::temp_dir().join(format!("mvm-agent-files-{}", std::process::id()));
        let inside = place.join("inside");
        fs::create_dir_all(&inside).unwrap();
        symlink("..", inside.join("out")).unwrap();
        let mut builder = Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(4);
        header.set_mode(0o644);
        builder
            .append_data(&mut header, "out/stolen", &b"data"[..])
            .unwrap();
        let result = target(&inside).unpack(&builder.into_inner().unwrap()[..]);
        let escaped = place.join("stolen").exists();
        fs::remove_dir_all(&place).unwrap();
        assert!(result.is_err() && !escaped);
    }

    #[test]
    fn a_directory_and_a_file_do_not_replace_one_another() {
        let place = std::env::temp_dir().join(format!("mvm-agent-kinds-{}", std::process::id()));
        fs::create_dir_all(place.join("tree/deep")).unwrap();
        fs::write(place.join("file"), "old").unwrap();
        let mut refusals = Vec::new();
        for (name, kind) in [
            ("tree", EntryType::Regular),
            ("tree", EntryType::Symlink),
            ("file", EntryType::Directory),
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(0);
            header.set_mode(0o755);
            header.set_link_name("elsewhere").unwrap();
            let mut builder = Builder::new(Vec::new());
            builder.append_data(&mut header, name, io::empty()).unwrap();
            let archive = builder.into_inner().unwrap();
            refusals.push(
                target(&place)
                    .unpack(&archive[..])
                    .err()
                    .map(|it| it.kind()),
            );
        }
        let tree_stays = place.join("tree/deep").is_dir();
        let file = fs::read_to_string(place.join("file")).unwrap();
        fs::remove_dir_all(&place).unwrap();
        assert_eq!(refusals, [Some(io::ErrorKind::AlreadyExists); 3]);
        assert!(tree_stays && file == "old");
    }

    #[test]
    fn a_file_has_the_time_that_the_archive_says() {
        let place = std::env::temp_dir().join(format!("mvm-agent-times-{}", std::process::id()));
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        header.set_mode(0o444);
        header.set_mtime(1_000_000_007);
        let mut builder = Builder::new(Vec::new());
        builder.append_data(&mut header, "f", io::empty()).unwrap();
        let archive = builder.into_inner().unwrap();
        let result = target(&place).unpack(&archive[..]);
        let modified = fs::metadata(place.join("f")).and_then(|found| found.modified());
        fs::remove_dir_all(&place).unwrap();
        result.unwrap();
        assert_eq!(
            modified.unwrap(),
            UNIX_EPOCH + Duration::from_secs(1_000_000_007)
        );
    }

    #[test]
    fn a_file_that_does_not_say_its_size_is_read_all_the_same() {
        let mut builder = Builder::new(Vec::new());
        append(
            &mut builder,
            Path::new("/proc/version"),
            Path::new("version"),
        )
        .unwrap();
        let bytes = builder.into_inner().unwrap();
        let mut archive = Archive::new(&bytes[..]);
        let mut text = String::new();
        archive
            .entries()
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, fs::read_to_string("/proc/version").unwrap());
    }

    #[test]
    fn an_archive_that_is_cut_leaves_the_old_file() {
        let place = std::env::temp_dir().join(format!("mvm-agent-cut-{}", std::process::id()));
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join("f"), "old").unwrap();
        let mut builder = Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(100_000);
        header.set_mode(0o644);
        builder
            .append_data(&mut header, "f", &vec![7; 100_000][..])
            .unwrap();
        let bytes = builder.into_inner().unwrap();
        let result = target(&place).unpack(&bytes[..5000]);
        let left = fs::read_to_string(place.join("f")).unwrap();
        let entries = fs::read_dir(&place).unwrap().count();
        fs::remove_dir_all(&place).unwrap();
        assert!(result.is_err());
        assert_eq!((left.as_str(), entries), ("old", 1));
    }
}
