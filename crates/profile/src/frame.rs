//! Frames: where a stack stood, as the agent saw it, before names are put on.

use std::sync::Arc;

use crate::labels::Str;

/// 128 bits over what an executable's frames depend on: program headers,
/// `.eh_frame` and symbols. What is shared between processes and machines is keyed
/// by it, never by a build id alone, which any file can claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentId(pub u128);

impl ContentId {
    /// Reads 32 hexadecimal digits.
    pub fn parse(hex: &str) -> Option<Self> {
        if hex.len() != 32 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        u128::from_str_radix(hex, 16).ok().map(Self)
    }
}

impl std::fmt::Display for ContentId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// What kind of code a frame is in: OpenTelemetry's `profile.frame.type`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrameKind(pub Str);

impl FrameKind {
    /// Machine code of a file or of anonymous memory.
    pub const NATIVE: &'static str = "native";
    /// The kernel and its modules.
    pub const KERNEL: &'static str = "kernel";

    /// The name on the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The file that a frame's code came from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mapping {
    /// Base name of the file, `vmlinux`, `[vdso]`, a kernel module's name, or
    /// `[anon]` for code in anonymous memory.
    pub name: Str,
    /// GNU build id in lower-case hexadecimal, empty where there is none.
    pub build_id: Str,
    /// Absent where the sender did not say (other agents).
    pub content_id: Option<ContentId>,
}

/// One source-level function at a frame; several where functions were inlined.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Line {
    /// The function's name as it is to be shown.
    pub function: Str,
    /// Source file, empty where unknown.
    pub file: Str,
    /// Line in it, 0 where unknown.
    pub line: u32,
}

/// One frame of a stack.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Frame {
    /// Kind of code.
    pub kind: FrameKind,
    /// File of the code, where there is one.
    pub mapping: Option<Arc<Mapping>>,
    /// ELF virtual address of an instruction inside the frame's call (for callers
    /// the return address minus 1); 0 where there is none.
    pub address: u64,
    /// Names that came with the frame, innermost first. Empty for native frames of
    /// our agent: their names are put on at read time.
    pub lines: Vec<Line>,
}
