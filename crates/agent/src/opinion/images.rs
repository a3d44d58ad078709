//! The files whose unwind data the worker has at hand, and how it answers with them.

use everflame_profile::ContentId;

use super::{
    image::Image,
    message::{Question, Reply},
    walk::{State, walk},
};
use crate::worker::mapping::Mapped;

/// Files that are kept, at most; the least recently used one goes.
const MAX_IMAGES: usize = 64;
/// Bytes of address space that they take together.
const MAX_BYTES: u64 = 3 << 30;

/// The files, the most recently used last. One that has no unwind data is known as such.
#[derive(Default)]
pub struct Images {
    all: Vec<(ContentId, Option<Image>)>,
}

impl std::fmt::Debug for Images {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Images").field("files", &self.all.len()).finish()
    }
}

impl Images {
    /// Takes a file in, if it is the one that it is said to be.
    pub fn add(&mut self, content: ContentId, file: Mapped) -> Result<(), String> {
        let size = file.bytes().len() as u64;
        if size > MAX_BYTES {
            return Err(format!("{size} bytes are more than {MAX_BYTES}"));
        }
        let found = everflame_symbols::inspect(file.bytes()).map_err(|e| e.to_string())?.content_id;
        if found != content {
            return Err("the file is another one by now".into());
        }
        self.all.retain(|(known, _)| *known != content);
        while self.all.len() >= MAX_IMAGES || self.bytes() + size > MAX_BYTES {
            self.all.remove(0);
        }
        self.all.push((content, Image::new(file).ok()));
        Ok(())
    }

    /// Walks the stack, if all files are there.
    pub fn answer(&mut self, question: &Question) -> Reply {
        let mut missing = Vec::new();
        for module in &question.modules {
            match self.all.iter().position(|(known, _)| *known == module.content) {
                Some(at) => {
                    if let Some(rest) = self.all.get_mut(at..) {
                        rest.rotate_left(1);
                    }
                }
                None if missing.contains(&module.content) => {}
                None => missing.push(module.content),
            }
        }
        if !missing.is_empty() {
            return Reply::Missing(missing);
        }
        let state = State { pc: question.pc, sp: question.sp, fp: question.fp, stack: &question.stack };
        let (frames, end) = walk(state, &question.modules, self);
        // Questions are rare: what this one read of large files is not to stand in our memory until the next.
        self.all.iter().filter_map(|(_, image)| image.as_ref()).for_each(Image::let_go);
        Reply::Frames(frames, end)
    }

    /// The unwind data of a file.
    pub(super) fn get(&mut self, content: ContentId) -> Option<&mut Image> {
        self.all.iter_mut().rev().find(|(known, _)| *known == content)?.1.as_mut()
    }

    fn bytes(&self) -> u64 {
        self.all.iter().filter_map(|(_, image)| image.as_ref()).map(|image| image.size).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, read_to_string};

    use super::*;

    /// Bytes of the mapping at an address that are in our memory.
    fn resident(start: *const u8) -> u64 {
        let maps = read_to_string("/proc/self/smaps").unwrap();
        let start = format!("{:x}-", start as usize);
        let ours = maps.lines().skip_while(|line| !line.starts_with(&start));
        let kib = ours.filter_map(|line| line.strip_prefix("Rss:")).next().unwrap();
        kib.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    #[test]
    fn a_file_that_waits_for_questions_is_not_in_our_memory() {
        let file = File::open("/proc/self/exe").unwrap();
        let size = file.metadata().unwrap().len();
        let mapped = Mapped::new(&file, size).unwrap();
        let at = mapped.bytes().as_ptr();
        let content = everflame_symbols::inspect(mapped.bytes()).unwrap().content_id;
        assert!(resident(at) > size / 2, "to know it, it was read");
        let mut images = Images::default();
        images.add(content, mapped).unwrap();
        assert_eq!(resident(at), 0);
        assert!(images.get(content).is_some());
    }
}
