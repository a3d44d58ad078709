//! Walks the stacks of another process's blocked threads with tables alone, as the kernel program would.
//!
//! `/proc/PID/task/TID/syscall` tells sp and pc of a thread that waits in a system call. Its
//! rbp is not told, so a walk that needs it before a frame restored it ends there.
use everflame_unwind::layout::{RULE_SIGNAL, RULE_SWITCH, cfa, fp, ra};
use everflame_unwind::peek::WINDOW;
use everflame_unwind::{Limits, Table, convert};
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// A child that does not outlive a test that fails.
pub struct Running(pub std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One thread's stack.
pub struct Stack {
    /// Virtual addresses in the file each frame is in, innermost first; callers are one byte before their return address.
    pub frames: Vec<u64>,
    /// The last frame is a root.
    pub complete: bool,
    /// The thread went on while it was walked, so nothing can be said.
    pub moved: bool,
}

struct Mapping {
    start: u64,
    end: u64,
    /// Added to a virtual address of the file.
    bias: u64,
    path: String,
}

/// The stacks of all threads of `pid` that wait in a system call.
pub fn threads(pid: u32) -> Vec<Stack> {
    let mappings = mappings(pid);
    let memory = File::open(format!("/proc/{pid}/mem")).expect("memory of a child");
    let mut tables = HashMap::new();
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("tasks");
    tasks
        .flatten()
        .filter_map(|task| {
            let call = || std::fs::read_to_string(task.path().join("syscall")).ok();
            let before = call()?;
            let mut stack = walk(&mappings, &memory, &mut tables, &before)?;
            stack.moved = call()? != before;
            Some(stack)
        })
        .collect()
}

fn walk(mappings: &[Mapping], memory: &File, tables: &mut HashMap<String, Option<Table>>, call: &str) -> Option<Stack> {
    let mut words = call.split_whitespace().rev().map(|w| u64::from_str_radix(w.trim_start_matches("0x"), 16));
    let (Some(Ok(mut pc)), Some(Ok(mut sp))) = (words.next(), words.next()) else { return None };
    let read = |at: u64| {
        let mut word = [0; 8];
        memory.read_exact_at(&mut word, at).ok().map(|()| u64::from_le_bytes(word))
    };
    let mut stack = Stack { frames: Vec::new(), complete: false, moved: false };
    let (mut fp, mut exact) = (None, true);
    while stack.frames.len() < 1000 {
        let at = if exact { pc } else { pc - 1 };
        let Some(mapping) = mappings.iter().find(|m| m.start <= at && at < m.end) else { break };
        let table = tables.entry(mapping.path.clone()).or_insert_with(|| {
            let bytes = std::fs::read(&mapping.path).ok()?;
            convert(&bytes, &Limits::default()).ok()
        });
        let Some(table) = table else { break };
        stack.frames.push(at - mapping.bias);
        let mut code = [0; WINDOW];
        let rule = match memory.read_exact_at(&mut code, at - 1) {
            Ok(()) if exact => table.lookup_leaf(at - mapping.bias, &code),
            _ => table.lookup(at - mapping.bias),
        };
        if rule.cfa == cfa::END {
            stack.complete = true;
            break;
        }
        let offset = i64::from(rule.cfa_offset);
        let frame = match rule.cfa {
            cfa::SP => Some(sp.wrapping_add_signed(offset)),
            cfa::FP => fp.map(|fp: u64| fp.wrapping_add_signed(offset)),
            cfa::PLT => Some(sp + if at & 15 >= offset as u64 { 16 } else { 8 }),
            cfa::DEREF_SP => read(sp.wrapping_add_signed(offset)).map(|v| v.wrapping_add_signed(rule.cfa_add.into())),
            cfa::DEREF_FP => fp
                .and_then(|fp| read(fp.wrapping_add_signed(offset)))
                .map(|v| v.wrapping_add_signed(rule.cfa_add.into())),
            _ => None,
        };
        let Some(frame) = frame else { break };
        if rule.flags & (RULE_SIGNAL | RULE_SWITCH) == 0 && frame <= sp {
            break;
        }
        let return_at = if rule.ra == ra::SP { sp.wrapping_add_signed(rule.ra_offset.into()) } else { frame - 8 };
        let saved = i64::from(rule.fp_offset);
        fp = match rule.fp {
            fp::SAME => fp,
            fp::CFA => read(frame.wrapping_add_signed(saved)),
            fp::SP => read(sp.wrapping_add_signed(saved)),
            fp::FP => fp.and_then(|fp| read(fp.wrapping_add_signed(saved))),
            _ => None,
        };
        let Some(caller) = read(return_at) else { break };
        exact = rule.flags & RULE_SIGNAL != 0;
        (pc, sp) = (caller, frame);
    }
    Some(stack)
}

fn mappings(pid: u32) -> Vec<Mapping> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("maps of a child");
    maps.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (start, end) = words.next()?.split_once('-')?;
            let flags = words.next()?;
            let offset = u64::from_str_radix(words.next()?, 16).ok()?;
            let path = words.nth(2)?.to_owned();
            if !flags.contains('x') || !path.starts_with('/') {
                return None;
            }
            let start = u64::from_str_radix(start, 16).ok()?;
            let end = u64::from_str_radix(end, 16).ok()?;
            // The segment that is mapped here says which virtual address its offset has.
            use object::{Object, ObjectSegment};
            let bytes = std::fs::read(&path).ok()?;
            let file = object::File::parse(&*bytes).ok()?;
            let segment = file.segments().find(|s| {
                let (at, size) = s.file_range();
                at & !0xfff <= offset && offset < at + size
            })?;
            let address = (segment.address() & !0xfff) + (offset - (segment.file_range().0 & !0xfff));
            Some(Mapping { start, end, bias: start.wrapping_sub(address), path })
        })
        .collect()
}
