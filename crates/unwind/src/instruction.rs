//! x86-64 instructions, decoded as far as following the stack pointer needs: length, flow, and what becomes of rsp and rbp.

/// What an instruction means for the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing.
    None,
    /// rsp goes down 8; rbp is stored there or not.
    Push {
        fp: bool,
    },
    /// rsp goes up 8; rbp is loaded from there or not.
    Pop {
        fp: bool,
    },
    /// rsp changes by this much.
    AddSp(i32),
    /// rsp becomes something that cannot be followed.
    LoseSp,
    /// rbp becomes something that is not told.
    LoseFp,
    /// rsp = rbp + offset
    SpFromFp(i32),
    /// rbp = rsp + offset
    FpFromSp(i32),
    /// rbp is stored at rsp + offset.
    StoreFp(i32),
    /// rbp is loaded from rsp + offset.
    LoadFp(i32),
    Leave,
    /// Relative to the next instruction.
    Call(Option<i32>),
    Jump(Option<i32>),
    Branch(i32),
    /// The address of something near is taken.
    Address(i32),
    Return,
    /// Halt, trap.
    Stop,
}

/// A decoded instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instruction {
    pub length: u8,
    pub effect: Effect,
    /// Does nothing: padding, perhaps.
    pub nop: bool,
}

const RSP: u8 = 4;
const RBP: u8 = 5;

struct Decoder<'a> {
    code: &'a [u8],
    at: usize,
    rex: u8,
    /// 0x66 was seen.
    short: bool,
}

/// Register or memory operand.
struct Operands {
    /// Register number of the reg field, with REX.
    reg: u8,
    /// Register number of a register operand.
    rm: Option<u8>,
    /// Base register (none for rip) and displacement of a memory operand without index.
    memory: Option<(Option<u8>, i32)>,
}

/// The instruction at the start of `code`; `None` if it is cut off or not one of the known.
pub(crate) fn decode(code: &[u8]) -> Option<Instruction> {
    // No instruction is longer than 15 bytes.
    let code = &code[..code.len().min(15)];
    let mut d = Decoder { code, at: 0, rex: 0, short: false };
    let effect = d.instruction()?;
    let bytes = &code[..d.at];
    let opcode = bytes.iter().position(|b| !matches!(b, 0x66 | 0x2e | 0xf3 | 0x48)).map(|i| &bytes[i..]);
    let nop = matches!(opcode, Some([0x90 | 0xcc] | [0x0f, 0x1f, ..]));
    Some(Instruction { length: d.at as u8, effect, nop })
}

impl Decoder<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.code.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn skip(&mut self, bytes: usize) -> Option<()> {
        self.at += bytes;
        (self.at <= self.code.len()).then_some(())
    }

    fn signed8(&mut self) -> Option<i32> {
        self.byte().map(|b| i32::from(b.cast_signed()))
    }

    fn signed32(&mut self) -> Option<i32> {
        let bytes = self.code.get(self.at..)?.first_chunk()?;
        self.at += 4;
        Some(i32::from_le_bytes(*bytes))
    }

    /// An immediate of the operand's size, 32 bits at most.
    fn immediate(&mut self) -> Option<i32> {
        if self.short {
            self.skip(2)?;
            return Some(0);
        }
        self.signed32()
    }

    fn operands(&mut self) -> Option<Operands> {
        let byte = self.byte()?;
        let (mode, rm) = (byte >> 6, byte & 7);
        let reg = (byte >> 3 & 7) | (self.rex & 4) << 1;
        let extended = (self.rex & 1) << 3;
        if mode == 3 {
            return Some(Operands { reg, rm: Some(rm | extended), memory: None });
        }
        let (mut base, mut simple) = (Some(rm | extended), true);
        if rm == 4 {
            let sib = self.byte()?;
            base = Some((sib & 7) | extended);
            simple = sib >> 3 & 7 == 4 && self.rex & 2 == 0;
            if sib & 7 == 5 && mode == 0 {
                self.skip(4)?;
                return Some(Operands { reg, rm: None, memory: None });
            }
        } else if rm == 5 && mode == 0 {
            base = None;
        }
        let displacement = match (mode, base) {
            (0, Some(_)) => 0,
            (1, _) => self.signed8()?,
            _ => self.signed32()?,
        };
        Some(Operands { reg, rm: None, memory: simple.then_some((base, displacement)) })
    }

    fn instruction(&mut self) -> Option<Effect> {
        let mut opcode = self.byte()?;
        while matches!(opcode, 0x66 | 0xf2 | 0xf3 | 0xf0 | 0x2e | 0x36 | 0x3e | 0x26 | 0x64 | 0x65) {
            self.short |= opcode == 0x66;
            opcode = self.byte()?;
        }
        if opcode & 0xf0 == 0x40 {
            self.rex = opcode & 0xf;
            opcode = self.byte()?;
            if self.rex & 8 != 0 {
                self.short = false;
            }
        }
        match opcode {
            0x0f => self.two_bytes(),
            0xc5 => {
                self.skip(1)?;
                self.vector(1)
            }
            0xc4 => {
                let map = self.byte()? & 0x1f;
                self.skip(1)?;
                self.vector(map)
            }
            0x62 => {
                let map = self.byte()? & 7;
                self.skip(2)?;
                self.vector(map)
            }
            _ => self.one_byte(opcode),
        }
    }

    /// VEX and EVEX: nothing here touches rsp or rbp, except for a few that nobody saves rbp for.
    fn vector(&mut self, map: u8) -> Option<Effect> {
        let opcode = self.byte()?;
        if map == 1 && opcode == 0x77 {
            return Some(Effect::None);
        }
        self.operands()?;
        let immediate = match map {
            1 => matches!(opcode, 0x70..=0x73 | 0xc2 | 0xc4..=0xc6),
            2 => false,
            3 => true,
            _ => return None,
        };
        self.skip(usize::from(immediate))?;
        Some(Effect::None)
    }

    fn two_bytes(&mut self) -> Option<Effect> {
        let opcode = self.byte()?;
        match opcode {
            0x0b => return Some(Effect::Stop),
            0x80..=0x8f => return self.signed32().map(Effect::Branch),
            0x05 | 0x06 | 0x08 | 0x09 | 0x30..=0x33 | 0x77 | 0xa2 => return Some(Effect::None),
            0xc8..=0xcf => return Some(self.writes((opcode & 7) | (self.rex & 1) << 3)),
            0x38 => {
                self.skip(1)?;
                self.operands()?;
                return Some(Effect::None);
            }
            0x3a => {
                self.skip(1)?;
                self.operands()?;
                return self.skip(1).map(|()| Effect::None);
            }
            0x04 | 0x07 | 0x0a | 0x0c | 0x0e | 0x0f | 0x24..=0x27 | 0x34..=0x3f | 0xa0 | 0xa1 | 0xa6..=0xaa | 0xff => {
                return None;
            }
            _ => {}
        }
        let operands = self.operands()?;
        self.skip(usize::from(matches!(opcode, 0x70..=0x73 | 0xa4 | 0xac | 0xba | 0xc2 | 0xc4..=0xc6)))?;
        let general = matches!(opcode, 0x2c | 0x2d | 0x40..=0x50 | 0xaf | 0xb6..=0xb8 | 0xbc..=0xbf | 0xc5 | 0xd7);
        Some(if general { self.writes(operands.reg) } else { Effect::None })
    }

    fn writes(&self, register: u8) -> Effect {
        match register {
            RSP => Effect::LoseSp,
            RBP => Effect::LoseFp,
            _ => Effect::None,
        }
    }

    fn one_byte(&mut self, opcode: u8) -> Option<Effect> {
        let low = (opcode & 7) | (self.rex & 1) << 3;
        Some(match opcode {
            0x00..=0x3f => match opcode & 7 {
                0..=3 => {
                    let operands = self.operands()?;
                    // Compare writes nothing; 8-bit registers are never rsp or rbp in practice.
                    match (opcode & 7, opcode >= 0x38) {
                        (1, false) => operands.rm.map_or(Effect::None, |rm| self.writes(rm)),
                        (3, false) => self.writes(operands.reg),
                        _ => Effect::None,
                    }
                }
                4 => self.skip(1).map(|()| Effect::None)?,
                5 => self.immediate().map(|_| Effect::None)?,
                _ => return None,
            },
            0x50..=0x57 if self.short => return None,
            0x50..=0x57 => Effect::Push { fp: low == RBP },
            0x58..=0x5f if self.short => return None,
            0x58..=0x5f if low == RSP => Effect::LoseSp,
            0x58..=0x5f => Effect::Pop { fp: low == RBP },
            0x63 => {
                let operands = self.operands()?;
                self.writes(operands.reg)
            }
            0x68 => self.immediate().map(|_| Effect::Push { fp: false })?,
            0x69 | 0x6b => {
                let operands = self.operands()?;
                if opcode == 0x69 {
                    self.immediate().map(drop)?
                } else {
                    self.skip(1)?
                }
                self.writes(operands.reg)
            }
            0x6a => self.skip(1).map(|()| Effect::Push { fp: false })?,
            0x70..=0x7f | 0xe0..=0xe3 => Effect::Branch(self.signed8()?),
            0x81 | 0x83 => {
                let operands = self.operands()?;
                let value = if opcode == 0x81 { self.immediate()? } else { self.signed8()? };
                match (operands.reg & 7, operands.rm) {
                    (7, _) | (_, None) => Effect::None,
                    (0, Some(RSP)) if self.rex & 8 != 0 => Effect::AddSp(value),
                    (5, Some(RSP)) if self.rex & 8 != 0 => Effect::AddSp(value.checked_neg()?),
                    (_, Some(rm)) => self.writes(rm),
                }
            }
            0x80 | 0xc0 | 0xc6 => {
                self.operands()?;
                self.skip(1).map(|()| Effect::None)?
            }
            0x84..=0x86 | 0x88 | 0x8a | 0xd0 | 0xd2 | 0xd8..=0xdf => self.operands().map(|_| Effect::None)?,
            0x87 => {
                let operands = self.operands()?;
                let registers = [Some(operands.reg), operands.rm];
                let found = registers.into_iter().flatten().find(|r| matches!(*r, RSP | RBP));
                found.map_or(Effect::None, |r| self.writes(r))
            }
            0x89 => {
                let operands = self.operands()?;
                match (operands.reg, operands.rm, operands.memory) {
                    (RSP, Some(RBP), _) => Effect::FpFromSp(0),
                    (RBP, Some(RSP), _) => Effect::SpFromFp(0),
                    (_, Some(rm), _) => self.writes(rm),
                    (RBP, None, Some((Some(RSP), offset))) if self.rex & 8 != 0 => Effect::StoreFp(offset),
                    _ => Effect::None,
                }
            }
            0x8b => {
                let operands = self.operands()?;
                match (operands.reg, operands.rm, operands.memory) {
                    (RBP, Some(RSP), _) => Effect::FpFromSp(0),
                    (RSP, Some(RBP), _) => Effect::SpFromFp(0),
                    (RBP, None, Some((Some(RSP), offset))) if self.rex & 8 != 0 => Effect::LoadFp(offset),
                    _ => self.writes(operands.reg),
                }
            }
            0x8d => {
                let operands = self.operands()?;
                match (operands.reg, operands.memory) {
                    (RSP, Some((Some(RSP), offset))) => Effect::AddSp(offset),
                    (RSP, Some((Some(RBP), offset))) => Effect::SpFromFp(offset),
                    (RBP, Some((Some(RSP), offset))) => Effect::FpFromSp(offset),
                    (RSP | RBP, _) => self.writes(operands.reg),
                    (_, Some((None, offset))) => Effect::Address(offset),
                    _ => Effect::None,
                }
            }
            0x8f => match self.operands()? {
                Operands { rm: None, .. } => Effect::Pop { fp: false },
                _ => return None,
            },
            0x94 if self.rex & 1 == 0 => Effect::LoseSp,
            0x95 if self.rex & 1 == 0 => Effect::LoseFp,
            0x90..=0x99 | 0x9b | 0x9e | 0x9f | 0xa4..=0xa7 | 0xaa..=0xaf | 0xf5 | 0xf8..=0xfd => Effect::None,
            0x9c => Effect::Push { fp: false },
            0x9d => Effect::Pop { fp: false },
            0xa8 | 0xb0..=0xb7 => self.skip(1).map(|()| Effect::None)?,
            0xa9 => self.immediate().map(|_| Effect::None)?,
            0xb8..=0xbf => {
                if self.rex & 8 != 0 {
                    self.skip(8)?
                } else {
                    self.immediate().map(drop)?
                }
                self.writes(low)
            }
            0xc1 | 0xd1 | 0xd3 => {
                let operands = self.operands()?;
                self.skip(usize::from(opcode == 0xc1))?;
                operands.rm.map_or(Effect::None, |rm| self.writes(rm))
            }
            0xc2 => self.skip(2).map(|()| Effect::Return)?,
            0xc3 => Effect::Return,
            0xcc | 0xf4 => Effect::Stop,
            0xc7 => {
                let operands = self.operands()?;
                self.immediate()?;
                operands.rm.map_or(Effect::None, |rm| self.writes(rm))
            }
            0xc9 => Effect::Leave,
            0xe8 => Effect::Call(Some(self.signed32()?)),
            0xe9 => Effect::Jump(Some(self.signed32()?)),
            0xeb => Effect::Jump(Some(self.signed8()?)),
            0xf6 | 0xf7 => {
                let operands = self.operands()?;
                match (opcode, operands.reg & 7) {
                    (0xf6, 0 | 1) => self.skip(1)?,
                    (0xf7, 0 | 1) => self.immediate().map(drop)?,
                    _ => {}
                }
                match (operands.reg & 7, operands.rm) {
                    (2 | 3, Some(rm)) => self.writes(rm),
                    _ => Effect::None,
                }
            }
            0xfe => self.operands().map(|_| Effect::None)?,
            0xff => {
                let operands = self.operands()?;
                match operands.reg & 7 {
                    0 | 1 => operands.rm.map_or(Effect::None, |rm| self.writes(rm)),
                    2 => Effect::Call(None),
                    4 => Effect::Jump(None),
                    6 => Effect::Push { fp: operands.rm == Some(RBP) },
                    _ => return None,
                }
            }
            _ => return None,
        })
    }
}
