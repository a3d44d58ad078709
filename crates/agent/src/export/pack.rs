//! Compression of requests: once, when a batch goes to the spools; it is sent as it lies there.

use std::io::{self, Read};

use everflame_profile::{Batch, otlp};
use zstd::stream::raw::{Encoder, InBuffer, Operation, OutBuffer};

/// Above 6 a tenth of the bytes costs ten times the CPU time; below, 6 % of them a third of it.
const LEVEL: i32 = 6;
/// Longest request after decompression: what servers take, by the contract.
pub const MAX_REQUEST_BYTES: u64 = 64 << 20;
/// The memory of a compressor that packed more than this is given back.
const KEPT_FOR: usize = 1 << 20;

/// A batch as it goes to a spool, whoever it is for.
#[derive(Debug, Clone)]
pub struct Packed {
    /// Its samples.
    pub samples: u64,
    /// Length of the request before compression.
    pub request_bytes: u64,
    /// The compressed request; none where it could not be compressed.
    pub bytes: Option<Vec<u8>>,
}

/// Packs one request after the other in the same memory.
#[derive(Default)]
pub struct Packer(Option<Encoder<'static>>);

impl Packer {
    /// A batch, encoded and compressed.
    pub fn batch(&mut self, batch: &Batch) -> Packed {
        let samples = batch.samples();
        let request = otlp::encode_to_bytes(batch);
        let packed = self.pack(&request).inspect_err(|e| {
            tracing::error!("cannot compress a batch: {e}; its {samples} samples are dropped");
        });
        Packed { samples, request_bytes: request.len() as u64, bytes: packed.ok() }
    }

    /// A frame of zstd, with a block of its own for each of the request's sections.
    pub fn pack(&mut self, request: &[u8]) -> io::Result<Vec<u8>> {
        // After a failure a new one is made.
        let mut encoder = match self.0.take() {
            Some(encoder) => encoder,
            None => Encoder::new(LEVEL)?,
        };
        encoder.reinit()?;
        encoder.set_pledged_src_size(Some(request.len() as u64))?;
        let mut packed = vec![0; zstd::zstd_safe::compress_bound(request.len())];
        let mut at = 0;
        let sections = otlp::sections(request);
        for (number, section) in sections.iter().enumerate() {
            // What is pledged ends with the last section, and the frame with it.
            let last = number + 1 == sections.len();
            let mut from = InBuffer::around(section);
            loop {
                if packed.len() - at < 64 {
                    packed.resize(packed.len() + 4096, 0);
                }
                let mut to = OutBuffer::around(&mut packed[at..]);
                encoder.run(&mut from, &mut to)?;
                let left = match (from.pos < section.len(), last) {
                    (true, _) => 1,
                    (false, true) => encoder.finish(&mut to, true)?,
                    (false, false) => encoder.flush(&mut to)?,
                };
                at += to.pos();
                if left == 0 {
                    break;
                }
            }
        }
        packed.truncate(at);
        packed.shrink_to_fit();
        self.0 = (request.len() <= KEPT_FOR).then_some(encoder);
        Ok(packed)
    }
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Packer").finish()
    }
}

/// The request, protobuf bytes.
pub(super) fn unpack(packed: &[u8]) -> io::Result<Vec<u8>> {
    let mut request = Vec::new();
    zstd::Decoder::new(packed)?.take(MAX_REQUEST_BYTES + 1).read_to_end(&mut request)?;
    match request.len() as u64 > MAX_REQUEST_BYTES {
        true => Err(io::Error::new(io::ErrorKind::FileTooLarge, "longer than servers take")),
        false => Ok(request),
    }
}

#[cfg(test)]
#[path = "pack_tests.rs"]
mod tests;
