//! What runs beside the agent while it is measured: many processes that do next to nothing,
//! and new ones that come and go.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};

/// Processes that sleep; they end with it.
#[derive(Debug)]
pub struct Crowd {
    members: Vec<Child>,
    _folder: tempfile::TempDir,
}

impl Crowd {
    /// So many processes of so many executables, no two of which have the same content.
    pub fn open(processes: usize, executables: usize) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let original = fs::read("/bin/sleep").context("reading /bin/sleep")?;
        let paths: Vec<PathBuf> =
            (0..executables.max(1)).map(|number| variant(&original, number, folder.path())).collect::<Result<_>>()?;
        let start = |path: &PathBuf| Command::new(path).arg("100000").stdin(Stdio::null()).spawn();
        let members = (0..processes).map(|n| start(&paths[n % paths.len()])).collect::<std::io::Result<_>>()?;
        Ok(Self { members, _folder: folder })
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for member in &mut self.members {
            let _ = member.kill();
        }
        for member in &mut self.members {
            let _ = member.wait();
        }
    }
}

/// A copy of an executable whose program headers differ in a field that nobody uses (the
/// physical address of the first), so that its content is another.
fn variant(original: &[u8], number: usize, folder: &Path) -> Result<PathBuf> {
    const PHYSICAL: usize = 24;
    let mut bytes = original.to_vec();
    let headers: [u8; 8] = bytes.get(32..40).context("no ELF header")?.try_into()?;
    let at = u64::from_le_bytes(headers) as usize + PHYSICAL;
    bytes.get_mut(at..at + 8).context("no program header")?.copy_from_slice(&(number as u64).to_le_bytes());
    let path = folder.join(format!("sleeper-{number}"));
    fs::write(&path, bytes)?;
    let status = Command::new("chmod").arg("755").arg(&path).status()?;
    anyhow::ensure!(status.success(), "chmod of {} failed", path.display());
    Ok(path)
}

/// New processes at a steady rate; each ends at once.
#[derive(Debug)]
pub struct Storm {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Storm {
    /// So many a second.
    pub fn open(rate: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let started = Command::new("/bin/true").stdin(Stdio::null()).spawn();
                std::thread::sleep(Duration::from_secs(1) / rate.max(1));
                if let Ok(mut child) = started {
                    let _ = child.wait();
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
