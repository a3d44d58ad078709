//! Whether a stack reached its root, and if not, why: the reasons of the contract.

/// Complete, or the reason why a stack did not reach its root.
///
/// The numbers are stored on disk and shared with the kernel program (`bpf/abi.h`):
/// add at the end, never renumber.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Completeness {
    /// The outermost frame is a root: its return address is undefined by the unwind
    /// data, or it is a known entry.
    Complete = 0,
    /// The walk took 1,024 frames and there were more.
    DepthLimit = 1,
    /// The code at the last frame has no unwind data and no verifiable frame pointer.
    NoUnwindInfo = 2,
    /// A word of the stack could not be read (not resident, not mapped).
    UnreadableMemory = 3,
    /// A return address found by frame pointer did not prove to follow a call.
    UnverifiedFramePointer = 4,
    /// The process's mappings were rewritten while the walk was under way.
    TableChanged = 5,
    /// The walk used up its time in the interrupt.
    TimeLimit = 6,
    /// The program counter is in no executable mapping that is known.
    UnknownMapping = 7,
    /// The frames of this stack were lost on their way (only their id arrived).
    LostFrames = 8,
    /// The kernel had no user registers for this task.
    NoUserRegisters = 9,
    /// The sender does not say whether its stacks are complete.
    NotSaid = 10,
}

impl Completeness {
    /// Every value, in the order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::Complete,
        Self::DepthLimit,
        Self::NoUnwindInfo,
        Self::UnreadableMemory,
        Self::UnverifiedFramePointer,
        Self::TableChanged,
        Self::TimeLimit,
        Self::UnknownMapping,
        Self::LostFrames,
        Self::NoUserRegisters,
        Self::NotSaid,
    ];

    /// The name used on the wire and in the API (`complete` or the reason).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::DepthLimit => "depth_limit",
            Self::NoUnwindInfo => "no_unwind_info",
            Self::UnreadableMemory => "unreadable_memory",
            Self::UnverifiedFramePointer => "unverified_frame_pointer",
            Self::TableChanged => "table_changed",
            Self::TimeLimit => "time_limit",
            Self::UnknownMapping => "unknown_mapping",
            Self::LostFrames => "lost_frames",
            Self::NoUserRegisters => "no_user_registers",
            Self::NotSaid => "not_said",
        }
    }

    /// The value of a name, if it is one.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|value| value.as_str() == name)
    }

    /// The value of a number, if it is one.
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Whether the stack reached its root.
    pub fn is_complete(self) -> bool {
        self == Self::Complete
    }
}
