//! A profile whose frames have their names: what is written to files that other
//! programs read.

use std::sync::Arc;

use crate::{completeness::Completeness, frame::Mapping, labels::Str};

/// Samples of CPU time with names, as recorded on one machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamedProfile {
    /// Unix time at which it begins, in nanoseconds.
    pub time: i64,
    /// How long it was recorded, in nanoseconds.
    pub duration: i64,
    /// Time between two samples of a CPU, in nanoseconds.
    pub period: i64,
    /// The samples, in any order; equal ones need not have been summed.
    pub samples: Vec<NamedSample>,
}

/// A stack and how often it was seen in one thread.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NamedSample {
    /// **Leaf first**, inlined functions before the function they are in.
    pub frames: Vec<NamedFrame>,
    /// Name of the process.
    pub process: Str,
    /// Its id, 0 where unknown.
    pub pid: u32,
    /// Name of the thread.
    pub thread: Str,
    /// Its id, 0 where unknown.
    pub tid: u32,
    /// How many samples.
    pub count: u64,
    /// How much CPU time, in nanoseconds.
    pub value: i64,
    /// Whether the stack reached its root.
    pub completeness: Completeness,
}

/// One function of a stack.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NamedFrame {
    /// As it is to be shown.
    pub function: Str,
    /// Source file, empty where unknown.
    pub file: Str,
    /// Line in it, 0 where unknown.
    pub line: u32,
    /// Whether it is code of the kernel.
    pub kernel: bool,
    /// Whether it was inlined into the frame after it and so has the same address.
    pub inlined: bool,
    /// File of the code, where there is one.
    pub mapping: Option<Arc<Mapping>>,
    /// ELF virtual address, 0 where there is none.
    pub address: u64,
}

impl NamedSample {
    /// What stands at the root of a stack that did not reach its own:
    /// `[incomplete: REASON]`.
    pub fn marker(&self) -> Option<String> {
        (!self.completeness.is_complete()).then(|| format!("[incomplete: {}]", self.completeness.as_str()))
    }
}
