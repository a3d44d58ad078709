//! `record` on real processes: all of a command's children, however many there were before.
//! Needs root.

use std::process::Command;

/// More than there is room for in the kernel's map of processes to sample.
const CHILDREN: u32 = 4_500;

#[test]
fn children_are_recorded_however_many_there_were() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: needs root");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let output = dir.path().join("out.folded");
    let script = format!(
        "i=0; while [ $i -lt {CHILDREN} ]; do (:); i=$((i+1)); done\n\
         cp /bin/dash lastborn 2>/dev/null || cp /bin/sh lastborn\n\
         ./lastborn -c 'i=0; while [ $i -lt 1000000 ]; do i=$((i+1)); done'\n\
         exit 3"
    );
    let status = Command::new(env!("CARGO_BIN_EXE_everflame"))
        .args(["record", "--output"])
        .arg(&output)
        .args(["--", "sh", "-c", &script])
        .current_dir(dir.path())
        .status()
        .expect("the program runs");
    assert_eq!(status.code(), Some(3), "the command's own");
    let folded = std::fs::read_to_string(&output).expect("written");
    let of_last = folded.lines().filter(|line| line.starts_with("lastborn;")).count();
    assert!(of_last > 0, "the last child is missing:\n{folded}");
}
