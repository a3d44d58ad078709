//! Loads the object, attaches the lifecycle programs, and hands out the maps.

use std::{fs, os::fd::AsFd, path::Path};

use libbpf_rs::{Link, MapCore, MapHandle, Object, ObjectBuilder, PrintLevel};

use super::{
    BpfError, abi,
    births::BirthReader,
    clock::{Clock, online_cpus},
    counters::CounterMap,
    machine::{address_mask, kernel_stack, page_size},
    pool::MappingPool,
    ring::RingReader,
    shared::Shared,
    tables::TableSpace,
};

/// The object as it is compiled from `bpf/`.
pub static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/everflame.bpf.o"));

/// How the kernel side is set up.
#[derive(Debug, Clone)]
pub struct ProgramOptions {
    /// Bytes of the sample ring, a power of two; a page where that is more.
    pub ring_bytes: u32,
    /// Longest time of one walk in the interrupt, in nanoseconds.
    pub time_limit_ns: u64,
    /// Sample only processes that are marked by [`Programs::want`], and their children.
    pub only_wanted: bool,
    /// Bytes of processes' mappings at most.
    pub mapping_bytes: u64,
    /// Processes in the kernel's table at most.
    pub processes: u32,
    /// Bytes of the stacks of an epoch.
    pub stack_bytes: u64,
    /// Every so manieth user stack is copied though its walk was fine; 0 for none.
    pub copy_every: u32,
    /// Bytes of user stacks that are copied a second on all CPUs together, at most.
    pub copy_rate: u64,
}

/// See [`ProgramOptions::copy_rate`]: a few hundred stacks.
pub const COPY_RATE: u64 = 8 << 20;

impl Default for ProgramOptions {
    fn default() -> Self {
        Self {
            ring_bytes: 1 << 20,
            time_limit_ns: 10_000_000,
            only_wanted: false,
            mapping_bytes: 32 << 20,
            processes: 32_768,
            stack_bytes: 8 << 20,
            copy_every: 0,
            copy_rate: COPY_RATE,
        }
    }
}

/// The loaded programs. Dropping it ends the sampling.
#[derive(Debug)]
pub struct Programs {
    object: Object,
    _lifecycle: Vec<Link>,
    cpus: u32,
    mapping_bytes: u64,
    stack_bytes: u64,
}

impl Programs {
    /// Loads everything and attaches the lifecycle programs; no sample is taken yet.
    pub fn load(options: &ProgramOptions) -> Result<Self, BpfError> {
        libbpf_rs::set_print(Some((
            PrintLevel::Warn,
            |_, text| tracing::debug!(target: "libbpf", "{}", text.trim_end()),
        )));
        if fs::metadata("/sys/kernel/btf/vmlinux").is_err() {
            return Err(BpfError::Refused {
                what: "look for kernel type information",
                reason: "/sys/kernel/btf/vmlinux is missing".into(),
                remedy: "use a kernel built with CONFIG_DEBUG_INFO_BTF (all distributions' since 5.10)",
            });
        }
        raise_memlock();
        let cpus = possible_cpus();
        let ring_bytes = options.ring_bytes.max(page_size() as u32);
        let mut open = ObjectBuilder::default().open_memory(OBJECT).map_err(|e| refused("open", e))?;
        for mut map in open.maps_mut() {
            let name = map.name().to_string_lossy().into_owned();
            let set = match name.as_str() {
                "processes" => map.set_max_entries(options.processes),
                "walks" => map.set_max_entries(cpus),
                "counters" => map.set_max_entries(cpus + abi::USER_COUNTER_ELEMENTS),
                "ring" => map.set_max_entries(ring_bytes),
                _ => Ok(()),
            };
            set.map_err(|e| refused("size a map", e))?;
            if name.ends_with(".rodata") {
                let bytes = abi::Options {
                    time_limit_ns: options.time_limit_ns,
                    ring_size: u64::from(ring_bytes),
                    only_wanted: u32::from(options.only_wanted),
                    copy_every: options.copy_every,
                    // Each CPU can copy two stacks a second, however many there are.
                    copy_rate: (options.copy_rate / online_cpus().len().max(1) as u64).max(2 * abi::STACK_BYTES as u64),
                    address_mask: address_mask(),
                    kernel_stack: kernel_stack(),
                }
                .to_bytes();
                match map.initial_value_mut() {
                    Some(value) if value.len() == bytes.len() => value.copy_from_slice(&bytes),
                    other => panic!("read-only data is {:?} bytes, not the options alone", other.map(|v| v.len())),
                }
            }
        }
        let object = open.load().map_err(|e| refused("load", e))?;
        let mut lifecycle = Vec::new();
        for program in object.progs_mut() {
            if program.name() == "sampler" {
                continue;
            }
            match program.attach() {
                Ok(link) => lifecycle.push(link),
                // A kernel may have no control groups.
                Err(e) if program.name() == "cgroup_is_made" => {
                    tracing::info!("containers are known by /proc alone: {e:#}");
                }
                Err(e) => return Err(refused("attach a lifecycle program", e)),
            }
        }
        Ok(Self {
            object,
            _lifecycle: lifecycle,
            cpus,
            mapping_bytes: options.mapping_bytes,
            stack_bytes: options.stack_bytes,
        })
    }

    /// A handle of a map by its name in `bpf/maps.h`.
    pub fn map(&self, name: &'static str) -> Result<MapHandle, BpfError> {
        let map = self.object.maps().find(|m| m.name() == name);
        let map = map.ok_or(BpfError::Map { map: name, source: std::io::ErrorKind::NotFound.into() })?;
        MapHandle::try_from(&map).map_err(|e| BpfError::Map { map: name, source: into_io(e) })
    }

    fn shared(&self, name: &'static str) -> Result<Shared, BpfError> {
        let map = self.map(name)?;
        let length = map.value_size().next_multiple_of(8) as usize * map.max_entries() as usize;
        Shared::map(&map.as_fd(), length).map_err(|source| BpfError::Map { map: name, source })
    }

    /// Memory of the maps that are there from the start, bytes. Chunks of tables and of
    /// mappings come on top as they are needed.
    pub fn map_bytes(&self) -> u64 {
        let size = |map: libbpf_rs::Map<'_>| match map.map_type() {
            libbpf_rs::MapType::RingBuf => u64::from(map.max_entries()),
            // Key, value and the kernel's own words of a preallocated entry.
            libbpf_rs::MapType::Hash => {
                u64::from(map.max_entries()) * (64 + u64::from(map.value_size().next_multiple_of(8)))
            }
            _ => u64::from(map.max_entries()) * u64::from(map.value_size().next_multiple_of(8)),
        };
        self.object.maps().map(size).sum()
    }

    /// CPUs that can ever be there.
    pub fn cpus(&self) -> u32 {
        self.cpus
    }

    /// The counters, mapped.
    pub fn counters(&self) -> Result<CounterMap, BpfError> {
        Ok(CounterMap::new(self.shared("counters")?.leak(), self.cpus))
    }

    /// Pins the counters so that they outlive this process.
    pub fn pin_counters(&self, path: &Path) -> Result<(), BpfError> {
        let mut map = self.map("counters")?;
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|source| BpfError::Map { map: "counters (pinned)", source })?;
        }
        map.pin(path).map_err(|e| BpfError::Map { map: "counters (pinned)", source: into_io(e) })
    }

    /// The pool of mappings.
    pub fn mapping_pool(&self) -> Result<MappingPool, BpfError> {
        Ok(MappingPool::new(self.map("mapping_chunks")?, self.map("processes")?, self.mapping_bytes))
    }

    /// The space of unwind tables.
    pub fn table_space(&self) -> Result<TableSpace, BpfError> {
        Ok(TableSpace::new(self.map("row_chunks")?, self.shared("tables")?))
    }

    /// The reader of samples.
    pub fn ring_reader(&self) -> Result<RingReader, BpfError> {
        RingReader::new(self.map("ring")?, self.shared("control")?, self.stack_bytes)
    }

    /// The reader of control groups that are made.
    pub fn birth_reader(&self) -> Result<BirthReader, BpfError> {
        BirthReader::new(self.map("births")?)
    }

    /// Samples `pid` and the children it will have (with `only_wanted`).
    pub fn want(&self, pid: u32) -> Result<(), BpfError> {
        let map = self.map("wanted")?;
        map.update(&pid.to_le_bytes(), &[1], libbpf_rs::MapFlags::ANY)
            .map_err(|e| BpfError::Map { map: "wanted", source: into_io(e) })
    }

    /// Takes the mark away; children that have it keep it.
    pub fn unwant(&self, pid: u32) {
        // That it has gone meanwhile is no error.
        let _ = self.map("wanted").map(|map| map.delete(&pid.to_le_bytes()));
    }

    /// Starts to sample every online CPU at `rate` a second.
    pub fn start_clock(&self, rate: u32, counters: &CounterMap) -> Result<Clock, BpfError> {
        Clock::start(rate)?.attach(self, counters)
    }

    /// Attaches the sampler to an open event.
    pub(super) fn attach_sampler(&self, fd: i32) -> Result<Link, BpfError> {
        let program = self.object.progs_mut().find(|p| p.name() == "sampler").expect("the object has a sampler");
        program.attach_perf_event(fd).map_err(|e| refused("attach the sampler", e))
    }
}

/// The counters that a predecessor pinned, mapped.
pub fn pinned_counters(path: &Path) -> Option<CounterMap> {
    let map = MapHandle::from_pinned_path(path).ok()?;
    let elements = map.max_entries();
    let size = size_of::<abi::Counters>();
    let cpus = possible_cpus();
    if map.value_size() as usize != size || elements <= cpus {
        return None; // another version's
    }
    let shared = Shared::map(&map.as_fd(), size * elements as usize).ok()?;
    Some(CounterMap::new(shared.leak(), cpus))
}

fn refused(what: &'static str, error: libbpf_rs::Error) -> BpfError {
    let remedy = match into_io_kind(&error) {
        std::io::ErrorKind::PermissionDenied => {
            "CAP_BPF and CAP_PERFMON must be those of the host's user namespace, and the seccomp profile must let \
             bpf and perf_event_open through; `everflame doctor` says which is missing"
        }
        std::io::ErrorKind::OutOfMemory => "raise the memory limit of the agent's cgroup",
        _ => "Linux 5.10 or newer is needed; `everflame doctor` says what is missing",
    };
    BpfError::Refused { what, reason: format!("{error:#}"), remedy }
}

fn into_io_kind(error: &libbpf_rs::Error) -> std::io::ErrorKind {
    match error.kind() {
        libbpf_rs::ErrorKind::PermissionDenied => std::io::ErrorKind::PermissionDenied,
        libbpf_rs::ErrorKind::OutOfMemory => std::io::ErrorKind::OutOfMemory,
        _ => std::io::ErrorKind::Other,
    }
}

pub(super) fn into_io(error: libbpf_rs::Error) -> std::io::Error {
    std::io::Error::new(into_io_kind(&error), format!("{error:#}"))
}

/// Kernels before 5.11 charge maps to RLIMIT_MEMLOCK. Where it may not be raised, newer
/// kernels do not mind, so that a refusal is no error.
fn raise_memlock() {
    let unlimited = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: a valid rlimit to read from.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &unlimited) };
}

fn possible_cpus() -> u32 {
    libbpf_rs::num_possible_cpus().map_or(1, |n| n as u32)
}
