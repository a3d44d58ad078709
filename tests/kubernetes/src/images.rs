//! Images of one layer, packed from files of this machine: nothing is pulled from anywhere.

use std::path::{Path, PathBuf};
use std::process::Command;

use everflame_tests::machine;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// What every pod's first container runs.
pub const PAUSE: &str = "docker.io/library/tools:1";

/// An image before it is packed.
#[derive(Debug)]
pub struct Image {
    name: String,
    /// Where in the image, and from where.
    files: Vec<(String, PathBuf)>,
    command: Vec<String>,
}

impl Image {
    /// An image of files; `command` is its entry point.
    pub fn new(name: &str, files: &[(&str, &Path)], command: &[&str]) -> Self {
        Self {
            name: format!("docker.io/library/{name}"),
            files: files.iter().map(|(inside, outside)| ((*inside).to_owned(), (*outside).to_owned())).collect(),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
        }
    }

    /// The one program, and nothing beside it.
    pub fn everflame(program: &Path) -> Self {
        Self::new("everflame:0.1.0", &[("everflame", program)], &["/everflame"])
    }

    /// A shell and its tools in one static file, which sleeps unless told otherwise.
    pub fn tools(binaries: &Path) -> Self {
        let busybox = binaries.join("bin/busybox");
        Self::new("tools:1", &[("bin/busybox", &busybox), ("bin/sh", &busybox)], &["/bin/busybox", "sleep", "1000000"])
    }

    /// The libraries that a program is linked against go with it.
    #[must_use]
    pub fn with_libraries(mut self) -> Self {
        let programs: Vec<PathBuf> = self.files.iter().map(|(_, outside)| outside.clone()).collect();
        for program in programs {
            let text = machine::finish(Command::new("ldd").arg(program)).stdout;
            for word in String::from_utf8_lossy(&text).split_whitespace().filter(|word| word.starts_with('/')) {
                let inside = word.trim_start_matches('/').to_owned();
                if !self.files.iter().any(|(known, _)| *known == inside) {
                    self.files.push((inside, word.into()));
                }
            }
        }
        self
    }

    /// Writes it as an OCI archive into a folder.
    pub fn write(&self, folder: &Path) -> PathBuf {
        let layout = tempfile::tempdir_in(folder).unwrap();
        let (root, blobs) = (layout.path().join("root"), layout.path().join("oci/blobs/sha256"));
        std::fs::create_dir_all(&blobs).unwrap();
        for (inside, outside) in &self.files {
            let to = root.join(inside);
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(outside, to).unwrap_or_else(|error| panic!("{}: {error}", outside.display()));
        }
        let layer = blobs.join("layer");
        pack(&root, &layer);
        let blob = |bytes: &[u8], kind: &str| -> Value {
            let name: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            std::fs::write(blobs.join(&name), bytes).unwrap();
            json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": format!("sha256:{name}"), "size": bytes.len()})
        };
        let layer_blob = blob(&std::fs::read(&layer).unwrap(), "layer.v1.tar");
        std::fs::remove_file(layer).unwrap();
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": {"Entrypoint": self.command},
            "rootfs": {"type": "layers", "diff_ids": [layer_blob["digest"]]},
        });
        let config = blob(config.to_string().as_bytes(), "config.v1+json");
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer_blob]});
        let mut manifest = blob(manifest.to_string().as_bytes(), "manifest.v1+json");
        manifest["annotations"] = json!({"io.containerd.image.name": self.name});
        let oci = layout.path().join("oci");
        let index = json!({"schemaVersion": 2, "manifests": [manifest]});
        std::fs::write(oci.join("index.json"), index.to_string()).unwrap();
        std::fs::write(oci.join("oci-layout"), json!({"imageLayoutVersion": "1.0.0"}).to_string()).unwrap();
        let archive = folder.join(format!("{}.tar", self.name.replace(['/', ':'], "-")));
        pack(&oci, &archive);
        archive
    }
}

fn pack(folder: &Path, archive: &Path) {
    let options = ["--owner=0", "--group=0", "--numeric-owner", "--sort=name", "-cf"];
    machine::output(Command::new("tar").arg("-C").arg(folder).args(options).arg(archive).arg("."));
}
