//! Least privilege: every subset of the six capabilities, as root and as another user. None
//! ends without a line that says what to do, and whatever can be sampled is.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use everflame_tests::container::CAPABILITIES;
use everflame_tests::everflame::binary;
use everflame_tests::machine::{finish, need_program, need_root, wait_for};
use everflame_tests::target::built;
use everflame_tests::{Everflame, Outcome, Target};
use serde_json::Value;

/// Bits in the order of [`CAPABILITIES`].
const NEEDED: usize = 0b11;
const PTRACE: usize = 1 << 2;
const DAC_READ_SEARCH: usize = 1 << 3;
const SYSLOG: usize = 1 << 4;
/// Runs at the same time: most of one's time is waiting.
const AT_ONCE: usize = 4;
const NOBODY: &str = "65534";

pub fn every_subset_of_the_capabilities() -> Outcome {
    need_root()?;
    need_program("setpriv")?;
    let stage = Stage::set()?;
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= 2 << CAPABILITIES.len() {
                        break;
                    }
                    stage.try_subset(number >> 1, number & 1 == 0);
                }
            });
        }
    });
    Ok(())
}

/// Three programs that are busy the whole time: one as it comes, one that only its owner may
/// read, in a folder that only he may enter, and one whose file is deleted.
struct Stage {
    folder: tempfile::TempDir,
    program: PathBuf,
    targets: [Target; 3],
}

impl Stage {
    fn set() -> Result<Self, everflame_tests::Skip> {
        let truth = built("truth_cpp")?;
        let folder = tempfile::tempdir().unwrap();
        allow(folder.path(), 0o777);
        let program = folder.path().join("everflame");
        std::fs::copy(binary(), &program).unwrap();
        let copy = |name: &str| {
            let path = folder.path().join(name);
            std::fs::copy(&truth, &path).unwrap();
            path
        };
        let (open, deleted) = (copy("open_to_all"), copy("deleted"));
        let closed = folder.path().join("closed_folder");
        std::fs::create_dir(&closed).unwrap();
        let owned = closed.join("closed");
        std::fs::copy(&truth, &owned).unwrap();
        for path in [&owned, &closed] {
            chown(path, Some(1000), Some(1000)).unwrap();
            allow(path, 0o700);
        }
        let as_owner = ["--reuid=1000", "--regid=1000", "--clear-groups"];
        let targets = [
            Target::start(&open, &["600", "1"]),
            Target::spawn(Command::new("setpriv").args(as_owner).arg(&owned).args(["600", "1"])),
            Target::start(&deleted, &["600", "1"]),
        ];
        let runs = |name: &str| targets.iter().any(|target| comm(target.pid()) == name);
        wait_for("the start of the targets", std::time::Duration::from_secs(10), || {
            (runs("closed") && runs("deleted")).then_some(())
        });
        std::fs::remove_file(&deleted).unwrap();
        Ok(Self { folder, program, targets })
    }

    fn everflame(&self, subset: usize, root: bool) -> Command {
        let mut command = self.with_rights(subset, root);
        command.arg(&self.program);
        command
    }

    /// Whether the mappings of a target can be read with a subset.
    fn reads_maps(&self, subset: usize, root: bool) -> bool {
        let file = format!("/proc/{}/maps", self.targets[0].pid());
        finish(self.with_rights(subset, root).args(["cat", &file])).status.success()
    }

    fn with_rights(&self, subset: usize, root: bool) -> Command {
        let names = CAPABILITIES.iter().enumerate().filter(|(bit, _)| subset >> bit & 1 == 1);
        let set = names.fold("-all".to_owned(), |set, (_, name)| {
            set + ",+" + name.trim_start_matches("CAP_").to_ascii_lowercase().as_str()
        });
        let mut command = Command::new("timeout");
        command.args(["--signal=KILL", "120", "setpriv", "--no-new-privs", "--bounding-set", &set]);
        if !root {
            command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]);
            command.args(["--inh-caps", &set, "--ambient-caps", &set]);
        }
        command.stdin(Stdio::null());
        command
    }

    fn try_subset(&self, subset: usize, root: bool) {
        let who = format!("{} with {subset:06b}", if root { "root" } else { "nobody" });
        let file = self.folder.path().join(format!("{subset}-{root}.folded"));
        let mut record = self.everflame(subset, root);
        let ended = finish(record.args(["record", "--rate", "199", "--duration", "1", "--output"]).arg(&file));
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(!said.contains("panicked"), "{who}: {said}");
        let symbols = self.ask_doctor(subset, root, &who);
        if subset & NEEDED != NEEDED {
            assert_eq!(ended.status.code(), Some(1), "{who}: {said}");
            let last = said.lines().last().unwrap_or_default();
            for (bit, name) in CAPABILITIES.iter().enumerate() {
                let named = bit < 2 && subset >> bit & 1 == 0;
                assert_eq!(last.contains(name), named, "{who}: {last}");
            }
            assert!(last.contains("run as root, or give"), "{who}: {last}");
            return;
        }
        assert!(ended.status.success(), "{who}: {said}");
        for (bit, name) in CAPABILITIES.iter().enumerate().filter(|(_, name)| **name != "CAP_SYSLOG") {
            assert_eq!(said.contains(&format!("without {name} ")), subset >> bit & 1 == 0, "{who}: {said}");
        }
        assert_eq!(said.contains("kernel frames stay addresses"), !symbols, "{who}: {said}");
        let folded = std::fs::read_to_string(&file).unwrap();
        let of = |process: &str| -> Vec<&str> {
            folded.lines().filter(|line| line.split(';').next() == Some(process)).collect()
        };
        let sum = |lines: &[&str], of: fn(&str) -> bool| -> u64 {
            let lines = lines.iter().filter(|line| of(line));
            lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
        };
        let (ptrace, searches) = (subset & PTRACE != 0, subset & DAC_READ_SEARCH != 0);
        // New kernels show mappings to those with CAP_PERFMON too.
        let maps = ptrace || self.reads_maps(subset, root);
        for (process, readable) in [("open_to_all", maps), ("closed", maps && searches), ("deleted", ptrace)] {
            let seen = of(process);
            let (all, whole) = (sum(&seen, |_| true), sum(&seen, |line| !line.contains("[incomplete: ")));
            assert!(all >= 5, "{who}: {all} samples of {process}\n{said}");
            // Some are before the tables are there, where many others are at work; names may
            // come later still.
            let right = if readable { whole * 3 >= all } else { whole == 0 };
            assert!(right, "{who}: {whole} of {all} samples of {process} are whole\n{said}\n{seen:#?}");
        }
    }

    /// Says whether the kernel's symbols can be read.
    fn ask_doctor(&self, subset: usize, root: bool, who: &str) -> bool {
        let answer = finish(self.everflame(subset, root).args(["doctor", "--output", "json"]));
        let checks: Value = serde_json::from_slice(&answer.stdout).unwrap_or_else(|e| panic!("{who}: {e} {answer:?}"));
        let status = |name: &str| {
            let check = checks.as_array().unwrap().iter().find(|check| check["check"] == name);
            let check = check.unwrap_or_else(|| panic!("{who}: {checks}"));
            let remedy = check["remedy"].as_str().unwrap();
            assert_eq!(check["status"] == "ok", remedy.is_empty(), "{who}: {check}");
            check["status"].as_str().unwrap().to_owned()
        };
        for (bit, name) in CAPABILITIES.iter().enumerate() {
            let lacking = if bit < 2 { "fail" } else { "warn" };
            assert_eq!(status(name), if subset >> bit & 1 == 1 { "ok" } else { lacking }, "{who}: {name}");
        }
        assert_eq!(status("sampler"), if subset & NEEDED == NEEDED { "ok" } else { "fail" }, "{who}: {checks}");
        assert_eq!(answer.status.success(), subset & NEEDED == NEEDED, "{who}: {checks}");
        if subset & SYSLOG != 0 {
            assert_eq!(status("kernel-symbols"), "ok", "{who}: {checks}");
        }
        status("kernel-symbols") == "ok"
    }
}

/// Whoever starts `up`: its web server has no capability, and as root it is nobody.
pub fn the_web_server_has_none() -> Outcome {
    need_root()?;
    let up = Everflame::up(19);
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", up.pid())).unwrap();
    let server = children.split(' ').find(|pid| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.split(|b| *b == 0).any(|word| word == b"server")
    });
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.expect("a server"))).unwrap();
    let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!(field("Uid:").split('\t').next(), Some(NOBODY), "{status}");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{set} in {status}");
    }
    up.stop();
    Ok(())
}

fn comm(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

fn allow(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}
