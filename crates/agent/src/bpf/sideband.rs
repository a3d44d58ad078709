//! The side band of perf: one ring a CPU in which the kernel writes what processes map,
//! run and fork and when they end. Only the rings are here; `processes/records.rs` reads
//! what is in them.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd},
    sync::atomic::{AtomicU64, Ordering},
};

use super::{
    BpfError,
    clock::{counts, online_cpus},
    machine::page_size,
};

/// Bytes of a ring on a machine with few CPUs, and at least; a page where that is more.
const MOST_BYTES: usize = 256 << 10;
const LEAST_BYTES: usize = 16 << 10;
/// Bytes of all rings together that are aimed at.
const ALL_BYTES: usize = 8 << 20;

/// PERF_FLAG_FD_CLOEXEC of linux/perf_event.h.
const FLAG_FD_CLOEXEC: libc::c_ulong = 8;

#[derive(Debug)]
struct Ring {
    cpu: u32,
    event: File,
    base: *mut libc::c_void,
    page: usize,
    /// Bytes of records, a power of two.
    size: usize,
}

// SAFETY: the mapping belongs to this value alone and may be used from any one thread.
unsafe impl Send for Ring {}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: `base` and the length are those of the mapping made in `open`.
        unsafe { libc::munmap(self.base, self.page + self.size) };
    }
}

impl Ring {
    fn open(cpu: u32, pages: usize) -> Result<Self, BpfError> {
        let event = open_event(cpu).map_err(|source| BpfError::Clock { cpu, source })?;
        let page = page_size() as usize;
        let mut pages = pages;
        loop {
            let size = pages * page;
            // SAFETY: a new mapping of the event's own ring, at an address of the kernel's choice.
            let base = unsafe {
                libc::mmap(
                    std::ptr::null_mut(),
                    page + size,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_SHARED,
                    event.as_raw_fd(),
                    0,
                )
            };
            if base != libc::MAP_FAILED {
                return Ok(Self { cpu, event, base, page, size });
            }
            let source = io::Error::last_os_error();
            if pages == 1 {
                return Err(BpfError::Map { map: "side band", source });
            }
            pages /= 2; // locked memory may be scarce
        }
    }

    fn position(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: the first page of the mapping is a perf_event_mmap_page, which lives as long
        // as `self`; both positions are aligned u64 in it that the kernel also treats as atomic.
        unsafe { &*self.base.byte_add(offset).cast::<AtomicU64>() }
    }

    /// Appends the whole records in the ring and frees their space.
    fn drain(&mut self, out: &mut Vec<u8>) {
        let head = self.position(std::mem::offset_of!(libbpf_sys::perf_event_mmap_page, data_head));
        let tail = self.position(std::mem::offset_of!(libbpf_sys::perf_event_mmap_page, data_tail));
        let (from, to) = (tail.load(Ordering::Relaxed), head.load(Ordering::Acquire));
        let length = (to.wrapping_sub(from) as usize).min(self.size);
        let at = from as usize & (self.size - 1);
        let first = length.min(self.size - at);
        out.reserve(length);
        // SAFETY: `at + first <= size` and `length - first <= size`, so both reads are inside the
        // data pages behind the first page. The kernel does not write there before the tail
        // moves, and the acquire above makes what it wrote visible.
        unsafe {
            let data = self.base.byte_add(self.page).cast::<u8>();
            out.extend_from_slice(std::slice::from_raw_parts(data.add(at), first));
            out.extend_from_slice(std::slice::from_raw_parts(data, length - first));
        }
        tail.store(to, Ordering::Release);
    }
}

/// The rings of all online CPUs.
#[derive(Debug)]
pub struct SideBand {
    rings: Vec<Ring>,
    pages: usize,
}

impl SideBand {
    /// Opens a ring on every online CPU; from here on nothing is missed unsaid.
    pub fn open() -> Result<Self, BpfError> {
        let share = (ALL_BYTES / online_cpus().len().max(1)).clamp(LEAST_BYTES, MOST_BYTES);
        let pages = (1 << share.ilog2() >> page_size().ilog2()).max(1);
        let mut band = Self { rings: Vec::new(), pages };
        band.follow_cpus()?;
        Ok(band)
    }

    /// Opens rings on CPUs that came, or came back, and closes those of CPUs that went. Says whether any came:
    /// what ran there before now was not seen.
    pub fn follow_cpus(&mut self) -> Result<bool, BpfError> {
        let online = online_cpus();
        self.rings.retain(|ring| online.contains(&ring.cpu) && counts(&ring.event));
        let mut came = false;
        for cpu in online {
            if self.rings.iter().any(|ring| ring.cpu == cpu) {
                continue;
            }
            match Ring::open(cpu, self.pages) {
                Ok(ring) => self.rings.push(ring),
                // It went meanwhile.
                Err(BpfError::Clock { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => continue,
                Err(e) => return Err(e),
            }
            came = true;
        }
        Ok(came)
    }

    /// What to poll: readable when a record was written.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.rings.iter().map(|ring| ring.event.as_fd())
    }

    /// Hands over each ring's records since the last time, whole and in order within the ring.
    pub fn drain(&mut self, scratch: &mut Vec<u8>, mut take: impl FnMut(&[u8])) {
        for ring in &mut self.rings {
            scratch.clear();
            ring.drain(scratch);
            if !scratch.is_empty() {
                take(scratch);
            }
        }
    }
}

fn open_event(cpu: u32) -> io::Result<File> {
    let mut attributes = libbpf_sys::perf_event_attr {
        type_: libbpf_sys::PERF_TYPE_SOFTWARE,
        size: size_of::<libbpf_sys::perf_event_attr>() as u32,
        // It does not tick, having no period, but its count says whether the event is alive.
        config: u64::from(libbpf_sys::PERF_COUNT_SW_CPU_CLOCK),
        // Just the time behind each record: `processes/records.rs` relies on it.
        sample_type: u64::from(libbpf_sys::PERF_SAMPLE_TIME),
        clockid: libc::CLOCK_MONOTONIC,
        ..Default::default()
    };
    attributes.set_mmap(1);
    attributes.set_mmap2(1);
    attributes.set_comm(1);
    attributes.set_comm_exec(1);
    attributes.set_task(1);
    attributes.set_sample_id_all(1);
    attributes.set_use_clockid(1);
    attributes.set_watermark(1);
    attributes.__bindgen_anon_2.wakeup_watermark = 1;
    // SAFETY: a sized attribute struct whose unused fields are zero; pid -1 and a CPU ask for
    // all tasks on that CPU.
    let fd =
        unsafe { libc::syscall(libc::SYS_perf_event_open, &raw const attributes, -1, cpu as i32, -1, FLAG_FD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { File::from_raw_fd(fd as i32) })
}
