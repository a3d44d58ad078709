//! What the soak puts a machine under: see `tests/targets/c/soak.c`.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use everflame_tests::target::built;

use super::{Options, read};

/// Servers that stay.
const SERVERS: u32 = 4;
/// Libraries loaded a second.
const LOADS_A_SECOND: u32 = 10;

/// Running processes; they end with it.
#[derive(Debug)]
pub struct Load {
    program: PathBuf,
    steady: Vec<Child>,
    storming: Option<Child>,
    rate: u32,
}

impl Load {
    /// Makes the files and starts what is always there.
    pub fn start(options: &Options, folder: &Path) -> Result<Self> {
        let target = |name| built(name).map_err(|skip| anyhow::anyhow!("{}", skip.0));
        let program = target("soak")?;
        let executables = copies(&target("brief")?, "brief_00000000", options.executables, &folder.join("programs"))?;
        let libraries =
            copies(&target("libburner.so")?, "library_inner", options.libraries, &folder.join("libraries"))?;
        let mut load = Self { program, steady: Vec::new(), storming: None, rate: options.storm };
        for _ in 0..SERVERS {
            load.steady.push(load.spawn("serve", 100, &[])?);
        }
        load.steady.push(load.spawn("storm", options.rate, &executables)?);
        load.steady.push(load.spawn("load", LOADS_A_SECOND, &libraries)?);
        Ok(load)
    }

    fn spawn(&self, kind: &str, rate: u32, files: &[PathBuf]) -> Result<Child> {
        Command::new(&self.program)
            .args([kind, &rate.to_string()])
            .args(files)
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {} {kind}", self.program.display()))
    }

    /// Whether there is to be a storm now.
    pub fn storm(&mut self, wanted: bool) -> Result<()> {
        if wanted && self.storming.is_none() {
            self.storming = Some(self.spawn("storm", self.rate, &[PathBuf::from("/bin/true")])?);
        } else if !wanted && let Some(child) = self.storming.take() {
            end(child);
        }
        Ok(())
    }

    /// Fails where a part of the load has ended.
    pub fn check(&mut self) -> Result<()> {
        for child in &mut self.steady {
            ensure!(child.try_wait()?.is_none(), "a part of the load ended: see its message above");
        }
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.steady.drain(..).chain(self.storming.take()).for_each(end);
    }
}

fn end(mut child: Child) {
    // It may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
}

/// Copies of an ELF file in which a name of its symbol table is another, so that each is a
/// content of its own.
fn copies(file: &Path, name: &str, count: u32, folder: &Path) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder)?;
    let good = read(file)?;
    // The last one is in the symbol table; a name that the loader uses comes before.
    let place = good.windows(name.len()).rposition(|bytes| bytes == name.as_bytes());
    let place = place.with_context(|| format!("{} has no {name}", file.display()))?;
    let copy = |number: u32| {
        let mut bytes = good.clone();
        let digits = format!("{number:0>5}");
        let at = place + name.len() - digits.len();
        bytes[at..at + digits.len()].copy_from_slice(digits.as_bytes());
        let path = folder.join(format!("{}-{digits}", file.file_stem().unwrap_or_default().to_string_lossy()));
        std::fs::write(&path, bytes)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
        Ok(path)
    };
    (0..count).map(copy).collect()
}
