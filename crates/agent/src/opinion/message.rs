//! What the agent asks the worker about one sample, and what it answers. Numbers are little
//! endian; both ends check what the other says.

use everflame_profile::ContentId;

/// Most mappings of a question: those of the executables on the sampler's own stack.
pub const MAX_MODULES: usize = 256;
/// Most bytes of a stack.
pub const MAX_STACK: usize = 64 << 10;

/// Why the second walk ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum End {
    /// The return address is undefined: a root.
    Root = 0,
    /// It goes on beyond what was copied of the stack.
    StackTooShort = 1,
    /// In no file, or in one that is on no stack of ours.
    NoModule = 2,
    /// The file's unwind data says nothing of the address.
    NoUnwindData = 3,
    /// It says what framehop cannot follow.
    Unsupported = 4,
    /// Too many frames, or it took too long.
    Limit = 5,
    /// A return address of zero.
    Null = 6,
    /// What it read cannot be: the stack went backwards.
    Lost = 7,
}

impl End {
    const ALL: [Self; 8] = [
        Self::Root,
        Self::StackTooShort,
        Self::NoModule,
        Self::NoUnwindData,
        Self::Unsupported,
        Self::Limit,
        Self::Null,
        Self::Lost,
    ];

    /// As a label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::StackTooShort => "stack_too_short",
            Self::NoModule => "no_module",
            Self::NoUnwindData => "no_unwind_data",
            Self::Unsupported => "unsupported",
            Self::Limit => "limit",
            Self::Null => "null",
            Self::Lost => "lost",
        }
    }
}

/// A mapping of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Module {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// ELF virtual address = pc - bias.
    pub bias: u64,
    /// Of which file.
    pub content: ContentId,
}

/// Registers, mappings and the stack from `sp` on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Instruction pointer.
    pub pc: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Frame pointer.
    pub fp: u64,
    /// Sorted by start, without overlap.
    pub modules: Vec<Module>,
    /// At most [`MAX_STACK`] bytes.
    pub stack: Vec<u8>,
}

impl Question {
    /// As sent.
    pub fn to_bytes(&self) -> Vec<u8> {
        let modules = self.modules.get(..MAX_MODULES).unwrap_or(&self.modules);
        let mut bytes = Vec::with_capacity(32 + modules.len() * 40 + self.stack.len());
        for word in [self.pc, self.sp, self.fp, modules.len() as u64] {
            bytes.extend(word.to_le_bytes());
        }
        for module in modules {
            for word in [module.start, module.end, module.bias] {
                bytes.extend(word.to_le_bytes());
            }
            bytes.extend(module.content.0.to_le_bytes());
        }
        bytes.extend(self.stack.get(..MAX_STACK).unwrap_or(&self.stack));
        bytes
    }

    /// As received.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (head, rest) = bytes.split_at_checked(32)?;
        let (words, _) = head.as_chunks::<8>();
        let &[pc, sp, fp, count] = words else { return None };
        let count = usize::try_from(u64::from_le_bytes(count)).ok().filter(|count| *count <= MAX_MODULES)?;
        let (modules, stack) = rest.split_at_checked(count * 40)?;
        let (modules, _) = modules.as_chunks::<40>();
        let module = |bytes: &[u8; 40]| {
            let (words, _) = bytes.as_chunks::<8>();
            let word = |n: usize| words.get(n).map_or(0, |w| u64::from_le_bytes(*w));
            let content = ContentId(u128::from(word(3)) | u128::from(word(4)) << 64);
            Module { start: word(0), end: word(1), bias: word(2), content }
        };
        Some(Self {
            pc: u64::from_le_bytes(pc),
            sp: u64::from_le_bytes(sp),
            fp: u64::from_le_bytes(fp),
            modules: modules.iter().map(module).collect(),
            stack: stack.get(..MAX_STACK).unwrap_or(stack).to_vec(),
        })
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// These files are not known (any more): send them and ask again.
    Missing(Vec<ContentId>),
    /// The frames as absolute addresses, the leaf first, and why they end.
    Frames(Vec<u64>, End),
}

impl Reply {
    /// As sent.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Missing(contents) => {
                let mut bytes = vec![u8::MAX];
                contents.iter().for_each(|content| bytes.extend(content.0.to_le_bytes()));
                bytes
            }
            Self::Frames(frames, end) => {
                let mut bytes = vec![*end as u8];
                frames.iter().for_each(|frame| bytes.extend(frame.to_le_bytes()));
                bytes
            }
        }
    }

    /// As received; `None` where that is nonsense.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&tag, rest) = bytes.split_first()?;
        if tag == u8::MAX {
            let (contents, odd) = rest.as_chunks::<16>();
            let few = odd.is_empty() && contents.len() <= MAX_MODULES;
            return few.then(|| Self::Missing(contents.iter().map(|c| ContentId(u128::from_le_bytes(*c))).collect()));
        }
        let end = *End::ALL.get(usize::from(tag))?;
        let (frames, odd) = rest.as_chunks::<8>();
        let fits = odd.is_empty() && frames.len() <= 1024;
        fits.then(|| Self::Frames(frames.iter().map(|f| u64::from_le_bytes(*f)).collect(), end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_survive_the_way() {
        let module = Module { start: 1, end: 2, bias: 3, content: ContentId(4 << 99) };
        let question = Question { pc: 5, sp: 6, fp: 7, modules: vec![module; 3], stack: vec![8; 9] };
        assert_eq!(Question::from_bytes(&question.to_bytes()), Some(question));
        for end in End::ALL {
            let reply = Reply::Frames(vec![1, u64::MAX], end);
            assert_eq!(Reply::from_bytes(&reply.to_bytes()), Some(reply));
        }
        let reply = Reply::Missing(vec![ContentId(3); 2]);
        assert_eq!(Reply::from_bytes(&reply.to_bytes()), Some(reply));
    }

    #[test]
    fn too_much_is_cut() {
        let module = Module { start: 1, end: 2, bias: 3, content: ContentId(4) };
        let question = Question { pc: 5, sp: 6, fp: 7, modules: vec![module; 300], stack: vec![8; MAX_STACK + 1] };
        assert_eq!(question.to_bytes().len(), 32 + MAX_MODULES * 40 + MAX_STACK);
        let read = Question::from_bytes(&question.to_bytes()).unwrap();
        assert_eq!((read.modules.len(), read.stack.len()), (MAX_MODULES, MAX_STACK));
    }

    proptest::proptest! {
        #[test]
        fn nonsense_is_nothing_and_no_panic(bytes: Vec<u8>) {
            let _ = Question::from_bytes(&bytes);
            let _ = Reply::from_bytes(&bytes);
        }
    }
}
