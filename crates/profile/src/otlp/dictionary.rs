//! The dictionary of a request: every entry looked at once, when something points to it.

use std::sync::Arc;

use opentelemetry_proto::tonic::{
    common::v1::KeyValue,
    profiles::v1development::{Location, Mapping as WireMapping, ProfilesDictionary},
};

use super::{
    Limits,
    attribute::{Attribute, text},
    cause::Cause,
    names,
};
use crate::{
    batch::Stack,
    frame::{ContentId, Frame, FrameKind, Line, Mapping},
    labels::Str,
};

/// Most digits of a build id (a SHA-512).
const MAX_BUILD_ID: usize = 128;
/// Frame type with which the OpenTelemetry profiler marks where its unwinding failed.
/// It is no frame.
const ABORT_MARKER: &str = "abort-marker";

/// An entry of a table: not looked at yet, or what came of it.
type Once<T> = Option<Result<T, Cause>>;

/// Memory that the request may still take.
struct Budget {
    left: usize,
    limit: usize,
}

/// Resolves indexes. An entry becomes one frame or stack however often it is pointed
/// to; entries that are equal are not looked for, since that is all hashing, and the
/// store does it anyway.
pub(super) struct Dictionary<'a> {
    wire: &'a ProfilesDictionary,
    pub limits: &'a Limits,
    budget: Budget,
    strings: Vec<Option<Str>>,
    /// `None` inside: an attribute that is left out.
    attributes: Vec<Once<Option<Attribute>>>,
    mappings: Vec<Once<Option<Arc<Mapping>>>>,
    /// `None` inside: a marker, not a frame.
    locations: Vec<Once<Option<u32>>>,
    stacks: Vec<Once<u32>>,
    made_frames: Vec<Frame>,
    made_stacks: Vec<Stack>,
    /// Attributes left out: arrays, lists, bytes, too long.
    pub skipped_attributes: u64,
}

impl<'a> Dictionary<'a> {
    pub fn new(wire: &'a ProfilesDictionary, limits: &'a Limits) -> Self {
        Self {
            wire,
            limits,
            budget: Budget { left: limits.memory_bytes, limit: limits.memory_bytes },
            strings: vec![None; wire.string_table.len()],
            attributes: vec![None; wire.attribute_table.len()],
            mappings: vec![None; wire.mapping_table.len()],
            locations: vec![None; wire.location_table.len()],
            stacks: vec![None; wire.stack_table.len()],
            made_frames: Vec::new(),
            made_stacks: Vec::new(),
            skipped_attributes: 0,
        }
    }

    /// The frames and stacks that were pointed to.
    pub fn finish(self) -> (Vec<Frame>, Vec<Stack>) {
        (self.made_frames, self.made_stacks)
    }

    /// Accounts for memory that is about to be taken.
    pub fn charge(&mut self, bytes: usize) -> Result<(), Cause> {
        self.budget.left = self.budget.left.checked_sub(bytes).ok_or(Cause::Memory(self.budget.limit))?;
        Ok(())
    }

    /// A string of the table. Index 0 is the empty string even where there is no table.
    pub fn text(&self, index: i32) -> Result<&'a str, Cause> {
        match entry(&self.wire.string_table, "string", index) {
            Ok((_, text)) => Ok(text),
            Err(_) if index == 0 => Ok(""),
            Err(cause) => Err(cause),
        }
    }

    fn name(&mut self, index: i32) -> Result<Str, Cause> {
        let text = self.text(index)?;
        if text.len() > self.limits.name_bytes {
            return Err(Cause::Name(self.limits.name_bytes));
        }
        let Some(slot) = self.strings.get_mut(index as usize) else { return Ok(Str::from("")) };
        if let Some(known) = slot {
            return Ok(known.clone());
        }
        let made = Str::from(text);
        *slot = Some(made.clone());
        self.charge(text.len() + 16)?;
        Ok(made)
    }

    /// Whether a sample's link exists; 0 is none.
    pub fn check_link(&self, index: i32) -> Result<(), Cause> {
        if index == 0 { Ok(()) } else { entry(&self.wire.link_table, "link", index).map(drop) }
    }

    /// An attribute of the table; `None` where it is left out.
    pub fn attribute(&mut self, index: i32) -> Result<Option<&Attribute>, Cause> {
        let wire = self.wire;
        let (at, item) = entry(&wire.attribute_table, "attribute", index)?;
        if self.attributes[at].is_none() {
            let made = self.name(item.key_strindex).map(|key| {
                let value = text(item.value.as_ref(), |index| {
                    wire.string_table.get(usize::try_from(index).ok()?).map(String::as_str)
                });
                self.label(key, value).map(|(key, value)| Attribute::new(key, value))
            });
            self.attributes[at] = Some(made);
        }
        match &self.attributes[at] {
            Some(Ok(attribute)) => Ok(attribute.as_ref()),
            Some(Err(cause)) => Err(*cause),
            None => Ok(None),
        }
    }

    /// Labels of a resource or scope.
    pub fn labels(&mut self, attributes: &[KeyValue], into: &mut Vec<(Str, Str)>) -> Result<(), Cause> {
        if attributes.len() > self.limits.attributes {
            return Err(Cause::Attributes(self.limits.attributes));
        }
        for item in attributes {
            let key = if item.key_strindex == 0 { Str::from(item.key.as_str()) } else { self.name(item.key_strindex)? };
            let wire = self.wire;
            let value = text(item.value.as_ref(), |index| {
                wire.string_table.get(usize::try_from(index).ok()?).map(String::as_str)
            });
            if let Some(label) = self.label(key, value) {
                self.charge(label.0.len() + label.1.len() + 64)?;
                into.push(label);
            }
        }
        Ok(())
    }

    fn label(&mut self, key: Str, value: Option<Str>) -> Option<(Str, Str)> {
        match value {
            Some(value)
                if !key.is_empty()
                    && key.len() <= self.limits.attribute_bytes
                    && value.len() <= self.limits.attribute_bytes =>
            {
                Some((key, value))
            }
            _ => {
                self.skipped_attributes += 1;
                None
            }
        }
    }

    /// The batch's number of a stack.
    pub fn stack(&mut self, index: i32) -> Result<u32, Cause> {
        let wire = self.wire;
        let (at, item) = entry(&wire.stack_table, "stack", index)?;
        if let Some(known) = self.stacks[at] {
            return known;
        }
        let made = self.make_stack(&item.location_indices);
        self.stacks[at] = Some(made);
        made
    }

    fn make_stack(&mut self, locations: &[i32]) -> Result<u32, Cause> {
        if locations.len() > self.limits.frames {
            return Err(Cause::Frames(self.limits.frames));
        }
        self.charge(locations.len() * 4 + 64)?;
        let mut frames = Vec::with_capacity(locations.len());
        for &location in locations {
            frames.extend(self.location(location)?);
        }
        Ok(push(&mut self.made_stacks, Stack(frames)))
    }

    fn location(&mut self, index: i32) -> Result<Option<u32>, Cause> {
        let wire = self.wire;
        let (at, item) = entry(&wire.location_table, "location", index)?;
        if let Some(known) = self.locations[at] {
            return known;
        }
        let made = self.make_frame(item).map(|frame| frame.map(|frame| push(&mut self.made_frames, frame)));
        self.locations[at] = Some(made);
        made
    }

    fn make_frame(&mut self, location: &Location) -> Result<Option<Frame>, Cause> {
        if *location == Location::default() {
            return Err(Cause::NullLocation);
        }
        let kind = self.find(&location.attribute_indices, &[names::FRAME_TYPE])?;
        let [kind] = kind;
        if kind.as_deref() == Some(ABORT_MARKER) {
            return Ok(None);
        }
        if location.lines.len() > self.limits.lines {
            return Err(Cause::Lines(self.limits.lines));
        }
        self.charge(size_of::<Frame>() * 2 + location.lines.len() * size_of::<Line>())?;
        let mut lines = Vec::with_capacity(location.lines.len());
        for line in &location.lines {
            let (_, function) = entry(&self.wire.function_table, "function", line.function_index)?;
            let mut name = function.name_strindex;
            if self.text(name)?.is_empty() {
                name = function.system_name_strindex;
            }
            let function = Line {
                function: self.name(name)?,
                file: self.name(function.filename_strindex)?,
                line: u32::try_from(line.line).unwrap_or(0),
            };
            if !function.function.is_empty() {
                lines.push(function);
            }
        }
        let mapping = self.mapping(location.mapping_index)?;
        let kind = kind.unwrap_or_else(|| Str::from(FrameKind::NATIVE));
        Ok(Some(Frame { kind: FrameKind(kind), mapping, address: location.address, lines }))
    }

    fn mapping(&mut self, index: i32) -> Result<Option<Arc<Mapping>>, Cause> {
        if index == 0 && self.wire.mapping_table.is_empty() {
            return Ok(None);
        }
        let wire = self.wire;
        let (at, item) = entry(&wire.mapping_table, "mapping", index)?;
        if let Some(known) = &self.mappings[at] {
            return known.clone();
        }
        let made = self.make_mapping(item);
        self.mappings[at] = Some(made.clone());
        made
    }

    fn make_mapping(&mut self, mapping: &WireMapping) -> Result<Option<Arc<Mapping>>, Cause> {
        let [build_id, content_id] = self.find(&mapping.attribute_indices, &[names::BUILD_ID, names::CONTENT_ID])?;
        let path = self.name(mapping.filename_strindex)?;
        let name = match path.rsplit('/').next() {
            Some(base) if base.len() < path.len() && !base.is_empty() => Str::from(base),
            _ => path,
        };
        let build_id =
            build_id.filter(|id| id.len() <= MAX_BUILD_ID && id.bytes().all(|b| b.is_ascii_hexdigit())).map_or_else(
                || Str::from(""),
                |id| if id.bytes().any(|b| b.is_ascii_uppercase()) { Str::from(id.to_ascii_lowercase()) } else { id },
            );
        let content_id = content_id.and_then(|id| ContentId::parse(&id));
        if name.is_empty() && build_id.is_empty() && content_id.is_none() {
            return Ok(None);
        }
        self.charge(size_of::<Mapping>())?;
        Ok(Some(Arc::new(Mapping { name, build_id, content_id })))
    }

    /// The values of the attributes called `wanted`, where they are among `indexes`.
    fn find<const N: usize>(&mut self, indexes: &[i32], wanted: &[&str; N]) -> Result<[Option<Str>; N], Cause> {
        if indexes.len() > self.limits.attributes {
            return Err(Cause::Attributes(self.limits.attributes));
        }
        let mut found = [const { None }; N];
        for &index in indexes {
            let Some(attribute) = self.attribute(index)? else { continue };
            for (name, slot) in wanted.iter().zip(&mut found) {
                if attribute.key.as_ref() == *name {
                    *slot = Some(attribute.value.clone());
                }
            }
        }
        Ok(found)
    }
}

/// Appends and says where.
fn push<T>(list: &mut Vec<T>, item: T) -> u32 {
    list.push(item);
    u32::try_from(list.len() - 1).expect("tables of a request are indexed by 31 bits")
}

/// The entry at `index` and its position.
fn entry<'t, T>(table: &'t [T], name: &'static str, index: i32) -> Result<(usize, &'t T), Cause> {
    let at = usize::try_from(index).ok();
    at.and_then(|at| Some((at, table.get(at)?))).ok_or(Cause::BadIndex { table: name, index })
}
