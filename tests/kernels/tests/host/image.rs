//! A kernel of a distribution, found and cached by `image.sh`.

use std::path::PathBuf;
use std::process::Command;

use everflame_tests::{Skip, machine};

/// The newest kernel of a series.
#[derive(Debug)]
pub struct Kernel {
    /// As the distribution calls it: amd64, arm64.
    pub architecture: &'static str,
    pub image: PathBuf,
    pub package: String,
}

impl Kernel {
    /// Looks it up; skips the test where there is none.
    pub fn find(series: &str, architecture: &'static str) -> Result<Self, Skip> {
        for tool in ["apt-get", "dpkg-deb"] {
            machine::need_program(tool)?;
        }
        let script = machine::repository().join("tests/kernels/image.sh");
        let output = machine::finish(Command::new(script).args([series, architecture]));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        match (output.status.code(), text.trim().split_once(' ')) {
            (Some(0), Some((image, package))) => {
                Ok(Self { architecture, image: image.into(), package: package.to_owned() })
            }
            (Some(77), _) => Err(Skip(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
            _ => panic!("image.sh ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr)),
        }
    }
}
