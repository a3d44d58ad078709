//! Files of arm64, built or unpacked here: code that no unwind data describes, and Go's.
//! What files with unwind data say is in `oracle.rs`.
mod common;
use common::{find, go_program_for};
use everflame_unwind::layout::{RULE_SIGNAL, RULE_SWITCH, cfa, fp, ra};
use everflame_unwind::{Limits, Rule, Table, convert};
use gimli::{CfaRule, Register, UnwindSection};
use object::{Object, ObjectSection, ObjectSymbol};
use std::process::Command;

const CACHE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/.cache/arm64");
const LINK: i16 = 30;

fn table(bytes: &[u8]) -> Table {
    convert(bytes, &Limits::default()).expect("it has unwind data")
}

/// Start and end of a function; of what follows it where it does not say its size.
fn symbol(bytes: &[u8], name: &str) -> (u64, u64) {
    let file = object::File::parse(bytes).expect("ELF");
    let all = file.symbols().chain(file.dynamic_symbols());
    let found = all.into_iter().find(|s| s.name().is_ok_and(|n| n.strip_suffix(".abi0").unwrap_or(n) == name));
    let found = found.unwrap_or_else(|| panic!("no symbol {name}"));
    (found.address(), found.address() + found.size())
}

/// Where a pattern of instructions stands in a file's code.
fn place(bytes: &[u8], code: &[u32]) -> u64 {
    let pattern: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
    let file = object::File::parse(bytes).expect("ELF");
    let section = file.section_by_name(".text").expect("code");
    let at = section.data().expect("data").windows(pattern.len()).position(|w| w == pattern);
    section.address() + at.expect("it is there") as u64
}

/// What a function looks like that makes no frame.
fn in_link_register(rule: Rule, size: i32) -> bool {
    rule == Rule { ra: ra::REGISTER, ra_offset: LINK, ..Rule::of(cfa::SP, size) }
}

#[test]
fn musl_has_a_root_for_programs_and_for_threads_and_a_trampoline() {
    let Some(path) = find("musl for arm64", &[format!("{CACHE}/lib/aarch64-linux-musl/libc.so")]) else { return };
    let bytes = std::fs::read(path).expect("readable");
    let table = table(&bytes);
    // mov x8, #139; svc #0, and the byte before, where a handler's return address is looked up.
    let restore = place(&bytes, &[0xd280_1168, 0xd400_0001]);
    let frame = Rule { cfa_offset: 560, fp_offset: 544, ra_offset: 568, ..Rule::SIGNAL_FRAME };
    assert_eq!([restore - 1, restore, restore + 7].map(|pc| table.lookup(pc)), [frame; 3]);
    assert_eq!(frame.flags, RULE_SIGNAL);
    // ldp x1, x0, [sp], #16; blr x1
    let thread = place(&bytes, &[0xa8c1_03e1, 0xd63f_0020]);
    assert_eq!([thread, thread + 7, thread + 15].map(|pc| table.lookup(pc)), [Rule::END; 3]);
    assert!(in_link_register(table.lookup(thread - 1), 0), "the parent's half has its caller in the register");
    let entry = object::File::parse(&*bytes).expect("ELF").entry();
    assert_eq!([entry, entry + 24].map(|pc| table.lookup(pc)), [Rule::END; 2]);
    assert_ne!(table.lookup(entry + 28), Rule::END, "up to the jump and no further");
}

#[test]
fn glibc_says_itself_where_programs_and_threads_begin() {
    for (file, name) in [("libc.so.6", Some("clone")), ("ld-linux-aarch64.so.1", None)] {
        let Some(path) = find(file, &[format!("{CACHE}/lib/aarch64-linux-gnu/{file}")]) else { return };
        let bytes = std::fs::read(path).expect("readable");
        let table = table(&bytes);
        match name {
            Some(name) => {
                // The new thread's half follows the function.
                let (start, end) = symbol(&bytes, name);
                assert!(in_link_register(table.lookup(start), 0));
                assert!((start..end + 64).step_by(4).any(|pc| table.lookup(pc) == Rule::END), "{name}");
            }
            // nop, and then mov x29, #0
            None => assert_eq!(table.lookup(object::File::parse(&*bytes).expect("ELF").entry() + 4), Rule::END),
        }
    }
}

/// A program or library by the cross compiler; `None`, loudly, where there is none.
fn compile(source: &str, arguments: &[&str]) -> Option<Vec<u8>> {
    let directory = tempfile::tempdir().expect("a directory");
    let (file, program) = (directory.path().join("p.c"), directory.path().join("p"));
    std::fs::write(&file, source).expect("written");
    let done = Command::new("aarch64-linux-gnu-gcc").args(arguments).arg("-o").arg(&program).arg(&file).status();
    let Ok(done) = done else {
        eprintln!("SKIPPED: aarch64-linux-gnu-gcc is not on this machine");
        return None;
    };
    assert!(done.success());
    Some(std::fs::read(&program).expect("readable"))
}

#[test]
fn linkage_tables_keep_the_return_address_in_its_register() {
    let source = "#include <stdio.h>\nint main(void) { return puts(\"x\"); }\n";
    let Some(bytes) = compile(source, &["-O2", "-Wl,-z,lazy"]) else { return };
    let table = table(&bytes);
    let object = object::File::parse(&*bytes).expect("ELF");
    let plt = object.section_by_name(".plt").expect("a linkage table");
    let code = plt.data().expect("data");
    let push = code.chunks_exact(4).position(|word| word == [0xf0, 0x7b, 0xbf, 0xa9]).expect("it pushes") as u64;
    let pushed = plt.address() + 4 * (push + 1);
    assert!((plt.address()..pushed).all(|pc| in_link_register(table.lookup(pc), 0)));
    assert!((pushed..plt.address() + 32).all(|pc| in_link_register(table.lookup(pc), 16)));
    assert!((plt.address() + 32..plt.address() + plt.size()).all(|pc| in_link_register(table.lookup(pc), 0)));
}

/// The vDSO is such a file: a signal trampoline, functions without a frame and with one, no unwind data.
#[test]
fn code_is_followed_in_files_without_unwind_data() {
    let source = "asm(\".global trampoline\\ntrampoline: mov x8, #139\\n svc #0\");
        extern int other(int);
        int leaf(int a) { return a * 3 + (a > 7); }
        int caller(int a) { return other(a) + other(a + 1); }";
    let arguments = ["-O2", "-shared", "-nostdlib", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables"];
    let Some(bytes) = compile(source, &arguments) else { return };
    let table = table(&bytes);
    let (start, end) = symbol(&bytes, "leaf");
    assert!((start..end).all(|pc| in_link_register(table.lookup(pc), 0)));
    let (start, end) = symbol(&bytes, "caller");
    assert!(in_link_register(table.lookup(start), 0));
    let record = |pc: &u64| table.lookup(*pc).ra == ra::RECORD && table.lookup(*pc).fp == fp::CFA;
    assert!((start..end).step_by(4).filter(record).count() > 4);
    assert_eq!(table.lookup(symbol(&bytes, "trampoline").0).flags, RULE_SIGNAL);
}

const PROGRAM: &str = "package main
import \"fmt\"
type T struct { a [40]int }
func (t T) sum() (n int) { for _, v := range t.a { n += v }; return }
func main() { var t T; fmt.Println(t.sum(), fmt.Sprint(t)) }
";
/// Functions whose rows say more than sp deltas.
const CHANGE_STACKS: [&str; 6] = ["systemstack", "asmcgocall", "cgocallback", "mcall", "morestack", "gogo"];

/// Go's own `.debug_frame` tells sp, which is all that it tells.
#[test]
fn stack_pointers_of_go_agree_with_debug_frame() {
    let Some(bytes) = go_program_for("arm64", PROGRAM, &["-ldflags=-compressdwarf=false"]) else { return };
    let table = table(&bytes);
    let file = object::File::parse(&*bytes).expect("ELF");
    let switches: Vec<(u64, u64)> = file
        .symbols()
        .filter(|s| s.name().is_ok_and(|name| CHANGE_STACKS.iter().any(|part| name.contains(part))))
        .map(|s| (s.address(), s.address() + s.size()))
        .collect();
    let section = file.section_by_name(".debug_frame").expect("go writes .debug_frame");
    let frames = gimli::DebugFrame::new(section.data().expect("data"), gimli::LittleEndian);
    let bases = gimli::BaseAddresses::default();
    let mut context = gimli::UnwindContext::new();
    let mut entries = frames.entries(&bases);
    let (mut compared, mut special, mut with_record) = (0, 0, 0);
    while let Some(entry) = entries.next().expect("entry") {
        let gimli::CieOrFde::Fde(partial) = entry else { continue };
        let fde = partial.parse(|_, bases, offset| frames.cie_from_offset(bases, offset)).expect("FDE");
        if switches.iter().any(|(start, end)| *start <= fde.initial_address() && fde.initial_address() < *end) {
            continue;
        }
        let mut rows = fde.rows(&frames, &bases, &mut context).expect("rows");
        while let Some(row) = rows.next_row().expect("row") {
            let (start, end) = (row.start_address(), row.end_address());
            for pc in [start, end.saturating_sub(1)].into_iter().filter(|pc| (start..end).contains(pc)) {
                let rule = table.lookup(pc);
                if rule == Rule::END || rule.flags != 0 {
                    special += 1;
                    continue;
                }
                let CfaRule::RegisterAndOffset { register: Register(31), offset } = row.cfa() else {
                    panic!("{pc:#x}: {:?}", row.cfa());
                };
                if *offset < 0 {
                    // Behind a jump that never returns.
                    assert_eq!(rule, Rule::UNSUPPORTED, "{pc:#x}");
                    continue;
                }
                assert_eq!((rule.cfa, i64::from(rule.cfa_offset)), (cfa::SP, *offset), "{pc:#x}");
                let size = rule.cfa_offset;
                let bottom = (rule.fp_offset, rule.ra) == (-size - 8, ra::RECORD);
                let record = bottom && rule.fp == fp::CFA;
                assert!(if size == 0 { in_link_register(rule, 0) } else { bottom }, "{pc:#x}: {rule:?}");
                (compared, with_record) = (compared + 1, with_record + u32::from(record));
            }
        }
    }
    eprintln!("{compared} comparisons, {with_record} with a frame record, {special} in roots and trampolines");
    assert!(compared > 10_000 && with_record > 3_000 && special < 60, "{compared} {with_record} {special}");
}

#[test]
fn roots_and_changes_of_stack_of_go() {
    let Some(bytes) = go_program_for("arm64", PROGRAM, &[]) else { return };
    let table = table(&bytes);
    for name in ["runtime.goexit", "runtime.mstart", "runtime.rt0_go", "_rt0_arm64", "_rt0_arm64_linux"] {
        let (start, end) = symbol(&bytes, name);
        assert!((start..end).all(|pc| table.lookup(pc) == Rule::END), "{name}");
    }
    let (start, end) = symbol(&bytes, "runtime.systemstack");
    let rules: Vec<Rule> = (start..end).step_by(4).map(|pc| table.lookup(pc)).collect();
    assert!(in_link_register(rules[0], 0));
    let by_fp = |rule: &&Rule| rule.cfa == cfa::FP && rule.flags == RULE_SWITCH && rule.ra == ra::RECORD;
    let inside: Vec<&Rule> = rules.iter().filter(by_fp).collect();
    assert!(inside.len() > 20, "{rules:?}");
    assert!(inside.iter().all(|rule| rule.cfa_offset + rule.fp_offset == 0), "x29 points at the pair: {inside:?}");
    let (start, end) = symbol(&bytes, "runtime.mcall");
    assert!(in_link_register(table.lookup(start), 0));
    assert_eq!(table.lookup(end - 1), Rule::END, "Go's own walks end there too");
}
