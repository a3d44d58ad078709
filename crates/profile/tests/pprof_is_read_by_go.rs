//! A pprof file is right when Go's own tool reads the same totals out of it.
#![allow(clippy::unwrap_used)]

use std::{io::Write, process::Command, sync::Arc};

use everflame_profile::{Completeness, Mapping, NamedFrame, NamedProfile, NamedSample, pprof::pprof};

fn frame(function: &str, mapping: Option<&Arc<Mapping>>, address: u64) -> NamedFrame {
    NamedFrame {
        function: function.into(),
        file: "src/shop.cc".into(),
        line: 12,
        kernel: false,
        inlined: false,
        mapping: mapping.cloned(),
        address,
    }
}

fn sample(frames: Vec<NamedFrame>, count: u64, completeness: Completeness) -> NamedSample {
    let value = count as i64 * 10_000_000;
    NamedSample { frames, process: "shop".into(), pid: 41, thread: "io".into(), tid: 42, count, value, completeness }
}

fn profile() -> NamedProfile {
    let shop = Arc::new(Mapping { name: "shop".into(), build_id: "c0ffee".into(), content_id: None });
    let libc = Arc::new(Mapping { name: "libc.so.6".into(), build_id: "beef".into(), content_id: None });
    let main = || frame("main", Some(&shop), 0x1000);
    let inlined = NamedFrame { inlined: true, ..frame("Cart::price", Some(&shop), 0x1010) };
    let around = frame("Cart::total", Some(&shop), 0x1010);
    let kernel = NamedFrame { kernel: true, ..frame("do_syscall_64", None, 0xffff_ffff_8100_1000) };
    NamedProfile {
        time: 1_700_000_000_000_000_000,
        duration: 2_000_000_000,
        period: 10_000_000,
        samples: vec![
            sample(vec![inlined.clone(), around.clone(), main()], 60, Completeness::Complete),
            sample(vec![frame("malloc", Some(&libc), 0x1010), main()], 30, Completeness::Complete),
            sample(vec![kernel, frame("read", Some(&libc), 0x2000), main()], 8, Completeness::Complete),
            // The same stack again is summed.
            sample(vec![inlined, around, main()], 1, Completeness::Complete),
            sample(vec![frame("shop+0x1a2b40", Some(&shop), 0x1a2b44)], 1, Completeness::NoUnwindInfo),
        ],
    }
}

fn go_tool_pprof(arguments: &[&str]) -> String {
    let file = std::env::temp_dir().join(format!("everflame-{}-{}.pb.gz", std::process::id(), arguments.concat()));
    std::fs::File::create(&file).unwrap().write_all(&pprof(&profile())).unwrap();
    let output = Command::new("go").args(["tool", "pprof"]).args(arguments).arg(&file).output();
    let output = output.expect("this test needs Go's tools: install golang");
    std::fs::remove_file(&file).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// `flat`, `cum` and the name of each row, spaces normalised.
fn rows(top: &str) -> Vec<(String, String, String)> {
    let table = top.lines().skip_while(|line| !line.trim_start().starts_with("flat")).skip(1);
    let row = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (words[0].into(), words[3].into(), words[5..].join(" "))
    };
    table.map(row).collect()
}

#[test]
fn totals_and_names() {
    let top = go_tool_pprof(&["-top", "-nodecount=0", "-sample_index=samples"]);
    assert!(top.contains("of 100 total"), "{top}");
    let rows = rows(&top);
    let find = |name: &str| {
        let row = rows.iter().find(|row| row.2.trim_end_matches(" (inline)") == name);
        let row = row.unwrap_or_else(|| panic!("no {name} in {top}"));
        (row.0.as_str(), row.1.as_str())
    };
    assert_eq!(find("Cart::price"), ("61", "61"));
    assert_eq!(find("Cart::total"), ("0", "61"));
    assert_eq!(find("malloc"), ("30", "30"));
    assert_eq!(find("do_syscall_64"), ("8", "8"));
    assert_eq!(find("main"), ("0", "99"));
    assert_eq!(find("shop+0x1a2b40"), ("1", "1"));
    assert_eq!(find("[incomplete: no_unwind_info]"), ("0", "1"));
}

#[test]
fn cpu_time_is_the_default() {
    let top = go_tool_pprof(&["-top"]);
    assert!(top.contains("Type: cpu") && top.contains("Duration: 2s, Total samples = 1000ms"), "{top}");
}

#[test]
fn labels_mappings_and_period() {
    let raw = go_tool_pprof(&["-raw"]);
    assert!(raw.contains("Period: 10000000"), "{raw}");
    assert!(raw.contains("process:[shop]") && raw.contains("thread:[io]"), "{raw}");
    assert!(raw.contains("pid:[41]") && raw.contains("tid:[42]"), "{raw}");
    assert!(raw.contains("shop c0ffee") && raw.contains("libc.so.6 beef"), "{raw}");
}

#[test]
fn nothing_recorded_is_a_file_too() {
    assert!(!pprof(&NamedProfile::default()).is_empty());
}
