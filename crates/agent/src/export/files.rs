//! The few steps on files of which the spool consists. Each is whole or not at all.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
    time::{Duration, Instant},
};

const LOCK: &str = "lock";
/// Ends the name of a file that is not whole yet.
pub(super) const TEMPORARY: &str = ".tmp";

/// In tests: where a kill may strike, which is before anything that outlives the process.
pub(super) fn effect() {
    #[cfg(test)]
    super::spool_tests::strike();
}

/// A lock that was let go is held for a moment by a child that was forked meanwhile, until it runs its program.
const LET_GO: Duration = Duration::from_millis(500);

/// Makes the directory if need be and takes it for this process alone.
pub(super) fn lock(directory: &Path) -> Result<File, TryLockError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(TryLockError::Error)?;
    let file = File::options().create(true).truncate(false).write(true).open(directory.join(LOCK));
    let file = file.map_err(TryLockError::Error)?;
    let until = Instant::now() + LET_GO;
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(Duration::from_millis(5)),
            locked => return locked.map(|()| file),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_let_go_in_a_moment_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let held = lock(folder.path()).unwrap();
        assert!(matches!(lock(folder.path()), Err(TryLockError::WouldBlock)), "it is held");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(LET_GO / 5);
                drop(held);
            });
            assert!(lock(folder.path()).is_ok());
        });
    }
}
