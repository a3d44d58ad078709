//! What is known of the stack at an instruction: where the CFA, the caller's rbp and the frame pointer are.
use crate::instruction::Effect;
use crate::layout::{Rule, cfa, fp};

/// Where things are, as distances below the CFA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct State {
    sp: Option<i32>,
    /// The slot that holds the caller's rbp.
    saved: Option<i32>,
    /// What rbp points at, where it is a frame pointer.
    frame: Option<i32>,
    /// The caller's rbp is neither in the register nor in a known slot.
    lost: bool,
}

impl State {
    pub const ENTRY: Self = Self { sp: Some(8), saved: None, frame: None, lost: false };
    pub const UNKNOWN: Self = Self { sp: None, saved: None, frame: None, lost: true };

    /// How to unwind from here, if that is known.
    pub fn rule(&self) -> Option<Rule> {
        let rule = match (self.sp, self.frame) {
            (Some(sp), _) if sp >= 8 => Rule::of(cfa::SP, sp),
            (_, Some(frame)) if self.saved.is_some() => Rule::of(cfa::FP, frame),
            _ => return None,
        };
        Some(match self.saved {
            Some(slot) => rule.with_fp_at(-slot),
            None if self.lost => Rule { fp: fp::UNKNOWN, ..rule },
            None => rule,
        })
    }

    fn moved(&self, by: i32) -> Option<i32> {
        self.sp?.checked_add(by)
    }

    /// What is known behind an instruction.
    pub fn after(mut self, effect: Effect) -> Self {
        let in_register = self.saved.is_none() && !self.lost;
        match effect {
            Effect::Push { fp } => {
                self.sp = self.moved(8);
                if fp && in_register {
                    self.saved = self.sp;
                }
            }
            Effect::Pop { fp } => {
                if fp {
                    self.load_fp(self.sp);
                }
                self.sp = self.moved(-8);
            }
            Effect::AddSp(by) => self.sp = by.checked_neg().and_then(|by| self.moved(by)),
            Effect::LoseSp => self.sp = None,
            Effect::LoseFp => {
                self.frame = None;
                self.lost |= in_register;
            }
            Effect::SpFromFp(by) => self.sp = self.frame.and_then(|frame| frame.checked_sub(by)),
            Effect::FpFromSp(by) => {
                self.frame = by.checked_neg().and_then(|by| self.moved(by));
                self.lost |= in_register;
            }
            Effect::StoreFp(by) if in_register => self.saved = by.checked_neg().and_then(|by| self.moved(by)),
            Effect::LoadFp(by) => self.load_fp(by.checked_neg().and_then(|by| self.moved(by))),
            Effect::Leave => {
                self.sp = self.frame;
                self.load_fp(self.sp);
                self.sp = self.moved(-8);
            }
            Effect::None
            | Effect::StoreFp(_)
            | Effect::Call(_)
            | Effect::Jump(_)
            | Effect::Branch(_)
            | Effect::Address(_)
            | Effect::Return
            | Effect::Stop => {}
        }
        self
    }

    /// rbp is loaded from a slot.
    fn load_fp(&mut self, slot: Option<i32>) {
        self.frame = None;
        if slot.is_some() && slot == self.saved {
            self.saved = None;
            self.lost = false;
        } else if self.saved.is_none() {
            self.lost = true;
        }
    }
}
