//! The image that `make image` makes, of the program under test: built once, read as a
//! registry's client reads it, and unpacked where a container is to run from it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use crate::everflame::binary;
use crate::machine::{self, need_program};
use crate::runner::Skip;

/// Where it is built.
fn folder() -> PathBuf {
    machine::cache().join("image")
}

/// An image of one architecture in an OCI layout.
#[derive(Debug)]
pub struct Image {
    layout: PathBuf,
    /// What an index, an image and its configuration say.
    pub manifest: Value,
    pub config: Value,
}

impl Image {
    /// That of the program under test.
    pub fn of_this_program() -> Result<Self, Skip> {
        static BUILT: OnceLock<PathBuf> = OnceLock::new();
        for tool in ["buildah", "jq", "tar"] {
            need_program(tool)?;
        }
        let layout = BUILT.get_or_init(|| {
            let folder = folder();
            let _ = std::fs::remove_dir_all(&folder);
            let layout = folder.join("layout");
            std::fs::create_dir_all(&layout).unwrap();
            let script = machine::repository().join("scripts/image.sh");
            let program = format!("amd64={}", binary().display());
            machine::output(Command::new(script).arg("--output").arg(&folder).arg(program));
            machine::output(
                Command::new("tar").arg("-C").arg(&layout).arg("-xf").arg(folder.join("everflame.oci.tar")),
            );
            layout
        });
        Ok(Self::in_layout(layout, "amd64"))
    }

    /// That of an architecture, by way of the index of all.
    pub fn in_layout(layout: &Path, architecture: &str) -> Self {
        let index: Value = serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
        let all = blob(layout, &index["manifests"][0]);
        let images = all["manifests"].as_array().unwrap_or_else(|| panic!("no index of architectures: {all}"));
        let found = images.iter().find(|image| image["platform"]["architecture"] == architecture);
        let manifest = blob(layout, found.unwrap_or_else(|| panic!("nothing for {architecture}: {all}")));
        let config = blob(layout, &manifest["config"]);
        Self { layout: layout.to_owned(), manifest, config }
    }

    /// What its program is made of, as it lies beside it.
    pub fn materials(&self) -> Value {
        let version = env!("CARGO_PKG_VERSION");
        let path = folder().join(format!("everflame-{version}-amd64.cdx.json"));
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    /// Its layers, put one over the other.
    pub fn unpack(&self, root: &Path) {
        for layer in self.layers() {
            machine::output(Command::new("tar").arg("-C").arg(root).arg("-xzf").arg(layer));
        }
    }

    /// Each file that is in it, once for each layer that has it.
    pub fn files(&self) -> Vec<String> {
        let listed = self.layers().map(|layer| machine::output(Command::new("tar").arg("-tzf").arg(layer)));
        let lines: Vec<String> = listed.flat_map(|list| list.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
        lines.into_iter().filter(|name| !name.ends_with('/')).collect()
    }

    /// What a node fetches.
    pub fn compressed_bytes(&self) -> u64 {
        let layers = self.manifest["layers"].as_array().unwrap();
        layers.iter().map(|layer| layer["size"].as_u64().unwrap()).sum()
    }

    fn layers(&self) -> impl Iterator<Item = PathBuf> {
        let layers = self.manifest["layers"].as_array().unwrap();
        layers.iter().map(|layer| path(&self.layout, layer))
    }
}

fn path(layout: &Path, descriptor: &Value) -> PathBuf {
    let digest = descriptor["digest"].as_str().unwrap();
    layout.join("blobs").join(digest.replace(':', "/"))
}

fn blob(layout: &Path, descriptor: &Value) -> Value {
    let path = path(layout, descriptor);
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&bytes).unwrap()
}
