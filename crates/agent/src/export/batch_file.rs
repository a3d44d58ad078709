//! One batch as a file of the spool: a header that says whose it is, and the compressed
//! OTLP request.
//!
//! ```text
//! offset  0  magic and version "EFBATCH1"
//!         8  instance, 16 bytes        24  sequence u64 LE
//!        32  samples u64 LE            40  length of the payload u64 LE
//!        48  xxh3 of the payload       56  xxh3 of the 56 bytes before
//!        64  payload: zstd of the protobuf bytes
//! ```
//! The file's name says instance, sequence and samples once more, so that a torn file
//! can still be accounted for.

use xxhash_rust::xxh3::xxh3_64;

const MAGIC: &[u8; 8] = b"EFBATCH1";
const HEADER: usize = 64;
const EXTENSION: &str = ".batch";

/// Whose batch a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchName {
    /// 32 hexadecimal digits.
    pub instance: String,
    /// Grows by one with each batch of the instance, from 1.
    pub sequence: u64,
    /// Samples in it.
    pub samples: u64,
}

/// Why a file's bytes are no batch.
#[derive(Debug, thiserror::Error)]
pub enum BatchFileError {
    /// Too short, or of something else.
    #[error("no batch of this version")]
    Unknown,
    /// Bits changed, or the end is missing.
    #[error("its checksum is wrong or its end is missing")]
    Torn,
    /// Another batch than the name says.
    #[error("it holds another batch than its name says")]
    Renamed,
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl BatchName {
    /// The name of the file.
    pub fn file_name(&self) -> String {
        format!("{}-{:016x}-{}{EXTENSION}", self.instance, self.sequence, self.samples)
    }

    /// Reads the name of a file.
    pub fn parse(file_name: &str) -> Option<Self> {
        let mut parts = file_name.strip_suffix(EXTENSION)?.split('-');
        let (instance, sequence, samples) = (parts.next()?, parts.next()?, parts.next()?);
        let whole = parts.next().is_none() && instance.len() == 32 && u128::from_str_radix(instance, 16).is_ok();
        whole.then_some(())?;
        let sequence = u64::from_str_radix(sequence, 16).ok()?;
        Some(Self { instance: instance.to_string(), sequence, samples: samples.parse().ok()? })
    }

    fn instance_bytes(&self) -> [u8; 16] {
        u128::from_str_radix(&self.instance, 16).unwrap_or(0).to_be_bytes()
    }
}

/// The file of a compressed request.
pub fn write(name: &BatchName, payload: &[u8]) -> Vec<u8> {
    let mut file = Vec::with_capacity(HEADER + payload.len());
    file.extend_from_slice(MAGIC);
    file.extend_from_slice(&name.instance_bytes());
    for number in [name.sequence, name.samples, payload.len() as u64, xxh3_64(payload)] {
        file.extend_from_slice(&number.to_le_bytes());
    }
    file.extend_from_slice(&xxh3_64(&file).to_le_bytes());
    file.extend_from_slice(payload);
    file
}

/// The compressed request of a file.
pub fn read<'a>(name: &BatchName, file: &'a [u8]) -> Result<&'a [u8], BatchFileError> {
    let (header, payload) = file.split_at_checked(HEADER).ok_or(BatchFileError::Unknown)?;
    let number = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&header[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    if !header.starts_with(MAGIC) {
        return Err(BatchFileError::Unknown);
    }
    let whole = number(56) == xxh3_64(&header[..56]) && number(40) == payload.len() as u64;
    if !whole || number(48) != xxh3_64(payload) {
        return Err(BatchFileError::Torn);
    }
    if header[8..24] != name.instance_bytes() || number(24) != name.sequence || number(32) != name.samples {
        return Err(BatchFileError::Renamed);
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> BatchName {
        BatchName { instance: "0123456789abcdef0123456789abcdef".into(), sequence: 17, samples: 5 }
    }

    #[test]
    fn what_is_written_is_read() {
        let file = write(&name(), b"some bytes");
        assert_eq!(read(&name(), &file).unwrap(), b"some bytes");
        assert_eq!(BatchName::parse(&name().file_name()), Some(name()));
    }

    #[test]
    fn any_cut_and_any_flipped_bit_is_noticed() {
        let file = write(&name(), b"abcdefgh");
        for end in 0..file.len() {
            assert!(read(&name(), &file[..end]).is_err(), "cut at {end}");
        }
        for at in 0..file.len() {
            let mut bad = file.clone();
            bad[at] ^= 0x10;
            assert!(read(&name(), &bad).is_err(), "flipped at {at}");
        }
        assert!(matches!(read(&BatchName { samples: 6, ..name() }, &file), Err(BatchFileError::Renamed)));
    }

    #[test]
    fn other_names_are_no_batches() {
        for bad in ["", ".batch", "x-1-2.batch", "0123456789abcdef0123456789abcdef-1.batch", "a.tmp"] {
            assert_eq!(BatchName::parse(bad), None, "{bad}");
        }
    }
}
