//! Every oddity of native stacks: small programs whose stacks are known frame by frame, all
//! under one agent. A stack that can be walked must be whole; one that cannot must say why, and
//! show the frames that are sure and no other.

use std::process::Command;
use std::time::Duration;

use everflame_tests::api::unix_now_seconds;
use everflame_tests::graph::{Graph, Path};
use everflame_tests::judge::{Judge, reaches_root};
use everflame_tests::machine::need_root;
use everflame_tests::target::built;
use everflame_tests::{Everflame, Outcome, Target};

/// What the stacks of a program must look like.
enum Truth {
    /// These functions in this order, outermost first, down from a root.
    Whole(&'static [&'static str]),
    /// The same, but for up to 15 in a thousand, which say that they are cut: while an exception
    /// passes, its own unwinder rewrites the stack that it stands on.
    Passing(&'static [&'static str]),
    /// Cut for this reason above exactly these user frames.
    Cut(&'static str, &'static [&'static str]),
    /// Cut for this reason, with the function as its leaf and that many user frames.
    CutAfter(&'static str, &'static str, usize),
}
use Truth::*;

struct Case {
    program: &'static str,
    arguments: &'static [&'static str],
    truth: Truth,
}

const fn case(program: &'static str, arguments: &'static [&'static str], truth: Truth) -> Case {
    Case { program, arguments, truth }
}

/// CPU seconds of each, and how long it sleeps before, until its tables are there.
const SECONDS: &str = "1.1";
const WARM_UP: f64 = 4.0;
const RATE: u32 = 499;
/// Of about 550; where the handlers of signals are meant, half of them or less.
const ENOUGH: u64 = 100;

const CASES: &[Case] = &[
    case("frames_O0", &["plain"], Whole(&["main", "outer", "plain", "leaf"])),
    case("frames_O1", &["plain"], Whole(&["main", "outer", "plain", "leaf"])),
    case("frames_O3", &["plain"], Whole(&["main", "outer", "plain", "leaf"])),
    case("frames_Os", &["plain"], Whole(&["main", "outer", "plain", "leaf"])),
    case("frames_fp", &["plain"], Whole(&["main", "outer", "plain", "leaf"])),
    case("frames_lto", &["plain"], Whole(&["main", "outer", "plain", "leaf"])),
    case("frames_gold", &["plain"], Whole(&["main", "outer", "plain", "leaf"])),
    case("frames_clang", &["plain"], Whole(&["main", "outer", "plain", "leaf"])),
    case("frames_static", &["plain"], Whole(&["main", "outer", "plain", "leaf"])),
    case("frames_static_pie", &["plain"], Whole(&["main", "outer", "plain", "leaf"])),
    case("frames_musl", &["plain"], Whole(&["main", "outer", "plain", "leaf"])),
    case("frames_musl_dynamic", &["plain"], Whole(&["main", "outer", "plain", "leaf"])),
    // Frames by themselves.
    case("frames_O2", &["large"], Whole(&["main", "outer", "large_frame", "leaf"])),
    case("frames_O2", &["variable"], Whole(&["main", "outer", "variable_frame", "leaf"])),
    case("frames_O2", &["aligned"], Whole(&["main", "outer", "aligned_frame", "leaf"])),
    case("frames_clang", &["aligned"], Whole(&["main", "outer", "aligned_frame", "leaf"])),
    case("frames_O2", &["realigned"], Whole(&["main", "outer", "realigned_frame", "leaf"])),
    case("frames_O2", &["edges"], Whole(&["main", "outer", "aligned_edges"])),
    case("frames_O2", &["noreturn"], Whole(&["main", "outer", "ends_in_call", "never_returns", "leaf"])),
    case("frames_clang", &["noreturn"], Whole(&["main", "outer", "ends_in_call", "never_returns", "leaf"])),
    // Code that others wrote: libc's assembly, the kernel's vDSO, the linker's stubs.
    case("frames_O2", &["strings"], Whole(&["main", "outer", "strings"])),
    case("frames_static", &["strings"], Whole(&["main", "outer", "strings"])),
    case("frames_musl", &["strings"], Whole(&["main", "outer", "strings"])),
    case("frames_musl_dynamic", &["strings"], Whole(&["main", "outer", "strings"])),
    case("frames_O2", &["clocks"], Whole(&["main", "outer", "clocks"])),
    case("frames_musl", &["clocks"], Whole(&["main", "outer", "clocks"])),
    case("plt", &[], Whole(&["main", "outer", "calls"])),
    case("plt_ibt", &[], Whole(&["main", "outer", "calls"])),
    case("plt_none", &[], Whole(&["main", "outer", "calls"])),
    // Beginnings and ends of programs, threads and stacks.
    case("frames_static", &["thread"], Whole(&["thread", "leaf"])),
    case("frames_O2", &["thread"], Whole(&["thread", "leaf"])),
    case("frames_musl", &["thread"], Whole(&["thread", "leaf"])),
    case("frames_O2", &["exit"], Whole(&["at_exit", "leaf"])),
    case("frames_musl", &["exit"], Whole(&["at_exit", "leaf"])),
    case("frames_vfork", &["vfork"], Whole(&["main", "outer", "vforked", "leaf"])),
    case("plt_none", &["CONSTRUCTOR_SECONDS=1.1"], Whole(&["constructor"])),
    case("frames_O2", &["context"], Whole(&["coroutine", "leaf"])),
    // Signals, each within another.
    case("interrupted", &["plain"], Whole(&["main", "outer", "interrupted", "first", "second"])),
    case("interrupted", &["siginfo"], Whole(&["main", "outer", "interrupted", "first", "second"])),
    case("interrupted", &["altstack"], Whole(&["main", "outer", "interrupted", "first", "second"])),
    case("interrupted", &["sent"], Whole(&["main", "outer", "interrupted", "first", "second"])),
    case("interrupted_musl", &["plain"], Whole(&["main", "outer", "interrupted", "first", "second"])),
    case("interrupted_musl", &["altstack"], Whole(&["main", "outer", "interrupted", "first", "second"])),
    // What is in flight.
    case("in_flight", &["coroutines"], Whole(&["main", "outer", "resumes", "leaf"])),
    case("in_flight", &["exceptions"], Passing(&["main", "outer", "throws"])),
    case("panics", &[], Passing(&["panics::main", "panics::outer"])),
    case("cgo", &["down"], Whole(&["main.main", "main.outer", "outer_of_c", "leaf"])),
    // What cannot be walked.
    case("damaged", &["unreadable"], Cut("unreadable_memory", &["hidden", "hides", "leaf"])),
    case("damaged", &["self"], CutAfter("no_unwind_info", "lost", 2)),
    case("damaged", &["backwards"], CutAfter("no_unwind_info", "lost", 2)),
    case("damaged", &["stray"], Cut("unverified_frame_pointer", &["lost"])),
    case("damaged", &["unproven"], Cut("unverified_frame_pointer", &["lost"])),
    case("damaged", &["ladder"], CutAfter("depth_limit", "lost", 1024)),
    case("i386", &[], CutAfter("no_unwind_info", "", 1)),
    case("damaged", &["trampoline"], CutAfter("depth_limit", "on_stack", 1024)),
];

pub fn every_shape_of_stack() -> Outcome {
    need_root()?;
    let programs = CASES.iter().map(|case| built(case.program)).collect::<Result<Vec<_>, _>>()?;
    let up = Everflame::up(RATE);
    let warm_up = WARM_UP.to_string();
    let animals: Vec<(Target, f64)> = CASES
        .iter()
        .zip(&programs)
        .map(|(case, path)| {
            let mut command = Command::new(path);
            for argument in case.arguments {
                match argument.split_once('=') {
                    Some((name, value)) => command.env(name, value),
                    None => command.arg(argument),
                };
            }
            let animal = Target::spawn(command.args([SECONDS, &warm_up]));
            (animal, unix_now_seconds() + WARM_UP - 0.2)
        })
        .collect();
    std::thread::sleep(Duration::from_secs(1));
    let mut files: Vec<_> = animals.iter().flat_map(|(animal, _)| animal.files()).collect();
    files.sort();
    files.dedup();
    let judges: Vec<Judge> = files.iter().map(|path| Judge::new(path)).collect();
    let pids: Vec<(u32, f64)> = animals
        .into_iter()
        .map(|(animal, from)| {
            let pid = animal.pid();
            animal.truth();
            (pid, from)
        })
        .collect();
    up.api().settle("{}", Duration::from_secs(4));

    let mut wrong = String::new();
    for (case, (pid, from)) in CASES.iter().zip(pids) {
        // By the program where there is one such case, for children are part of it.
        let alone = CASES.iter().filter(|other| other.program == case.program).count() == 1;
        let query = if alone { format!("{{process=\"{}\"}}", case.program) } else { format!("{{pid=\"{pid}\"}}") };
        let graph = up.api().graph_with(&query, &[("from", &format!("{from:.3}"))]);
        let name = format!("{} {}", case.program, case.arguments.join(" "));
        match case.truth.judge(&graph, &judges) {
            Ok(found) => println!("{name}: {found}"),
            Err(problem) => wrong.push_str(&format!("{name}: {problem}\n")),
        }
    }
    assert!(wrong.is_empty(), "stacks that are not what they should be:\n{wrong}");
    Ok(())
}

impl Truth {
    fn judge(&self, graph: &Graph, judges: &[Judge]) -> Result<String, String> {
        // What a stack must be; and of the others, which ones are of no interest: those that
        // are outside of what the program is about (its start, its end, a print).
        let right = |path: &Path| match *self {
            Whole(chain) => path.has_chain(chain) && reaches_root(path, judges) && !path.marked(),
            Passing(chain) => path.marked() || path.has_chain(chain) && reaches_root(path, judges),
            Cut(reason, frames) => {
                cut_for(path, reason) && user_frames(path).take(frames.len()).eq(frames.iter().copied())
            }
            CutAfter(reason, leaf, times) => {
                cut_for(path, reason)
                    && user_frames(path).last().is_some_and(|last| leaf.is_empty() || last == leaf)
                    && user_frames(path).count() == times
            }
        };
        let beside = |path: &Path| {
            let about = match *self {
                Whole(chain) | Passing(chain) => chain.last().copied(),
                Cut(_, frames) => frames.last().copied(),
                CutAfter(_, leaf, _) => Some(leaf),
            };
            // One that ends has no mappings any more, and says so.
            let ends = path.has("do_exit") && user_frames(path).count() <= 1;
            ends || reaches_root(path, judges) && !path.marked() && !about.is_some_and(|function| path.has(function))
        };
        // A thread that waits for the very page of code it stands on: what tells its frame cannot
        // be read in the interrupt, and it says so. One in thousands, when pages are fetched.
        let fetches = |path: &Path| {
            cut_for(path, "unreadable_memory") && path.has("exc_page_fault") && user_frames(path).count() == 1
        };
        // The loader that binds a name at its first call: its resolver's frame stands on rbx, which the
        // walk in the kernel loses in some function between. Outside of what the program is about,
        // and it says so; seen once in some 30,000.
        let binds = |path: &Path| {
            cut_for(path, "no_unwind_info")
                && path
                    .frames
                    .iter()
                    .filter(|frame| frame.kind == "native")
                    .all(|frame| frame.mapping.starts_with("ld-linux"))
        };
        let (good, other) = (graph.count(right), graph.count(|path| !right(path) && beside(path)));
        let rare = graph.count(|path| !right(path) && !beside(path) && (fetches(path) || binds(path)));
        let bad = graph.samples - good - other - if rare * 200 > graph.samples { 0 } else { rare };
        let passing = matches!(self, Passing(_)) && graph.count(Path::marked) * 1000 > graph.samples * 15;
        if bad > 0 || good < ENOUGH || passing {
            let shown = graph.heaviest(|path| !right(path) && (!beside(path) || good < ENOUGH));
            return Err(format!("{good} right, {other} beside, {bad} wrong ({:?}):\n{shown}", graph.incomplete));
        }
        Ok(format!("{good} samples, {other} beside"))
    }
}

fn cut_for(path: &Path, reason: &str) -> bool {
    path.frames.iter().any(|frame| frame.kind == "marker" && frame.name == format!("[incomplete: {reason}]"))
}

/// Names of the user frames, outermost first.
fn user_frames(path: &Path) -> impl Iterator<Item = &str> {
    path.frames.iter().filter(|frame| frame.kind == "native").map(|frame| frame.name.as_str())
}
