//! The few steps on files of which the spool consists. Each is whole or not at all.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

const LOCK: &str = "lock";
/// Ends the name of a file that is not whole yet.
pub(super) const TEMPORARY: &str = ".tmp";

/// In tests: where a kill may strike, which is before anything that outlives the process.
pub(super) fn effect() {
    #[cfg(test)]
    super::spool_tests::strike();
}

/// Makes the directory if need be and takes it for this process alone.
pub(super) fn lock(directory: &Path) -> Result<File, TryLockError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(TryLockError::Error)?;
    let file = File::options().create(true).truncate(false).write(true).open(directory.join(LOCK));
    let file = file.map_err(TryLockError::Error)?;
    file.try_lock()?;
    Ok(file)
}

/// Replaces a file as a whole, for our eyes only: profiles say much about a machine. Not
/// synced: the spool is for servers that are away and
/// agents that are killed; after a power failure a torn file is noticed and counted.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(TEMPORARY);
    effect();
    let file = File::options().create(true).truncate(true).write(true).mode(0o600).open(&temporary);
    let written = file.and_then(|mut file| file.write_all(bytes)).and_then(|()| {
        effect();
        fs::rename(&temporary, path)
    });
    if written.is_err() {
        remove(Path::new(&temporary));
    }
    written
}

/// Removes a file; one that is not there is fine.
pub(super) fn remove(path: &Path) {
    effect();
    if let Err(e) = fs::remove_file(path)
        && e.kind() != io::ErrorKind::NotFound
    {
        tracing::debug!("cannot remove {}: {e}", path.display());
    }
}
