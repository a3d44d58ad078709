//! Go programs: sp against Go's own .debug_frame, rbp and the changes of stacks on the stacks of a running program.
mod common;
mod walk;
use common::{go_build, go_program};
use everflame_unwind::layout::{RULE_SWITCH, cfa, fp};
use everflame_unwind::{Limits, Rule, convert, function_ranges};
use gimli::{CfaRule, Register, UnwindSection};
use object::{Object, ObjectSection, ObjectSymbol};
use std::process::{Command, Stdio};

const PLAIN: &str = "package main
import \"fmt\"
type T struct { a [40]int }
func (t T) sum() (n int) { for _, v := range t.a { n += v }; return }
func main() { var t T; fmt.Println(t.sum(), fmt.Sprint(t)) }
";

fn symbols(bytes: &[u8]) -> Vec<(u64, u64, String)> {
    let file = object::File::parse(bytes).expect("ELF");
    let code = file.symbols().filter(|s| s.kind() == object::SymbolKind::Text);
    let mut all: Vec<_> = code.map(|s| (s.address(), s.size(), s.name().unwrap_or_default().to_owned())).collect();
    all.sort();
    all
}

fn find(bytes: &[u8], name: &str) -> (u64, u64) {
    let all = symbols(bytes);
    let found = all.iter().find(|s| s.2 == name || s.2.strip_suffix(".abi0") == Some(name));
    found.map(|s| (s.0, s.1)).unwrap_or_else(|| panic!("no symbol {name}"))
}

/// Functions whose rows say more than sp deltas.
const CHANGE_STACKS: [&str; 9] = [
    "systemstack",
    "asmcgocall",
    "cgocallback",
    "mcall",
    "morestack",
    "gogo",
    "runtime.nanotime1",
    "runtime.walltime",
    "time.now",
];

#[test]
fn stack_pointers_agree_with_debug_frame() {
    for arguments in [&["-ldflags=-compressdwarf=false"][..], &["-ldflags=-compressdwarf=false", "-buildmode=pie"]] {
        let Some(bytes) = go_program(PLAIN, arguments) else { return };
        let table = convert(&bytes, &Limits::default()).expect("a table");
        let code = common::Code::of(&bytes);
        let file = object::File::parse(&*bytes).expect("ELF");
        let section = file.section_by_name(".debug_frame").expect("go writes .debug_frame");
        let frames = gimli::DebugFrame::new(section.data().expect("data"), gimli::LittleEndian);
        let bases = gimli::BaseAddresses::default();
        let except: Vec<(u64, u64)> = symbols(&bytes)
            .into_iter()
            .filter(|s| CHANGE_STACKS.iter().any(|name| s.2.contains(name)))
            .map(|s| (s.0, s.0 + s.1))
            .collect();
        let mut context = gimli::UnwindContext::new();
        let mut entries = frames.entries(&bases);
        let (mut compared, mut roots) = (0, 0);
        while let Some(entry) = entries.next().expect("entry") {
            let gimli::CieOrFde::Fde(partial) = entry else { continue };
            let fde = partial.parse(|_, bases, offset| frames.cie_from_offset(bases, offset)).expect("FDE");
            if except.iter().any(|(start, end)| *start <= fde.initial_address() && fde.initial_address() < *end) {
                continue;
            }
            let mut rows = fde.rows(&frames, &bases, &mut context).expect("rows");
            while let Some(row) = rows.next_row().expect("row") {
                if row.start_address() >= row.end_address() {
                    continue;
                }
                let (start, end) = (row.start_address(), row.end_address());
                let mut rules = vec![(start, table.lookup_leaf(start, &code.window(start)))];
                // No caller stands where nothing is called, and there the table may say something else.
                if !common::calls_nothing(code.from(start), end - start) {
                    rules.extend([(start, table.lookup(start)), (end - 1, table.lookup(end - 1))]);
                }
                for (pc, rule) in rules {
                    if rule == Rule::END || rule.flags != 0 {
                        roots += 1;
                        continue;
                    }
                    let CfaRule::RegisterAndOffset { register: Register(7), offset } = row.cfa() else {
                        panic!("{pc:#x}: {:?}", row.cfa());
                    };
                    if *offset < 8 {
                        // Behind a jump that never returns: there is no room for a return address.
                        assert_eq!(rule, Rule::UNSUPPORTED, "{pc:#x}");
                        continue;
                    }
                    assert_eq!((rule.cfa, i64::from(rule.cfa_offset)), (cfa::SP, *offset), "{pc:#x}");
                    compared += 1;
                }
            }
        }
        eprintln!("{compared} comparisons, {roots} in roots and trampolines");
        assert!(compared > 10_000 && roots < 40, "{compared} {roots}");
    }
}

#[test]
fn roots_and_changes_of_stack() {
    let Some(bytes) = go_program(PLAIN, &[]) else { return };
    let table = convert(&bytes, &Limits::default()).expect("a table");
    for name in ["runtime.goexit", "runtime.mstart", "runtime.rt0_go", "_rt0_amd64", "_rt0_amd64_linux"] {
        let (start, size) = find(&bytes, name);
        assert!((start..start + size).all(|pc| table.lookup(pc) == Rule::END), "{name}");
    }
    // goexit's return address is one byte behind its start and is looked up one byte before.
    assert_eq!(table.lookup(find(&bytes, "runtime.goexit").0 + 1 - 1), Rule::END);
    let (start, size) = find(&bytes, "runtime.systemstack");
    let inside = table.lookup(start + size / 2);
    assert_eq!((inside.cfa, inside.cfa_offset, inside.fp, inside.fp_offset), (cfa::FP, 16, fp::CFA, -16));
    assert_eq!(inside.flags, RULE_SWITCH);
    // The clock is read on the thread's first stack: of the goroutine's only the frame pointer is left.
    for name in ["runtime.nanotime1", "time.now"] {
        let (start, size) = find(&bytes, name);
        let call = (start..start + size).find(|pc| table.lookup(*pc).flags == RULE_SWITCH).expect("it changes stacks");
        let rule = table.lookup(call);
        assert_eq!((rule.cfa, rule.cfa_offset, rule.fp, rule.fp_offset), (cfa::FP, 16, fp::CFA, -16), "{name}");
    }
    let (start, _) = find(&bytes, "runtime.sigreturn__sigaction");
    assert_eq!([start - 1, start, start + 8].map(|pc| table.lookup(pc)), [Rule::SIGNAL_FRAME; 3]);
}

/// Where C calls back into Go the scheduler's stack may begin anywhere.
#[test]
fn with_callbacks_who_leaves_a_goroutine_is_a_root() {
    if Command::new("gcc").arg("--version").output().is_err() {
        return eprintln!("SKIPPED: cgo needs gcc");
    }
    let source = "package main\nimport \"C\"\n//export back\nfunc back() {}\nfunc main() { back() }\n";
    let Some(bytes) = go_program(source, &[]) else { return };
    let Some(plain) = go_program(PLAIN, &[]) else { return };
    for (bytes, root) in [(&bytes, true), (&plain, false)] {
        let table = convert(bytes, &Limits::default()).expect("a table");
        for name in ["runtime.mcall", "runtime.morestack"] {
            let (start, size) = find(bytes, name);
            assert_ne!(table.lookup(start), Rule::END, "{name} begins on the goroutine's stack");
            assert_eq!((start..start + size).any(|pc| table.lookup(pc) == Rule::END), root, "{name}");
        }
    }
}

#[test]
fn stripped_and_sectionless_programs_have_the_same_functions() {
    let Some(bytes) = go_program(PLAIN, &["-ldflags=-s -w"]) else { return };
    let ranges = function_ranges(&bytes).expect("ranges");
    assert!(ranges.len() > 1000);
    let mut bare = bytes.clone();
    bare[40..48].fill(0);
    bare[58..64].fill(0);
    assert_eq!(function_ranges(&bare).expect("ranges"), ranges);
    let Some(whole) = go_program(PLAIN, &[]) else { return };
    let functions = function_ranges(&whole).expect("ranges");
    for (start, _, name) in symbols(&whole).iter().filter(|s| s.2.starts_with("fmt.") || s.2.starts_with("main.")) {
        assert!(functions.binary_search_by_key(start, |r| r.0).is_ok(), "{name} at {start:#x}");
    }
}

/// Threads of a real program, stopped in system calls, walked to their roots by the table alone.
#[test]
fn threads_of_a_running_program_are_walked_to_their_roots() {
    let source = "package main
import (\"os\"; \"runtime\"; \"time\")
//go:noinline
func deep(n int) int { if n == 0 { b := make([]byte, 1); n, _ := os.Stdin.Read(b); return n }; return deep(n-1) + 1 }
func main() {
  for i := 0; i < 3; i++ { go func() { for { time.Sleep(time.Millisecond); runtime.GC() } }() }
  os.Stdout.Write([]byte(\"ready\\n\"))
  deep(30)
}
";
    let Some((_directory, program)) = go_build(source, &[]) else { return };
    let bytes = std::fs::read(&program).expect("readable");
    let symbols = symbols(&bytes);
    let name = |pc: u64| {
        let at = symbols.partition_point(|s| s.0 <= pc);
        at.checked_sub(1).map_or_else(String::new, |i| symbols[i].2.clone())
    };
    let mut child =
        Command::new(&program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map(walk::Running).expect("starts");
    let mut ready = [0; 6];
    std::io::Read::read_exact(child.0.stdout.as_mut().expect("piped"), &mut ready).expect("it says ready");
    std::thread::sleep(std::time::Duration::from_millis(200));
    let (mut walked, mut deepest, mut switched) = (0, 0, 0);
    for _ in 0..200 {
        for stack in walk::threads(child.0.id()) {
            let names: Vec<String> = stack.frames.iter().map(|pc| name(*pc)).collect();
            let Some(last) = names.last() else { continue };
            if stack.moved {
                continue;
            }
            walked += 1;
            let root = ["runtime.goexit", "runtime.mstart", "runtime.rt0_go"].iter().any(|r| last.starts_with(r));
            assert!(stack.complete && root, "{names:#?}");
            switched += usize::from(names.iter().any(|n| n.starts_with("runtime.mcall")));
            let recursion = names.iter().filter(|n| *n == "main.deep").count();
            if recursion > 0 {
                assert_eq!(recursion, 31, "{names:#?}");
                assert!(names.iter().any(|n| n == "main.main"), "{names:#?}");
                deepest += 1;
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    drop(child);
    eprintln!("{walked} stacks, {deepest} with the recursion, {switched} across mcall");
    assert!(walked > 200 && deepest > 10 && switched > 10, "{walked} {deepest} {switched}");
}

/// From Go into C, and from C back into Go: two changes of stack on one thread.
#[test]
fn calls_into_c_and_back_are_walked_across_all_stacks() {
    let source = "package main
/*
#include <time.h>
extern void back(void);
// The walk of this test learns rbp only where a frame has saved it.
static void rest(void) { struct timespec t = {0, 3000000}; nanosleep(&t, 0); __asm__ volatile(\"\" ::: \"rbp\"); }
static void callback(void) { back(); }
*/
import \"C\"
import (\"os\"; \"syscall\")
//go:noinline
func nap() { t := syscall.Timespec{Nsec: 3000000}; syscall.Nanosleep(&t, nil) }
//export back
func back() { nap() }
//go:noinline
func intoC() { for { C.rest() } }
//go:noinline
func intoCAndBack() { for { C.callback() } }
func main() { go intoCAndBack(); os.Stdout.Write([]byte(\"ready\\n\")); intoC() }
";
    if Command::new("gcc").arg("--version").output().is_err() {
        eprintln!("SKIPPED: gcc is not on this machine");
        return;
    }
    let Some((_directory, program)) = go_build(source, &[]) else { return };
    let bytes = std::fs::read(&program).expect("readable");
    let symbols = symbols(&bytes);
    let name = |pc: u64| symbols[symbols.partition_point(|s| s.0 <= pc).saturating_sub(1)].2.clone();
    let mut child = Command::new(&program).stdout(Stdio::piped()).spawn().map(walk::Running).expect("starts");
    let mut ready = [0; 6];
    std::io::Read::read_exact(child.0.stdout.as_mut().expect("piped"), &mut ready).expect("it says ready");
    let (mut into, mut back) = (0, 0);
    for _ in 0..300 {
        for stack in walk::threads(child.0.id()).iter().filter(|s| s.complete && !s.moved) {
            let names: Vec<String> = stack.frames.iter().map(|pc| name(*pc)).collect();
            let at = |wanted: &str| names.iter().position(|n| n == wanted || n.strip_suffix(".abi0") == Some(wanted));
            let ordered = |wanted: &[&str]| wanted.iter().map(|w| at(w)).is_sorted() && at(wanted[0]).is_some();
            into += usize::from(ordered(&["runtime.asmcgocall", "runtime.cgocall", "main.intoC", "main.main"]));
            back += usize::from(ordered(&[
                "main.nap",
                "runtime.cgocallback",
                "crosscall2",
                "runtime.asmcgocall",
                "runtime.cgocall",
                "main.intoCAndBack",
                "runtime.goexit",
            ]));
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    drop(child);
    eprintln!("{into} stacks into C, {back} into C and back");
    assert!(into > 20 && back > 20, "{into} {back}");
}
