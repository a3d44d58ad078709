//! The CPU clocks that tick the sampler: one software event a CPU, as CPUs come and go.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::fd::{AsRawFd, FromRawFd},
};

use libbpf_rs::Link;

use super::{BpfError, counters::CounterMap, programs::Programs};

/// How far the period is moved away from the asked one, at most, in parts of a thousand.
const JITTER_PER_MILLE: u64 = 50;

/// `_IOW('$', 4, __u64)` of linux/perf_event.h.
const IOC_PERIOD: libc::c_ulong = 0x4008_2404;
/// PERF_FLAG_FD_CLOEXEC of linux/perf_event.h.
const FLAG_FD_CLOEXEC: libc::c_ulong = 8;

#[derive(Debug)]
struct CpuClock {
    cpu: u32,
    event: File,
    _link: Link,
}

/// Whether an event of the CPU's clock counts. The kernel takes events off a CPU that goes, and
/// does not put them back when it comes again.
pub(super) fn counts(mut event: &File) -> bool {
    let (mut once, mut again) = ([0; 8], [0; 8]);
    let read = matches!((event.read(&mut once), event.read(&mut again)), (Ok(8), Ok(8)));
    read && again != once
}

/// One event a CPU. Dropping it ends the ticks.
#[derive(Debug)]
pub struct Clock {
    period: u64,
    clocks: Vec<CpuClock>,
    round: u64,
    seed: u64,
}

impl Clock {
    pub(super) fn start(rate: u32) -> Result<Self, BpfError> {
        let period = 1_000_000_000 / u64::from(rate.max(1));
        let seed = super::monotonic_ns() | 1;
        Ok(Self { period, clocks: Vec::new(), round: 0, seed })
    }

    pub(super) fn attach(mut self, programs: &Programs, counters: &CounterMap) -> Result<Self, BpfError> {
        self.follow_cpus(programs, counters)?;
        Ok(self)
    }

    /// The asked period in nanoseconds.
    pub fn period(&self) -> u64 {
        self.period
    }

    /// CPUs that are sampled now.
    pub fn cpus(&self) -> u32 {
        self.clocks.len() as u32
    }

    /// Opens clocks on CPUs that came, or came back, and forgets those that went. Says whether
    /// any came.
    pub fn follow_cpus(&mut self, programs: &Programs, counters: &CounterMap) -> Result<bool, BpfError> {
        let online = online_cpus();
        let mut came = false;
        self.clocks.retain(|clock| online.contains(&clock.cpu) && counts(&clock.event));
        for cpu in online {
            if self.clocks.iter().any(|clock| clock.cpu == cpu) {
                continue;
            }
            let event = match open_event(cpu, self.period) {
                Ok(event) => event,
                Err(e) if e.raw_os_error() == Some(libc::ENODEV) => continue, // it went meanwhile
                Err(source) => return Err(BpfError::Clock { cpu, source }),
            };
            // No tick was missed on a CPU that was not there.
            counters.rearm(cpu);
            let link = programs.attach_sampler(event.as_raw_fd())?;
            self.clocks.push(CpuClock { cpu, event, _link: link });
            came = true;
        }
        Ok(came)
    }

    /// Moves each CPU's period a little, so that nothing locks onto it: a server under a steady
    /// load has a rhythm of its own, and a period that fits it sees one part of each beat too
    /// often, by a fifth in cases measured. The moves come in
    /// pairs that cancel out, over neighbouring CPUs and over two rounds of one CPU; the
    /// kernel program reads the true period at each tick.
    pub fn jitter(&mut self, counters: &CounterMap) {
        if self.round.is_multiple_of(2) {
            self.seed ^= self.seed << 13;
            self.seed ^= self.seed >> 7;
            self.seed ^= self.seed << 17;
        }
        // One distance for all, so that a process has two periods at a time, not one a CPU.
        let part = self.period * ((self.seed >> 32) % (JITTER_PER_MILLE + 1)) / 1000;
        for clock in &self.clocks {
            let longer = (u64::from(clock.cpu) + self.round).is_multiple_of(2);
            let period = if longer { self.period + part } else { self.period - part };
            counters.rearm(clock.cpu);
            // SAFETY: the request reads one u64 from the pointer; the descriptor is open.
            unsafe { libc::ioctl(clock.event.as_raw_fd(), IOC_PERIOD, &period) };
        }
        self.round += 1;
    }
}

/// Whether we lack a right to the clock of a CPU.
pub(super) fn is_refused(cpu: u32) -> bool {
    open_event(cpu, 1_000_000_000).is_err_and(|e| e.kind() == io::ErrorKind::PermissionDenied)
}

fn open_event(cpu: u32, period: u64) -> io::Result<File> {
    let mut attributes = libbpf_sys::perf_event_attr {
        type_: libbpf_sys::PERF_TYPE_SOFTWARE,
        size: size_of::<libbpf_sys::perf_event_attr>() as u32,
        config: u64::from(libbpf_sys::PERF_COUNT_SW_CPU_CLOCK),
        ..Default::default()
    };
    attributes.__bindgen_anon_1.sample_period = period;
    // SAFETY: a zeroed, sized attribute struct; pid -1 and a CPU ask for that CPU's event.
    let fd = unsafe { libc::syscall(libc::SYS_perf_event_open, &attributes, -1, cpu as i32, -1, FLAG_FD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { File::from_raw_fd(fd as i32) })
}

/// CPUs that are online, from the list in sysfs (`0-3,8`).
pub fn online_cpus() -> Vec<u32> {
    let list = fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_else(|_| "0".into());
    parse_cpu_list(&list)
}

fn parse_cpu_list(list: &str) -> Vec<u32> {
    let mut cpus = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) {
            cpus.extend(first..=last.min(first + 4095));
        }
    }
    cpus
}

#[cfg(test)]
mod tests {
    use super::parse_cpu_list;

    #[test]
    fn cpu_lists() {
        assert_eq!(parse_cpu_list("0-3,8\n"), [0, 1, 2, 3, 8]);
        assert_eq!(parse_cpu_list("0"), [0]);
        assert_eq!(parse_cpu_list(""), [] as [u32; 0]);
    }
}
