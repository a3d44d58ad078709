//! Frames that general rules do not cover: roots, signal frames, the vDSO, code of musl, programs without sections.
mod common;
use common::libc;
use everflame_unwind::layout::{RULE_SIGNAL, cfa, fp, ra};
use everflame_unwind::{Error, Limits, Machine, Rule, Table, convert};
use object::{Object, ObjectSection, ObjectSymbol};
use std::path::{Path, PathBuf};
use std::process::Command;

fn table(bytes: &[u8]) -> Table {
    convert(bytes, &Limits::default()).expect("it has unwind data")
}

fn symbol(bytes: &[u8], name: &str) -> (u64, u64) {
    let file = object::File::parse(bytes).expect("an ELF file");
    let found = file.symbols().chain(file.dynamic_symbols()).find(|s| s.name() == Ok(name));
    let found = found.unwrap_or_else(|| panic!("no symbol {name}"));
    (found.address(), found.size())
}

fn section(bytes: &[u8], name: &str) -> (u64, Vec<u8>) {
    let file = object::File::parse(bytes).expect("an ELF file");
    let section = file.section_by_name(name).expect("the section is there");
    (section.address(), section.data().expect("data").to_vec())
}

fn compile(compiler: &str, source: &str, arguments: &[&str]) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let (file, program) = (directory.path().join("program.c"), directory.path().join("program"));
    std::fs::write(&file, source).expect("written");
    let done = Command::new(compiler).args(arguments).arg("-o").arg(&program).arg(&file).status();
    assert!(done.expect("the compiler runs").success(), "{compiler} {arguments:?}");
    (directory, program)
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).expect("readable")
}

#[test]
fn glibc_clone_is_a_root() {
    let bytes = libc();
    let table = table(&bytes);
    let (clone, size) = symbol(&bytes, "clone");
    // The child's half, behind the system call, says that there is no return address.
    let rules: Vec<u8> = (clone..clone + size).map(|pc| table.lookup(pc).cfa).collect();
    assert_eq!(rules[0], cfa::SP);
    assert!(rules.contains(&cfa::END), "{rules:?}");
}

#[test]
fn the_loader_is_a_root_until_it_jumps_to_the_program() {
    let Some(path) = common::find("the loader", &["/lib64/ld-linux-x86-64.so.2".into()]) else { return };
    let bytes = read(&path);
    let table = table(&bytes);
    let entry = object::File::parse(&*bytes).expect("ELF").entry();
    // mov rdi, rsp; call _dl_start; ... call _dl_init; ... jmp r12
    let (text, code) = section(&bytes, ".text");
    let start = (entry - text) as usize;
    let jump = code[start..].windows(3).position(|w| w == [0x41, 0xff, 0xe4]).expect("it jumps") as u64;
    for pc in [entry, entry + 7, entry + jump - 1, entry + jump] {
        assert_eq!(table.lookup(pc), Rule::END, "{pc:#x}");
    }
}

#[test]
fn beginnings_of_contexts_and_of_musls_threads_are_roots() {
    let bytes = libc();
    let (text, code) = section(&bytes, ".text");
    let place = |code: &[u8], pattern: &[u8]| code.windows(pattern.len()).position(|w| w == pattern);
    // mov rsp, rbx; mov rdi, [rsp]: makecontext has made the first function return here.
    let start = text + place(&code, &[0x48, 0x89, 0xdc, 0x48, 0x8b, 0x3c, 0x24]).expect("__start_context") as u64;
    let own = table(&bytes);
    for pc in [start - 1, start] {
        assert_eq!(own.lookup(pc), Rule::END, "{pc:#x}");
    }
    assert_ne!(own.lookup(start - 2), Rule::END);
    if Command::new("musl-gcc").arg("--version").output().is_err() {
        eprintln!("SKIPPED: musl-gcc is not on this machine");
        return;
    }
    let source = "#include <pthread.h>
        static void *f(void *x) { return x; }
        int main(void) { pthread_t t; return pthread_create(&t, 0, f, 0); }";
    let (_directory, program) = compile("musl-gcc", source, &["-O2", "-static"]);
    let bytes = read(&program);
    let (text, code) = section(&bytes, ".text");
    // pop rdi; call r9
    let call = text + place(&code, &[0x5f, 0x41, 0xff, 0xd1]).expect("clone calls the thread") as u64;
    assert_eq!(table(&bytes).lookup(call + 3), Rule::END);
}

#[test]
fn glibc_signal_trampoline_is_a_signal_frame() {
    let bytes = libc();
    let table = table(&bytes);
    let (text, code) = section(&bytes, ".text");
    let pattern = [0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05];
    let found = code.windows(9).position(|w| w == pattern).expect("glibc has __restore_rt");
    let start = text + found as u64;
    // The handler's return address is the first byte, and is looked up one byte before.
    for pc in [start - 1, start, start + 8] {
        let rule = table.lookup(pc);
        assert_eq!((rule.cfa, rule.cfa_offset, rule.cfa_add), (cfa::DEREF_SP, 160, 0), "{pc:#x}");
        assert_eq!((rule.fp, rule.fp_offset, rule.ra, rule.ra_offset), (fp::SP, 120, ra::SP, 168), "{pc:#x}");
        assert_eq!(rule.flags, RULE_SIGNAL, "{pc:#x}");
    }
}

#[test]
fn start_of_a_program_is_a_root() {
    for arguments in [&["-O2"][..], &["-O2", "-static"], &["-O2", "-static-pie"]] {
        let (_directory, program) = compile("cc", "int main(void) { return 0; }", arguments);
        let bytes = read(&program);
        let (start, size) = symbol(&bytes, "_start");
        assert_eq!(table(&bytes).lookup(start + size - 2), Rule::END, "{arguments:?}");
    }
}

#[test]
fn musl_start_and_trampoline_are_known_by_their_code() {
    if Command::new("musl-gcc").arg("--version").output().is_err() {
        eprintln!("SKIPPED: musl-gcc is not on this machine");
        return;
    }
    let source = "#include <signal.h>\nstatic void f(int s) { (void)s; }\nint main(void) { signal(SIGUSR1, f); return raise(SIGUSR1); }";
    let (_directory, program) = compile("musl-gcc", source, &["-O2", "-static", "-fasynchronous-unwind-tables"]);
    let bytes = read(&program);
    let table = table(&bytes);
    let (start, _) = symbol(&bytes, "_start");
    assert_eq!(table.lookup(start), Rule::END);
    let (next, _) = symbol(&bytes, "_start_c");
    assert_ne!(table.lookup(next), Rule::END, "what _start calls is no root");
    let (restore, _) = symbol(&bytes, "__restore_rt");
    assert_eq!([-1, 0, 8].map(|at| table.lookup(restore.wrapping_add_signed(at))), [Rule::SIGNAL_FRAME; 3]);
    let (main, _) = symbol(&bytes, "main");
    assert_eq!(table.lookup(main), Rule::of(cfa::SP, 8));
}

#[test]
fn stack_realignment_is_followed() {
    let source = "#define KEEP __attribute__((noipa))\nKEEP void g(void *);\nKEEP void f(int n) { char a[64] __attribute__((aligned(64))); char b[n]; a[0] = 1; g(a); g(b); }\nKEEP void g(void *p) { *(char *)p = 2; }\nint main(int c, char **v) { (void)v; f(c); return 0; }";
    let (_directory, program) = compile("cc", source, &["-O1", "-fno-inline", "-mstackrealign"]);
    let bytes = read(&program);
    let table = table(&bytes);
    let (f, size) = symbol(&bytes, "f");
    let rules: Vec<Rule> = (f..f + size).map(|pc| table.lookup(pc)).collect();
    let realigned: Vec<&Rule> = rules.iter().filter(|rule| rule.cfa == cfa::DEREF_FP).collect();
    assert!(!realigned.is_empty(), "{rules:?}");
    // rbp was pushed after the realignment, so it is no fixed distance from the CFA.
    assert!(realigned.iter().all(|rule| (rule.fp, rule.fp_offset) == (fp::FP, 0)), "{realigned:?}");
}

#[test]
fn the_running_kernels_vdso() {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
    let Some(line) = maps.lines().find(|l| l.ends_with("[vdso]")) else {
        eprintln!("SKIPPED: this process has no vDSO");
        return;
    };
    let range = line.split(' ').next().expect("a range");
    let (start, end) = range.split_once('-').expect("two addresses");
    let number = |text: &str| u64::from_str_radix(text, 16).expect("hexadecimal");
    let (start, end) = (number(start), number(end));
    let mut bytes = vec![0; (end - start) as usize];
    let memory = std::fs::File::open("/proc/self/mem").expect("own memory");
    std::os::unix::fs::FileExt::read_exact_at(&memory, &mut bytes, start).expect("vDSO is readable");
    let table = table(&bytes);
    let (time, size) = symbol(&bytes, "__vdso_clock_gettime");
    assert_eq!(table.lookup(time), Rule::of(cfa::SP, 8));
    let supported = (time..time + size).all(|pc| matches!(table.lookup(pc).cfa, cfa::SP | cfa::FP));
    assert!(supported, "every byte of the function can be unwound");
    let (_, rows) = common::oracle(&bytes);
    let code = common::Code::of(&bytes);
    for row in rows.iter().filter(|row| row.start < row.end) {
        let leaf = table.lookup_leaf(row.start, &code.window(row.start));
        if !common::same_by_code(&row.rule, &leaf, code.from(row.start)) {
            assert_eq!(leaf, row.rule, "{:#x}", row.start);
        }
        if !common::calls_nothing(code.from(row.start), row.end - row.start) {
            assert_eq!(table.lookup(row.end - 1), row.rule, "{:#x}", row.end - 1);
        }
    }
}

#[test]
fn without_sections_the_program_header_leads_to_the_same_table() {
    let bytes = libc();
    let whole = table(&bytes);
    let mut stripped = bytes.clone();
    stripped[40..48].fill(0); // e_shoff
    stripped[58..64].fill(0); // e_shentsize, e_shnum, e_shstrndx
    let bare = table(&stripped);
    let (_, rows) = common::oracle(&bytes);
    let same = rows.iter().filter(|r| bare.lookup(r.start) == whole.lookup(r.start)).count();
    assert_eq!(same, rows.len());
    let ranges = |bytes: &[u8]| everflame_unwind::function_ranges(bytes).expect("ranges");
    assert_eq!(ranges(&stripped), ranges(&bytes));
}

#[test]
fn debug_frame_fills_in_for_eh_frame() {
    let source =
        "int f(int n) { return n < 2 ? n : f(n - 1) + f(n - 2); }\nint main(int c, char **v) { (void)v; return f(c); }";
    let arguments = ["-O1", "-g", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "-fomit-frame-pointer"];
    let (_directory, program) = compile("cc", source, &arguments);
    let bytes = read(&program);
    let object = object::File::parse(&*bytes).expect("ELF");
    assert!(object.section_by_name(".debug_frame").is_some(), "the compiler wrote .debug_frame");
    let (f, size) = symbol(&bytes, "f");
    let table = table(&bytes);
    let kinds: Vec<(u8, i32)> = (f..f + size).map(|pc| (table.lookup(pc).cfa, table.lookup(pc).cfa_offset)).collect();
    assert_eq!(kinds[0], (cfa::SP, 8));
    assert!(kinds.iter().all(|k| k.0 == cfa::SP), "{kinds:?}");
    assert!(kinds.iter().any(|k| k.1 > 16), "{kinds:?}");
}

#[test]
fn compressed_debug_frame_says_the_same() {
    // Enough of it that packing pays.
    let many: String =
        (0..200).map(|i| format!("int g{i}(int n) {{ return n < {i} ? n : g{i}(n - 1) * 3; }}\n")).collect();
    let source = many
        + "int f(int n) { return n < 2 ? n : f(n - 1) + f(n - 2); }\nint main(int c, char **v) { (void)v; return f(c); }";
    let arguments = ["-O1", "-g", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "-fomit-frame-pointer"];
    let (directory, program) = compile("cc", &source, &arguments);
    let plain = read(&program);
    let (f, size) = symbol(&plain, "f");
    let rules = |bytes: &[u8]| (f..f + size).map(|pc| table(bytes).lookup(pc)).collect::<Vec<_>>();
    let expected = rules(&plain);
    for (how, kind) in [("zlib", 1u32), ("zstd", 2)] {
        let packed = directory.path().join(how);
        let option = format!("--compress-debug-sections={how}");
        let done = Command::new("objcopy").arg(option).arg(&program).arg(&packed).output().expect("objcopy runs");
        if !done.status.success() {
            eprintln!("SKIPPED: this objcopy does not know {how}");
            continue;
        }
        let mut bytes = read(&packed);
        let at = {
            let object = object::File::parse(&*bytes).expect("ELF");
            let section = object.section_by_name(".debug_frame").expect("it is there");
            section.compressed_file_range().expect("a range").offset as usize - 24
        };
        let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        if word(&bytes, at) != kind {
            eprintln!("SKIPPED: objcopy found {how} not worth it");
            continue;
        }
        assert_eq!(rules(&bytes), expected, "{how}");
        // A lie about its size, and packed bytes that are none, only lose the section.
        for (at, length) in [(at + 8, 8), (at + 24, 4)] {
            let mut broken = bytes.clone();
            broken[at..at + length].fill(0x7f);
            assert_eq!(rules(&broken), vec![Rule::NONE; expected.len()], "{how}");
        }
        bytes.truncate(at + 30);
        let _ = convert(&bytes, &Limits::default());
    }
}

#[test]
fn what_is_no_program_is_refused_with_a_reason() {
    let convert = |bytes: &[u8]| convert(bytes, &Limits::default()).map(|_| ()).expect_err("refused");
    assert_eq!(convert(b""), Error::NotElf);
    assert_eq!(convert(b"#!/bin/sh\n"), Error::NotElf);
    let mut bytes = libc();
    bytes[4] = 1;
    assert!(matches!(convert(&bytes), Error::Unsupported(_)));
    bytes[4] = 2;
    bytes[18] = 243; // EM_RISCV
    assert!(matches!(convert(&bytes), Error::Unsupported(_)));
    let other = Limits { machine: Some(Machine::Arm64), ..Limits::default() };
    assert!(matches!(everflame_unwind::convert(&libc(), &other), Err(Error::Unsupported(_))));
    let small = Limits { max_elements: 10, ..Limits::default() };
    let error = everflame_unwind::convert(&libc(), &small).map(|_| ()).expect_err("refused");
    assert!(matches!(error, Error::Limit { limit: 10, .. }), "{error}");
    let few = Limits { max_fdes: 10, ..Limits::default() };
    assert!(matches!(everflame_unwind::convert(&libc(), &few), Err(Error::Limit { limit: 10, .. })));
    let few = Limits { max_rows: 100, ..Limits::default() };
    assert!(matches!(everflame_unwind::convert(&libc(), &few), Err(Error::Limit { limit: 100, .. })));
}
