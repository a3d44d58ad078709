//! The one way in which a frame gets its names, for the server and for `record`.

use std::borrow::Cow;

use everflame_profile::Frame;

use crate::{demangle, index::Index};

/// A function at a frame, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name<'a> {
    /// The function, or `MODULE+0xADDR` where it has no name, or `[anon]`.
    pub function: Cow<'a, str>,
    /// Source file, empty where unknown.
    pub file: &'a str,
    /// Line in it, 0 where unknown.
    pub line: u32,
}

/// The names of a frame, innermost first; more than one where functions were inlined,
/// never none.
///
/// Names that came with the frame stand. Else the index (that of the frame's mapping)
/// gives one; code without a name is called after where its function starts, so that
/// its frames fall together, or, without an index, after the frame's own address.
/// Demangling costs microseconds: callers keep the result per frame.
pub fn name_frame<'a, B: AsRef<[u8]>>(frame: &'a Frame, index: Option<&'a Index<B>>) -> Vec<Name<'a>> {
    if frame.lines.is_empty() {
        return vec![Name { function: by_address(frame, index), file: "", line: 0 }];
    }
    let lines = frame.lines.iter().map(|line| {
        let function = match &*line.function {
            "" => by_address(frame, index),
            function => Cow::Borrowed(function),
        };
        Name { function, file: &line.file, line: line.line }
    });
    lines.collect()
}

fn by_address<'a, B: AsRef<[u8]>>(frame: &'a Frame, index: Option<&'a Index<B>>) -> Cow<'a, str> {
    let Some(mapping) = &frame.mapping else { return Cow::Borrowed("[anon]") };
    let function = index.and_then(|index| index.lookup(frame.address));
    match function {
        Some(function) => match function.name {
            Some(name) => demangle(name),
            None => Cow::Owned(format!("{}+{:#x}", mapping.name, function.start)),
        },
        // Anonymous code has no address that means anything in another process.
        None if &*mapping.name == "[anon]" => Cow::Borrowed("[anon]"),
        None => Cow::Owned(format!("{}+{:#x}", mapping.name, frame.address)),
    }
}
