//! What the kernel side has to be told of the machine: its pages, its kernel stacks, its addresses.

use std::sync::OnceLock;

use crate::processes::maps;

/// Bytes of a page: 4096 on x86-64; also 16 or 64 KiB on arm64.
pub fn page_size() -> u64 {
    static SIZE: OnceLock<u64> = OnceLock::new();
    // SAFETY: no pointers are passed.
    *SIZE.get_or_init(|| u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096).max(4096))
}

/// Bytes of a thread's stack in the kernel: 16 KiB, or a page where that is more.
pub fn kernel_stack() -> u64 {
    page_size().max(16 << 10)
}

/// The bits of user addresses. Above them arm64 processors sign return addresses; how many
/// bits there are is the kernel's choice, and a process's own stack lies at their upper end.
pub fn address_mask() -> u64 {
    static MASK: OnceLock<u64> = OnceLock::new();
    *MASK.get_or_init(|| {
        if cfg!(target_arch = "x86_64") {
            return u64::MAX;
        }
        let text = std::fs::read("/proc/self/maps").unwrap_or_default();
        let highest = maps::lines(&text).map(|line| line.end).max();
        mask_below(highest.unwrap_or(1 << 48))
    })
}

/// All bits that an address below `end` can have.
fn mask_below(end: u64) -> u64 {
    u64::MAX >> end.saturating_sub(1).leading_zeros().min(63)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_is_as_wide_as_the_address_space() {
        assert_eq!(mask_below(0xffff_c000_0000), (1 << 48) - 1);
        assert_eq!(mask_below(1 << 48), (1 << 48) - 1);
        assert_eq!(mask_below(0x7f_ffff_f000), (1 << 39) - 1);
        assert_eq!(mask_below(0), 1);
    }

    #[test]
    fn pages_and_stacks_are_powers_of_two() {
        assert!(page_size().is_power_of_two() && kernel_stack().is_power_of_two());
    }
}
