//! Packing: nothing is lost, and how many bytes a sample takes on the wire. The load is made
//! up, the same each time: stacks that share their roots, as those of a busy machine do.

use std::sync::Arc;

use everflame_profile::{Completeness, ContentId, Frame, FrameKind, Line, Mapping, Str, otlp};

use super::*;
use crate::{
    aggregate::Aggregate,
    identity::{Describe, ProcessIdentity},
    sample::{RawSample, RawStack, UserFrame},
    who::{Cgroup, Location},
};

#[test]
fn what_is_packed_is_unpacked() {
    let mut packer = Packer::default();
    // Bytes that do not shrink, bytes that do, none at all, more than is kept for.
    let mut noise = Noise(1);
    let noise: Vec<u8> = (0..300_000).map(|_| noise.below(256) as u8).collect();
    for request in [&noise[..], &b"some bytes ".repeat(1000), &[], &noise.repeat(5), b"x"] {
        let packed = packer.pack(request).unwrap();
        assert_eq!(unpack(&packed).unwrap(), request);
    }
}

/// Five seconds of two busy CPUs at 20 and at 97 Hz. The made-up stacks share less than real
/// ones; the limits are what it takes today and a little.
#[test]
fn bytes_a_sample() {
    for (samples, limit) in [(200, 78.0), (970, 54.0)] {
        let request = otlp::encode_to_bytes(&batch(samples));
        let packed = Packer::default().pack(&request).unwrap();
        let plain = zstd::bulk::compress(&request, 3).unwrap();
        let each = |bytes: usize| bytes as f64 / samples as f64;
        eprintln!(
            "{samples} samples: {:.1} B each, {:.1} in one block at level 3, {:.1} not compressed",
            each(packed.len()),
            each(plain.len()),
            each(request.len())
        );
        assert_eq!(unpack(&packed).unwrap(), request);
        assert!(each(packed.len()) < limit, "{} bytes a sample", each(packed.len()));
        assert!(packed.len() * 100 < plain.len() * 92, "{} against {} bytes", packed.len(), plain.len());
    }
}

/// Numbers that look like chance and are the same each time.
struct Noise(u64);

impl Noise {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        ((u128::from(self.0 >> 16) * u128::from(limit)) >> 48) as u64
    }
}

/// Twenty executables, a kernel.
struct Facts;

impl Describe for Facts {
    fn process(&self, sample: &RawSample, comm: &str) -> Arc<ProcessIdentity> {
        let pid = sample.pid;
        let path = format!("/usr/lib/service-{pid}/bin/{comm}");
        let (name, path, service) = (Str::from(comm), Str::from(path), Str::default());
        let (cgroup, named, located) = (Arc::default(), true, true);
        Arc::new(ProcessIdentity { pid, generation: 1, name, path, cgroup, service, named, located })
    }

    fn location(&self, _cgroup: &Cgroup) -> Arc<Location> {
        Arc::default()
    }

    fn executable(&self, number: u32) -> Option<Arc<Mapping>> {
        let content = u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        let build_id = Str::from(format!("{content:032x}{:08x}", content as u32 ^ 0x5bd1_e995));
        let name = Str::from(format!("lib{number}.so.6"));
        Some(Arc::new(Mapping { name, build_id, content_id: Some(ContentId(content.rotate_left(50))) }))
    }

    fn kernel_frame(&self, address: u64) -> Frame {
        let function = Str::from(format!("kernel_{:x}_function", address.wrapping_mul(0x9e37_79b9) >> 9 & 0xfffff));
        let mapping = Mapping { name: Str::from("vmlinux"), build_id: Str::from(""), content_id: None };
        let line = Line { function, file: Str::from(""), line: 0 };
        let kind = FrameKind(Str::from(FrameKind::KERNEL));
        Frame { kind, mapping: Some(Arc::new(mapping)), address: 0, lines: vec![line] }
    }
}

fn batch(samples: u64) -> Batch {
    let mut noise = Noise(7);
    let mut aggregate = Aggregate::new("node-1", "0123456789abcdef0123456789abcdef");
    for number in 0..samples {
        let process = noise.below(12);
        // Each frame has a few callees, of which one is called most.
        let mut stack = Vec::new();
        let mut at = process;
        for _ in 0..noise.below(20) + 8 {
            let callee = if noise.below(6) == 0 { noise.below(4) } else { 0 };
            at = at.wrapping_mul(31).wrapping_add(callee).wrapping_mul(0x2545_f491_4f6c_dd1d);
            let executable = 16 + (at >> 40) % 20;
            stack.push(UserFrame(executable << 44 | (at >> 20 & 0xf_ffff)));
        }
        stack.reverse();
        let kernel = if noise.below(4) == 0 {
            (0..noise.below(10) + 2).map(|depth| 0xffff_ffff_8100_0000 + (depth * 977 + noise.below(3)) * 64).collect()
        } else {
            Vec::new()
        };
        let mut comm = [0; 16];
        let text = format!("worker-{process}");
        comm[..text.len()].copy_from_slice(text.as_bytes());
        aggregate.add(
            &RawSample {
                time: 1_000_000_000_000 + number * 5_000_000_000 / samples + noise.below(1_000_000),
                pid: 4000 + process as u32 * 7,
                tid: 4000 + process as u32 * 7 + noise.below(3) as u32,
                cpu: noise.below(2) as u32,
                cgroup: 1,
                comm,
                kernel_thread: false,
                completeness: Completeness::Complete,
                period: 50_000_000,
                stack: Arc::new(RawStack { kernel, user: stack }),
                late: false,
                copy: None,
            },
            &Facts,
        );
    }
    aggregate.seal(&Facts).unwrap_or_default()
}
