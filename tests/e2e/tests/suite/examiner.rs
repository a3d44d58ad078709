//! The walk of the kernel program, built for this machine under the compiler's sanitizers,
//! against memory, rows and mappings made of any bytes (`bpf/host/fuzz.c`). A case that
//! breaks it is kept in `tests/corpus/step` and is tried first from then on.

use std::path::{Path, PathBuf};
use std::process::Command;

use everflame_tests::machine::{finish, output, repository};
use everflame_tests::runner::{Outcome, Skip};
use everflame_unwind::{Limits, Table, convert, function_ranges};

/// As many as `bpf/host/fuzz.c` takes.
const MAX_ELEMENTS: u32 = 1024;
const BIAS: u64 = 0x5555_0000_0000;
const SP: u64 = 0x7fff_ff00_0000;
const NUMBER: u32 = 9;

/// What is made wrong in the walk, and must be found: a read beyond an element, and frames
/// that are in no mapping.
const MISTAKES: [(&str, &str, &str); 2] =
    [("rows.h", "&rules[rule & 3]", "&rules[rule & 7]"), ("step.h", "if (!m || !holds(m, pc))", "if (!m)")];

/// Seconds of trying: `EVERFLAME_FUZZ_SECONDS`, or a few.
fn seconds() -> u64 {
    std::env::var("EVERFLAME_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(15)
}

pub fn hostile_memory_rows_and_mappings() -> Outcome {
    let folder = repository().join("target/examiner");
    let corpus = folder.join("corpus");
    std::fs::create_dir_all(&corpus).unwrap();
    let seeds = seeds(&corpus);
    assert!(seeds >= 3, "{seeds} seeds");
    let kept = repository().join("tests/corpus/step");
    std::fs::create_dir_all(&kept).unwrap();
    for architecture in ["x86", "arm64"] {
        let program = folder.join(format!("step-{architecture}"));
        build(&repository().join("bpf"), architecture, &program)?;
        let said = examine(&program, seconds(), &[&corpus, &kept], &kept);
        assert!(said.contains("Done "), "a case breaks the walk of {architecture}, see tests/corpus/step:\n{said}");
        let tried = said.lines().rev().find(|line| line.starts_with("Done ")).unwrap_or_default();
        println!("examiner of {architecture}: {tried}, from {seeds} seeds");
    }

    // An examiner that finds nothing in a walk that is broken is none.
    for (file, right, wrong) in MISTAKES {
        let broken = folder.join("bpf");
        output(Command::new("cp").arg("-rT").arg(repository().join("bpf")).arg(&broken));
        let path = broken.join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(right), "{file} does not say `{right}` any more: choose another mistake");
        std::fs::write(&path, text.replace(right, wrong)).unwrap();
        build(&broken, "x86", &folder.join("broken"))?;
        let said = examine(&folder.join("broken"), 60, &[&corpus], &folder);
        assert!(!said.contains("Done "), "`{wrong}` in {file} is not found out:\n{said}");
    }
    Ok(())
}

/// The walk of an architecture, as libbpf's headers call it, for this machine.
fn build(bpf: &Path, architecture: &str, program: &Path) -> Outcome {
    let candidates = [std::env::var("CLANG").unwrap_or_default(), "clang-19".into(), "clang".into()];
    for clang in candidates.iter().filter(|clang| !clang.is_empty()) {
        let mut command = Command::new(clang);
        command
            .args(["-g", "-O1", "-Wall", "-Werror", "-Wno-unused-function", "-fno-strict-aliasing", "-fwrapv"])
            .args(["-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"])
            .arg(format!("-D__TARGET_ARCH_{architecture}"))
            .arg(bpf.join("host/fuzz.c"))
            .arg("-o")
            .arg(program);
        let Ok(built) = command.output() else { continue };
        let errors = String::from_utf8_lossy(&built.stderr);
        if errors.contains("libclang_rt") {
            return Err(Skip("needs clang's sanitizers (scripts/setup.sh test)".into()));
        }
        assert!(built.status.success(), "{command:?}:\n{errors}");
        return Ok(());
    }
    Err(Skip("needs clang (scripts/setup.sh test)".into()))
}

/// Runs it and returns what it says; it says `Done` only where nothing was found.
fn examine(program: &Path, seconds: u64, corpora: &[&Path], keep: &Path) -> String {
    let ran = finish(
        Command::new(program)
            .args([
                "-seed=1",
                "-timeout=10",
                "-rss_limit_mb=1024",
                "-max_len=90000",
                "-print_final_stats=0",
                "-verbosity=1",
            ])
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-artifact_prefix={}/", keep.display()))
            .args(corpora),
    );
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    let lines: Vec<&str> = said.lines().filter(|line| !line.starts_with('#') && !line.starts_with('"')).collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

/// Cases of small real files: their tables, and stacks as their rules say.
fn seeds(corpus: &Path) -> usize {
    let listed = output(Command::new("find").args(["/usr/bin", "-size", "-40k", "-type", "f"]));
    let mut made = 0;
    for path in listed.lines().map(PathBuf::from) {
        let Ok(bytes) = std::fs::read(&path) else { continue };
        let Ok(table) = convert(&bytes, &Limits::default()) else { continue };
        let Ok(functions) = function_ranges(&bytes) else { continue };
        if table.elements() > MAX_ELEMENTS {
            continue;
        }
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        std::fs::write(corpus.join(format!("seed-{name}")), seed(&table, &functions)).unwrap();
        made += 1;
        if made == 12 {
            break;
        }
    }
    made
}

/// One mapping, one table, and a stack on which every function stands once.
fn seed(table: &Table, functions: &[(u64, u64)]) -> Vec<u8> {
    let middles: Vec<u64> = functions.iter().map(|(start, end)| start + (end - start) / 2).collect();
    let mut stack = Vec::new();
    for pair in middles.windows(2) {
        let size = usize::try_from(table.lookup(pair[0]).cfa_offset).unwrap_or(8).clamp(8, 4096);
        stack.resize(stack.len() + size - 8, 0x11);
        stack.extend((BIAS + pair[1] + 1).to_le_bytes());
    }
    let mut case = Vec::new();
    for word in [BIAS + middles.first().copied().unwrap_or_default(), SP, SP + 256] {
        case.extend(word.to_le_bytes());
    }
    let places = NUMBER as u8 + 1;
    case.extend([1, places]);
    case.extend((table.elements() as u16).to_le_bytes());
    case.extend([0; 4]);
    // struct mapping, then the words of `tables`, then the table.
    case.extend(BIAS.to_le_bytes());
    case.extend(BIAS.to_le_bytes());
    case.extend((1u32 << 20).to_le_bytes());
    case.extend(NUMBER.to_le_bytes());
    for number in 0..u32::from(places) {
        case.extend(u32::from(number == NUMBER).to_le_bytes());
    }
    case.extend(table.bytes());
    case.extend(stack);
    case
}
