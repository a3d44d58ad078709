//! Panics in flight: each goes through twenty frames to a `catch_unwind`, again and again.
//! usage: panics SECONDS [WARM_UP_SECONDS]

use std::hint::black_box;
use std::panic::{catch_unwind, panic_any, set_hook};
use std::time::Duration;

#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

unsafe extern "C" {
    fn clock_gettime(clock: i32, time: *mut Timespec) -> i32;
}

const CLOCK_THREAD_CPUTIME_ID: i32 = 3;

fn thread_seconds() -> f64 {
    let mut time = Timespec { seconds: 0, nanoseconds: 0 };
    // SAFETY: `time` is a valid struct timespec of a 64-bit Linux and outlives the call.
    unsafe { clock_gettime(CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.seconds as f64 + time.nanoseconds as f64 / 1e9
}

/// Something to drop, so that every frame has work while the panic passes.
struct Guard<'a>(&'a std::cell::Cell<u64>);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

#[inline(never)]
fn descend(depth: u32, count: &std::cell::Cell<u64>) -> u64 {
    let _guard = Guard(count);
    if black_box(depth) == 0 {
        panic_any(count.get());
    }
    black_box(descend(depth - 1, count)) + 1
}

#[inline(never)]
fn catches(count: &std::cell::Cell<u64>) -> u64 {
    let caught = catch_unwind(std::panic::AssertUnwindSafe(|| descend(20, count)));
    black_box(caught.map_err(|value| *value.downcast::<u64>().unwrap_or_default()).unwrap_or_else(|value| value))
}

#[inline(never)]
fn outer(seconds: f64) -> u64 {
    let (start, count) = (thread_seconds(), std::cell::Cell::new(0));
    while thread_seconds() - start < seconds {
        for _ in 0..100 {
            catches(&count);
        }
    }
    black_box(count.get())
}

fn main() {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<f64>().unwrap_or(0.0));
    let (seconds, warm_up) = (numbers.next().unwrap_or(1.0), numbers.next().unwrap_or(0.0));
    set_hook(Box::new(|_| {}));
    std::thread::sleep(Duration::from_secs_f64(warm_up));
    println!("{{\"frames\":{}}}", outer(seconds));
}
