//! Finding the very file that a process has mapped: deleted, in another mount namespace,
//! or with a stranger now at its path.

use std::{
    ffi::CString,
    fs::{File, Metadata, OpenOptions},
    io,
    os::{
        fd::{AsFd, AsRawFd},
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
};

use crate::{
    processes::records::{FileId, NewMapping},
    sys,
};

/// What changes when a file's content does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Bytes.
    pub size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// A regular file that was found but is not open for reading yet.
#[derive(Debug)]
pub struct Found {
    path_only: File,
    /// Its state when it was found.
    pub stamp: Stamp,
}

/// Why a file cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The process or the file at its path is gone; another process may still have it.
    #[error("gone")]
    Gone,
    /// Not a regular file: it is never opened.
    #[error("not a regular file")]
    NotRegular,
    /// The file system does not answer, or others do not already.
    #[error("its file system does not answer")]
    Hung,
    /// The agent may not.
    #[error("no permission: run with CAP_SYS_PTRACE and CAP_CHECKPOINT_RESTORE, or as root")]
    Denied,
}

impl Found {
    /// Opens it for reading. It is known to be a regular file, so opening does nothing else.
    pub fn open(&self) -> io::Result<File> {
        open(&format!("/proc/self/fd/{}", self.path_only.as_raw_fd()), libc::O_NONBLOCK | libc::O_NOCTTY)
    }
}

/// Finds the file behind a mapping of a process; where that is gone its parent, who mostly
/// lives in the same root, helps to find it. Hangs where its file system does.
pub fn find(pid: u32, parent: u32, mapping: &NewMapping) -> Result<Found, OpenError> {
    let mut denied = false;
    let mut attempt = |opened: io::Result<File>, same: Option<FileId>| {
        let opened = opened.and_then(|file| file.metadata().map(|m| (file, m)));
        match opened {
            Ok((_, metadata)) if same.is_some_and(|id| id != file_id(&metadata)) => None,
            Ok((_, metadata)) if !metadata.is_file() => Some(Err(OpenError::NotRegular)),
            Ok((path_only, metadata)) => Some(Ok(Found { path_only, stamp: stamp(&metadata) })),
            Err(e) => {
                denied |= e.kind() == io::ErrorKind::PermissionDenied;
                None
            }
        }
    };
    // The mapping's own file, whatever its path says by now.
    let own = format!("/proc/{pid}/map_files/{:x}-{:x}", mapping.start, mapping.end);
    if let Some(found) = attempt(open(&own, libc::O_PATH), None) {
        return found;
    }
    // The executable itself, which takes fewer rights.
    if let Some(found) = attempt(open(&format!("/proc/{pid}/exe"), libc::O_PATH), Some(mapping.file)) {
        return found;
    }
    // What stands at its path, as the process sees it and as we do, if it is the same file.
    let name = mapping.name.strip_suffix(b" (deleted)").unwrap_or(&mapping.name);
    if let Ok(name) = CString::new(name) {
        for root in [format!("/proc/{pid}/root"), format!("/proc/{parent}/root"), "/".into()] {
            let in_root =
                open(&root, libc::O_PATH | libc::O_DIRECTORY).and_then(|root| sys::open_in_root(root.as_fd(), &name));
            if let Some(found) = attempt(in_root, Some(mapping.file)) {
                return found;
            }
        }
    }
    Err(if denied { OpenError::Denied } else { OpenError::Gone })
}

fn open(path: &str, flags: i32) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

fn file_id(metadata: &Metadata) -> FileId {
    FileId { device: (libc::major(metadata.dev()), libc::minor(metadata.dev())), inode: metadata.ino() }
}

fn stamp(metadata: &Metadata) -> Stamp {
    Stamp {
        size: metadata.len(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    }
}
