//! How much memory a request takes once decoded, found before it is: two bytes on the
//! wire can become a hundred in memory.

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, InstrumentationScope, KeyValue},
    profiles::v1development as wire,
    resource::v1::Resource,
};

use super::sections::varint;

/// Messages that hold messages; all else is a leaf.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Request,
    ResourceProfiles,
    Resource,
    ScopeProfiles,
    Scope,
    Profile,
    Dictionary,
    Location,
    Holder,
    KeyValue,
    AnyValue,
    ArrayValue,
    KeyValueList,
    /// Holds numbers and strings only.
    Plain,
    String,
}

/// Values nested deeper are refused by the decoder itself.
const MAX_DEPTH: usize = 100;
/// What a packed number of one byte can become.
const PER_LEAF_BYTE: usize = 8;

/// The message that a field of another is, and its size in memory.
fn child(parent: Kind, field: u64) -> Option<(Kind, usize)> {
    use Kind::*;
    Some(match (parent, field) {
        (Request, 1) => (ResourceProfiles, size_of::<wire::ResourceProfiles>()),
        (Request, 2) => (Dictionary, size_of::<wire::ProfilesDictionary>()),
        (ResourceProfiles, 1) => (Resource, size_of::<self::Resource>()),
        (ResourceProfiles, 2) => (ScopeProfiles, size_of::<wire::ScopeProfiles>()),
        (ScopeProfiles, 1) => (Scope, size_of::<InstrumentationScope>()),
        (ScopeProfiles, 2) => (Profile, size_of::<wire::Profile>()),
        (Profile, 2) => (Plain, size_of::<wire::Sample>()),
        (Dictionary, 1) => (Plain, size_of::<wire::Mapping>()),
        (Dictionary, 2) => (Location, size_of::<wire::Location>()),
        (Dictionary, 3) => (Plain, size_of::<wire::Function>()),
        (Dictionary, 4) => (Plain, size_of::<wire::Link>()),
        (Dictionary, 5) => (String, size_of::<std::string::String>()),
        (Dictionary, 6) => (Holder, size_of::<wire::KeyValueAndUnit>()),
        (Dictionary, 7) => (Plain, size_of::<wire::Stack>()),
        (Location, 3) => (Plain, size_of::<wire::Line>()),
        (Resource, 1) | (Scope, 3) | (KeyValueList, 1) => (KeyValue, size_of::<self::KeyValue>()),
        (Resource, 3) => (Plain, 128), // entity references
        (Holder | KeyValue, 2) | (ArrayValue, 1) => (AnyValue, size_of::<self::AnyValue>()),
        (AnyValue, 5) => (ArrayValue, 24),
        (AnyValue, 6) => (KeyValueList, 24),
        _ => return None,
    })
}

/// Bytes that the message will take in memory, roughly; stops counting beyond `limit`.
/// What is no message is left to the decoder to refuse.
pub(super) fn weight(bytes: &[u8], limit: usize) -> usize {
    let mut total = 0;
    walk(Kind::Request, bytes, limit, MAX_DEPTH, &mut total);
    total
}

/// `None` where there is no use in going on.
fn walk(kind: Kind, mut bytes: &[u8], limit: usize, depth: usize, total: &mut usize) -> Option<()> {
    if kind == Kind::Plain || kind == Kind::String || depth == 0 {
        let factor = if kind == Kind::Plain { PER_LEAF_BYTE } else { 1 };
        *total = total.saturating_add(bytes.len().saturating_mul(factor));
        return (*total <= limit).then_some(());
    }
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        match tag & 7 {
            0 => {
                varint(&mut bytes)?;
            }
            1 => bytes = bytes.get(8..)?,
            5 => bytes = bytes.get(4..)?,
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                let (inner, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                match child(kind, tag >> 3) {
                    Some((kind, size)) => {
                        *total = total.saturating_add(size);
                        walk(kind, inner, limit, depth - 1, total)?;
                    }
                    None => *total = total.saturating_add(length),
                }
            }
            _ => return None,
        }
        if *total > limit {
            return None;
        }
    }
    Some(())
}
