//! Whoever follows a guide on the cluster: the commands as they stand there, in a folder that has what
//! the repository has, with programs by the names that the guides use.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use everflame_kubernetes::Plane;
use everflame_tests::guide::{self, Block};
use everflame_tests::machine::{finish, repository};
use tempfile::TempDir;

use crate::deployment::{path, patiently, said};

/// Where the guides say that images are; the cluster's were never elsewhere.
const REGISTRY: &str = "docker.io/library";

/// A reader with a folder.
#[derive(Debug)]
pub struct Reader {
    folder: TempDir,
    path: String,
    kubeconfig: PathBuf,
}

impl Reader {
    /// On a cluster.
    pub fn new(plane: &Plane) -> Self {
        let folder = tempfile::tempdir().unwrap();
        guide::programs(&folder.path().join("bin"));
        for name in ["deploy", "docs"] {
            std::os::unix::fs::symlink(repository().join(name), folder.path().join(name)).unwrap();
        }
        let path = format!("{}:{}", folder.path().join("bin").display(), path(plane));
        Self { folder, path, kubeconfig: plane.kubectl().kubeconfig.clone() }
    }

    /// Where the commands run.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs commands, which must succeed, and returns all that they said.
    pub fn run(&self, commands: &str) -> String {
        let output = finish(&mut self.shell(&format!("set -euo pipefail\n{commands}")));
        assert!(output.status.success(), "{commands}\n{}", said(&output));
        said(&output)
    }

    /// Runs blocks of pages in their order, with what stays running.
    pub fn follow(&self, blocks: &[Block]) -> String {
        let file = self.folder().join("page.sh");
        let logs = tempfile::tempdir_in(self.folder()).unwrap();
        let script = guide::script(blocks, logs.path(), "").replace("REGISTRY", REGISTRY);
        std::fs::write(&file, script).unwrap();
        let output = finish(self.shell("").arg(&file));
        assert!(output.status.success(), "{}: {}\n{}", blocks[0].page, output.status, said(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Starts a port forward, as the guides have it, and waits until it is there.
    pub fn forward(&self, plane: &Plane) -> Forward {
        let log = self.folder().join("forward.log");
        let file = std::fs::File::create(&log).unwrap();
        let command = "exec kubectl -n everflame port-forward service/everflame-server 4040:4040";
        let child = self.shell(command).stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        let forward = Forward(child);
        patiently(plane, "a port forward", || {
            std::fs::read_to_string(&log).unwrap().contains("Forwarding from").then_some(())
        });
        forward
    }

    /// A shell that runs commands, or a file where there are none.
    fn shell(&self, commands: &str) -> Command {
        let mut command = Command::new("bash");
        if !commands.is_empty() {
            command.args(["-c", &commands.replace("REGISTRY", REGISTRY)]);
        }
        command.current_dir(self.folder()).env("PATH", &self.path).env("HOME", self.folder());
        command.env("KUBECONFIG", &self.kubeconfig).stdin(Stdio::null());
        command
    }
}

/// A port forward that ends with this.
#[derive(Debug)]
pub struct Forward(Child);

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The block of a page that has a text.
pub fn block(page: &'static str, text: &str) -> String {
    let mut found = guide::blocks(page).into_iter().filter(|block| block.text.contains(text));
    let block = found.next().unwrap_or_else(|| panic!("{page} has no block with `{text}`"));
    assert!(found.next().is_none(), "{page} has several blocks with `{text}`");
    block.text
}
