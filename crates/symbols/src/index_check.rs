//! The one pass over a symbol index that makes every later look-up safe: whoever sent
//! it, all that the format promises is checked here.

use crate::index::{HOLE, Index, PAGE_BITS};

/// What is wrong, in a word or two, or nothing.
pub(crate) fn check<B: AsRef<[u8]>>(index: &Index<B>) -> Result<(), &'static str> {
    strings(index)?;
    let layout = index.layout();
    let span = (layout.pages as u64) << PAGE_BITS;
    if !layout.base.is_multiple_of(1 << PAGE_BITS) || layout.base.checked_add(span).is_none() {
        return Err("base address");
    }
    let (mut functions, mut named, mut previous) = (0u32, 0u32, None::<(u64, u8)>);
    let mut next = 0;
    if index.first_entry(0) != Some(0) {
        return Err("page directory");
    }
    for page in 0..layout.pages {
        let end = index.first_entry(page + 1).filter(|&end| end >= next && end <= layout.entries);
        let end = end.ok_or("page directory")?;
        for entry in next..end {
            let low = index.start_in_page(entry).ok_or("starts")?;
            let start = ((page as u64) << PAGE_BITS) + u64::from(low);
            let pad = index.pad(entry).ok_or("pads")?;
            if let Some((before, pad)) = previous {
                let room = start.checked_sub(before).filter(|&room| room > 0).ok_or("order of starts")?;
                if pad != HOLE && u64::from(pad) >= room {
                    return Err("a function without a byte");
                }
            }
            if entry % 64 == 0 && index.rank(entry / 64) != Some(named) {
                return Err("ranks");
            }
            let has_name = index.bits(entry / 64).ok_or("name bits")? >> (entry % 64) & 1 == 1;
            if has_name && pad == HOLE {
                return Err("a hole with a name");
            }
            named += u32::from(has_name);
            functions += u32::from(pad != HOLE);
            previous = Some((start, pad));
        }
        next = end;
    }
    if next != layout.entries || functions != layout.functions || named != layout.named {
        return Err("counts");
    }
    if previous.is_some_and(|(_, pad)| pad != HOLE) {
        return Err("last entry");
    }
    Ok(())
}

fn strings<B: AsRef<[u8]>>(index: &Index<B>) -> Result<(), &'static str> {
    let layout = index.layout();
    index.text(layout.build_id.clone()).ok_or("build id")?;
    index.text(layout.name.clone()).ok_or("name")?;
    for number in 0..layout.named as usize {
        index.name_offset(number).and_then(|offset| index.name_at(offset)).ok_or("names")?;
    }
    Ok(())
}
