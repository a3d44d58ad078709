//! `/proc/PID/maps`, as bytes: names in it are whatever the process chose.

use super::records::{FileId, NewMapping};

/// Longest text of one process that is read: 65,530 mappings of 4 KiB names would be more,
/// but then the executable ones are not the problem.
pub const MAX_BYTES: u64 = 64 << 20;

/// A line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line<'a> {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// Whether code in it may run.
    pub executable: bool,
    /// Where it begins in the file.
    pub offset: u64,
    /// The file; inode 0 for memory of no file.
    pub file: FileId,
    /// Path, `[vdso]` or the like, or empty. The kernel writes a newline in it as `\012`.
    pub name: &'a [u8],
}

impl Line<'_> {
    /// As if the side band had told it.
    pub fn to_mapping(&self) -> NewMapping {
        NewMapping {
            start: self.start,
            end: self.end,
            offset: self.offset,
            file: self.file,
            inode_generation: 0,
            name: unescape(self.name).into(),
        }
    }
}

/// The lines that are what they should be.
pub fn lines(text: &[u8]) -> impl Iterator<Item = Line<'_>> {
    text.split(|b| *b == b'\n').filter_map(line)
}

fn line(text: &[u8]) -> Option<Line<'_>> {
    let mut rest = text;
    let mut field = || {
        let end = rest.iter().position(|b| *b == b' ').unwrap_or(rest.len());
        let (field, behind) = rest.split_at(end);
        rest = behind.get(1..).unwrap_or_default();
        std::str::from_utf8(field).ok()
    };
    let (start, end) = field()?.split_once('-')?;
    let rights = field()?;
    let offset = field()?;
    let (major, minor) = field()?.split_once(':')?;
    let inode = field()?;
    let hex = |text| u64::from_str_radix(text, 16).ok();
    let (start, end) = (hex(start)?, hex(end)?);
    (start < end).then_some(Line {
        start,
        end,
        executable: rights.as_bytes().get(2) == Some(&b'x'),
        offset: hex(offset)?,
        file: FileId { device: (hex(major)? as u32, hex(minor)? as u32), inode: inode.parse().ok()? },
        name: rest.trim_ascii_start(),
    })
}

/// Undoes the one escape that the kernel makes in these names: a newline as `\012`.
fn unescape(name: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&byte, behind)) = rest.split_first() {
        match rest.strip_prefix(b"\\012") {
            Some(behind) => {
                plain.push(b'\n');
                rest = behind;
            }
            None => {
                plain.push(byte);
                rest = behind;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        let text = b"55d0c0000000-55d0c0001000 r-xp 00001000 fd:01 1234                       /a b/c\\012d (deleted)\n\
                     7fff00000000-7fff00002000 r-xp 00000000 00:00 0                          [vdso]\n\
                     7f0000000000-7f0000001000 rwxp 00000000 00:00 0 \n\
                     nonsense\n\
                     7f0000000000-7f0000000000 rwxp 00000000 00:00 0 \n";
        let all: Vec<_> = lines(text).collect();
        assert_eq!(all.len(), 3);
        let mapping = all[0].to_mapping();
        assert_eq!((mapping.start, mapping.end, mapping.offset), (0x55d0_c000_0000, 0x55d0_c000_1000, 0x1000));
        assert_eq!(mapping.file, FileId { device: (0xfd, 1), inode: 1234 });
        assert_eq!(&*mapping.name, b"/a b/c\nd (deleted)");
        assert!(all[0].executable);
        assert_eq!((all[1].name, all[2].name), (&b"[vdso]"[..], &b""[..]));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(text: Vec<u8>) {
            for line in lines(&text) {
                line.to_mapping();
            }
        }
    }
}
