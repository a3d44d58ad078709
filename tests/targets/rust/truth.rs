//! Known truth in Rust: 60/30/10 % of the thread's own CPU time in three functions below a
//! recursion of 30. usage: truth_rust SECONDS [WARM_UP_SECONDS]
//!
//! Built by rustc alone, without a crate: the clock comes from libc by hand.
use std::hint::black_box;

#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

unsafe extern "C" {
    fn clock_gettime(clock: i32, time: *mut Timespec) -> i32;
}

const CLOCK_THREAD_CPUTIME_ID: i32 = 3;

fn now() -> u64 {
    let mut time = Timespec { seconds: 0, nanoseconds: 0 };
    // SAFETY: `time` is a valid struct timespec of a 64-bit Linux and outlives the call.
    unsafe { clock_gettime(CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.seconds as u64 * 1_000_000_000 + time.nanoseconds as u64
}

/// Inlined into each of the three, so that the arithmetic is theirs. Returns what it took.
#[inline(always)]
fn burn(nanoseconds: u64, seed: u64) -> u64 {
    let start = now();
    let mut x = seed | 1;
    loop {
        for _ in 0..100_000 {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
        }
        black_box(x);
        let took = now() - start;
        if took >= nanoseconds {
            return took;
        }
    }
}

#[inline(never)]
fn work_a(ns: u64) -> u64 {
    burn(ns, 3)
}

#[inline(never)]
fn work_b(ns: u64) -> u64 {
    burn(ns, 5)
}

#[inline(never)]
fn work_c(ns: u64) -> u64 {
    burn(ns, 7)
}

#[inline(never)]
fn descend(depth: u32, which: usize, ns: u64) -> u64 {
    if depth > 1 {
        // Something to do after each call, so that it cannot become a jump.
        return black_box(descend(depth - 1, which, ns));
    }
    match which {
        0 => black_box(work_a(ns)),
        1 => black_box(work_b(ns)),
        _ => black_box(work_c(ns)),
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter_map(|a| a.parse::<f64>().ok());
    let seconds = arguments.next().unwrap_or(10.0);
    std::thread::sleep(std::time::Duration::from_secs_f64(arguments.next().unwrap_or(0.0)));
    let (mut random, mut spent) = (88172645463325252u64, [0u64; 3]);
    while (spent.iter().sum::<u64>() as f64) < seconds * 1e9 {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let (pick, ns) = ((random >> 33) % 100, 500_000 + (random >> 20) % 3_500_000);
        let which = if pick < 60 {
            0
        } else if pick < 90 {
            1
        } else {
            2
        };
        spent[which] += descend(30, which, ns);
    }
    println!("{{\"work_a\":{},\"work_b\":{},\"work_c\":{}}}", spent[0], spent[1], spent[2]);
}
