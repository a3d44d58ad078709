//! Where a request changes from one kind of thing to another: from samples to addresses, to
//! names, to stacks. A compressor that begins a block of its own at each of these places
//! learns the statistics of each kind alone, which saves a tenth and more; what comes out is
//! an ordinary frame of zstd.

/// The request's bytes, cut at those places: put together again they are the request. Bytes
/// that are no request are one section.
pub fn sections(request: &[u8]) -> Vec<&[u8]> {
    cuts(request).filter(|sections| !sections.is_empty()).unwrap_or_else(|| vec![request])
}

fn cuts(request: &[u8]) -> Option<Vec<&[u8]>> {
    let (mut sections, mut begin, mut rest) = (Vec::new(), 0, request);
    let mut cut = |at: usize| {
        if at > begin {
            sections.push(request.get(begin..at)?);
            begin = at;
        }
        Some(())
    };
    while !rest.is_empty() {
        let at = request.len() - rest.len();
        let (field, mut inner) = next(&mut rest)?;
        if field != DICTIONARY {
            continue;
        }
        cut(at)?;
        let end = request.len() - rest.len();
        let mut table = None;
        while !inner.is_empty() {
            let at = end - inner.len();
            let (field, _) = next(&mut inner)?;
            // The head of the dictionary stays with its first table.
            if table.is_some_and(|table| table != field) {
                cut(at)?;
            }
            table = Some(field);
        }
        cut(end)?;
    }
    cut(request.len())?;
    Some(sections)
}

/// `ExportProfilesServiceRequest.dictionary`.
const DICTIONARY: u64 = 2;

/// Takes a field that has a length off the front: all that a request and a dictionary hold.
fn next<'a>(bytes: &mut &'a [u8]) -> Option<(u64, &'a [u8])> {
    let tag = varint(bytes)?;
    if tag & 7 != 2 {
        return None;
    }
    let length = usize::try_from(varint(bytes)?).ok()?;
    let (inner, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some((tag >> 3, inner))
}

pub(super) fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for at in 0..10 {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::profiles::v1development::{Location, ProfilesDictionary, ResourceProfiles};
    use prost::Message;

    use super::*;
    use crate::otlp::ExportProfilesServiceRequest;

    #[test]
    fn each_table_is_a_section() {
        let dictionary = ProfilesDictionary {
            location_table: vec![Location { address: 1, ..Location::default() }; 3],
            string_table: vec!["a".into(), "b".into()],
            ..ProfilesDictionary::default()
        };
        let resource_profiles = vec![ResourceProfiles { schema_url: "x".into(), ..ResourceProfiles::default() }; 2];
        let request = ExportProfilesServiceRequest { resource_profiles, dictionary: Some(dictionary) }.encode_to_vec();
        let sections = sections(&request);
        assert_eq!(sections.iter().map(|s| s.len()).collect::<Vec<_>>(), [2 * 5, 2 + 3 * 4, 2 * 3]);
        assert_eq!(sections.concat(), request);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_stay_as_they_are(bytes: Vec<u8>) {
            proptest::prop_assert_eq!(sections(&bytes).concat(), bytes);
        }
    }
}
