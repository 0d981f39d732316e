//! GET and PUT /v1/files: trees as tar archives.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use bytes::Bytes;
use h2::RecvStream;
use serde_json::json;
use tar::Builder;
use tokio::sync::mpsc;

mod unpack;

use self::unpack::Target;
use super::query::Query;
use super::reply::{ApiError, Reply};
use crate::app::App;

const PIECE: usize = 64 * 1024;
/// Of a file that does not say its size.
const MAX_UNSIZED: u64 = 16 * 1024 * 1024;

pub async fn get(query: &Query, reply: &mut Reply) -> Result<(), ApiError> {
    let path = absolute(query)?;
    fs::symlink_metadata(&path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    let mut body = reply.stream("application/x-tar")?;
    let (sender, mut pieces) = mpsc::channel(4);
    let packing = tokio::task::spawn_blocking(move || pack(&path, sender));
    while let Some(piece) = pieces.recv().await {
        body.send(piece).await?;
    }
    packing.await.map_err(io::Error::other)??;
    Ok(body.end()?)
}

fn pack(path: &Path, sender: mpsc::Sender<Bytes>) -> io::Result<()> {
    let mut builder = Builder::new(io::BufWriter::with_capacity(PIECE, Pieces(sender)));
    builder.follow_symlinks(false);
    let name = Path::new(path.file_name().unwrap_or("root".as_ref()));
    append(&mut builder, path, name)?;
    builder.into_inner()?.flush()
}

fn append(builder: &mut Builder<impl Write>, path: &Path, name: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    if found.is_file() {
        return append_file(builder, path, name);
    }
    if found.is_dir() {
        builder.append_dir(name, path)?;
        let mut entries = fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            append(builder, &entry.path(), &name.join(entry.file_name()))?;
        }
        return Ok(());
    }
    if found.is_symlink() {
        return builder.append_path_with_name(path, name);
    }
    Ok(()) // sockets, pipes and devices mean nothing on another machine
}

/// A file may grow or shrink while it is read, and those of /proc say that they are empty: exactly what was announced is sent.
fn append_file(builder: &mut Builder<impl Write>, path: &Path, name: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let mut header = tar::Header::new_gnu();
    header.set_metadata(&metadata);
    if metadata.len() == 0 {
        let mut content = Vec::new();
        file.take(MAX_UNSIZED).read_to_end(&mut content)?;
        header.set_size(content.len() as u64);
        return builder.append_data(&mut header, name, &content[..]);
    }
    let padded = file.chain(io::repeat(0)).take(metadata.len());
    builder.append_data(&mut header, name, padded)
}

/// A writer whose pieces go to the client.
struct Pieces(mpsc::Sender<Bytes>);

impl Write for Pieces {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0
            .blocking_send(Bytes::copy_from_slice(data))
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub async fn put(
    app: &Rc<App>,
    query: &Query,
    mut body: RecvStream,
    reply: &mut Reply,
) -> Result<(), ApiError> {
    let target = Target::from_query(app, query)?;
    let (sender, pieces) = mpsc::channel(4);
    let unpacking = tokio::task::spawn_blocking(move || {
        target.unpack(Incoming {
            pieces,
            piece: Bytes::new(),
        })
    });
    while let Some(data) = body.data().await {
        let data = match data {
            Ok(data) => data,
            Err(error) => {
                // So that what has come so far is not taken for all.
                let _ = sender.send(Err(io::Error::other(error))).await;
                break;
            }
        };
        let length = data.len();
        if sender.send(Ok(data)).await.is_err() {
            break; // it has failed, and says why below
        }
        let _ = body.flow_control().release_capacity(length);
    }
    drop(sender);
    let counts = unpacking.await.map_err(io::Error::other)??;
    reply.json(&json!({ "files": counts.files, "bytes": counts.bytes }))
}

/// Unpacks a small archive, as a PUT does a large one.
pub fn put_archive(app: &App, directory: &str, archive: &[u8]) -> io::Result<()> {
    Target::from_query(app, &Query::of("path", directory))
        .map_err(|error| io::Error::other(error.message))?
        .unpack(archive)
        .map(|_| ())
}

/// A reader of what the client sends.
struct Incoming {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.piece.len());
        buffer[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}

fn absolute(query: &Query) -> Result<PathBuf, ApiError> {
    let path = PathBuf::from(query.text("path").unwrap_or(""));
    let plain = path
        .components()
        .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if path.is_absolute() && plain {
        return Ok(path);
    }
    Err(ApiError::bad_request(format!(
        "'{}' is no absolute path",
        path.display()
    )))
}
