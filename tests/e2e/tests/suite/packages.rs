//! The Debian package and its units: what lintian and systemd say of them, and that what is
//! installed works, and is gone when it is purged.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use everflame_tests::container::CAPABILITIES;
use everflame_tests::everflame::binary;
use everflame_tests::machine::{self, finish, need_program, need_root, output, repository};
use everflame_tests::{Outcome, Skip};

/// Units, and their exposure at most as systemd counts it, in tenths from 0 to 100.
const UNITS: [(&str, u32); 2] = [("everflame-agent", 35), ("everflame-server", 15)];

pub fn the_units_are_sound() -> Outcome {
    need_program("systemd-analyze")?;
    let root = tempfile::tempdir().unwrap();
    output(Command::new("dpkg-deb").arg("-x").arg(package()?).arg(root.path()));
    for (unit, exposure) in UNITS {
        let path = root.path().join(format!("usr/lib/systemd/system/{unit}.service"));
        let text = std::fs::read_to_string(&path).unwrap();
        // The program is looked for where the package puts it, which is not where it is now.
        let here = root.path().join("usr/bin/everflame").display().to_string();
        std::fs::write(&path, text.replace("/usr/bin/everflame", &here)).unwrap();
        let verified =
            finish(Command::new("systemd-analyze").args(["verify", "--recursive-errors=no", "--man=no"]).arg(&path));
        let said = String::from_utf8_lossy(&verified.stderr);
        assert!(verified.status.success() && said.trim().is_empty(), "{unit}: {said}");
        let options = ["security", "--offline=true", "--no-pager", &format!("--threshold={exposure}")];
        let judged = finish(Command::new("systemd-analyze").args(options).arg(&path));
        let said = String::from_utf8_lossy(&judged.stdout);
        println!("{}", said.lines().last().unwrap_or_default());
        assert!(judged.status.success(), "{unit} is exposed by more than {exposure}:\n{said}");
    }
    let agent = std::fs::read_to_string(repository().join("deploy/systemd/everflame-agent.service")).unwrap();
    let bounds: Vec<&str> = agent.lines().filter_map(|line| line.strip_prefix("CapabilityBoundingSet=")).collect();
    assert_eq!(bounds, [CAPABILITIES.join(" ")], "those of deploy/kubernetes/agent.yaml");
    Ok(())
}

pub fn lintian_finds_no_error() -> Outcome {
    need_program("lintian")?;
    let mut lintian = Command::new("lintian");
    let judged = finish(lintian.args(["--allow-root", "--fail-on", "error", "--no-cfg", "--info"]).arg(package()?));
    let said = String::from_utf8_lossy(&judged.stdout);
    said.lines().filter(|line| line.starts_with("W: ")).for_each(|line| println!("{line}"));
    assert!(judged.status.success(), "{said}{}", String::from_utf8_lossy(&judged.stderr));
    Ok(())
}

/// On a copy of this machine that vanishes: what is written goes to a layer above its root.
pub fn installed_used_and_purged() -> Outcome {
    need_root()?;
    for tool in ["dpkg", "unshare", "chroot"] {
        need_program(tool)?;
    }
    let script = repository().join("tests/e2e/package.sh");
    let told = output(Command::new("unshare").args(["--mount", "--fork", "--"]).arg(script).arg(package()?));
    let said = told.lines().filter(|line| line.starts_with("package: "));
    assert_eq!(
        said.collect::<Vec<_>>(),
        ["package: installed", "package: used", "package: settings kept", "package: removed", "package: purged"],
        "{told}"
    );
    Ok(())
}

/// Made once, of the program under test.
fn package() -> Result<&'static Path, Skip> {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    need_program("dpkg-deb")?;
    Ok(MADE.get_or_init(|| {
        let folder = machine::cache().join("deb");
        let _ = std::fs::remove_dir_all(&folder);
        let script = repository().join("scripts/deb.sh");
        output(Command::new(script).arg("--output").arg(&folder).arg(format!("amd64={}", binary().display())));
        folder.join(format!("everflame_{}_amd64.deb", env!("CARGO_PKG_VERSION")))
    }))
}
