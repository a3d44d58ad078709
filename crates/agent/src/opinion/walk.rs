//! The second walk: framehop's, over a copy of registers and stack. In the worker only.

use std::time::{Duration, Instant};

use framehop::{FrameAddress, x86_64::UnwindRegsX86_64};

use super::{
    images::Images,
    message::{End, Module},
    row::Row,
};

/// Most frames of a walk; as many as the sampler takes.
const MAX_FRAMES: usize = 1024;
/// Longest time of a walk. Files whose unwind data is made to be slow are not worth more.
const LONGEST: Duration = Duration::from_secs(1);

/// Where the kernel left the registers for a handler to return to, from the stack pointer
/// at the return (`struct ucontext`): rbp, rsp, rip.
const SIGNAL_FP: u64 = 120;
const SIGNAL_SP: u64 = 160;
const SIGNAL_PC: u64 = 168;

/// The user registers and stack of a thread at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct State<'a> {
    pub pc: u64,
    pub sp: u64,
    pub fp: u64,
    /// From `sp` on.
    pub stack: &'a [u8],
}

impl State<'_> {
    fn read(&self, address: u64) -> Option<u64> {
        let at = usize::try_from(address.checked_sub(self.sp)?).ok()?;
        self.stack.get(at..)?.first_chunk().map(|word| u64::from_le_bytes(*word))
    }
}

/// Walks from the registers on. Frames are addresses of instructions: the first is where
/// the thread stands, the others lie inside the calls.
pub(super) fn walk(state: State<'_>, modules: &[Module], images: &mut Images) -> (Vec<u64>, End) {
    let until = Instant::now() + LONGEST;
    let mut registers = UnwindRegsX86_64::new(state.pc, state.sp, state.fp);
    let mut at = FrameAddress::from_instruction_pointer(state.pc);
    let mut frames = Vec::new();
    loop {
        let address = at.address_for_lookup();
        frames.push(address);
        if frames.len() >= MAX_FRAMES || Instant::now() > until {
            return (frames, End::Limit);
        }
        let module = modules.iter().find(|m| (m.start..m.end).contains(&address));
        let Some(&Module { bias, content, .. }) = module else { return (frames, End::NoModule) };
        let Some(image) = images.get(content) else { return (frames, End::NoUnwindData) };
        let Some((section, row)) = image.row(address.wrapping_sub(bias)) else { return (frames, End::NoUnwindData) };
        let (sp, fp) = (registers.sp(), registers.bp());
        let readable = match row {
            Row::End => return (frames, End::Root),
            Row::Unsupported => return (frames, End::Unsupported),
            Row::Signal => {
                let Some((pc, sp, fp)) = interrupted(&state, sp) else { return (frames, End::StackTooShort) };
                registers = UnwindRegsX86_64::new(pc, sp, fp);
                at = FrameAddress::from_instruction_pointer(pc);
                continue;
            }
            Row::Computed => state.read(sp.wrapping_add(8)).is_some(),
            Row::Plain { from_fp, offset, fp_at } => {
                let cfa = (if from_fp { fp } else { sp }).wrapping_add_signed(offset);
                if cfa <= sp {
                    return (frames, End::Lost);
                }
                // What was popped already may be said to lie below the stack pointer.
                let fp_lies = fp_at.map(|offset| cfa.wrapping_add_signed(offset)).filter(|lies| *lies >= sp);
                let mut needed = [Some(cfa.wrapping_sub(8)), fp_lies].into_iter().flatten();
                needed.all(|address| state.read(address).is_some())
            }
        };
        if !readable {
            return (frames, End::StackTooShort);
        }
        let lookup = match at {
            FrameAddress::InstructionPointer(pc) => FrameAddress::from_instruction_pointer(pc.wrapping_sub(bias)),
            FrameAddress::ReturnAddress(ra) => {
                match FrameAddress::from_return_address(u64::from(ra).wrapping_sub(bias)) {
                    Some(lookup) => lookup,
                    None => return (frames, End::NoUnwindData),
                }
            }
        };
        let read = &mut |address| state.read(address).ok_or(());
        match image.step(section, lookup, &mut registers, read) {
            Ok(None) => return (frames, End::Root),
            Ok(Some(ra)) => match FrameAddress::from_return_address(ra) {
                Some(next) => at = next,
                None => return (frames, End::Null),
            },
            Err(framehop::Error::CouldNotReadStack(_)) => return (frames, End::StackTooShort),
            Err(_) => return (frames, End::Lost),
        }
    }
}

fn interrupted(state: &State<'_>, sp: u64) -> Option<(u64, u64, u64)> {
    let word = |offset| state.read(sp.checked_add(offset)?);
    Some((word(SIGNAL_PC)?, word(SIGNAL_SP)?, word(SIGNAL_FP)?))
}
