//! musl has neither unwind data nor frame pointers: threads of a static program are walked to their root all the same.
mod walk;
use object::{Object, ObjectSymbol};
use std::process::{Command, Stdio};

const SOURCE: &str = "
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
static int rest(const void *a, const void *b) {
    struct timespec t = {0, 2000000};
    nanosleep(&t, 0);
    return *(const int *)a - *(const int *)b;
}
__attribute__((noinline)) static int deep(int n) {
    int values[4] = {4, 3, 2, 1};
    if (n == 0) {
        qsort(values, 4, sizeof values[0], rest); /* from covered code through musl back into covered code */
        return values[0];
    }
    return deep(n - 1) + 1;
}
int main(void) {
    setvbuf(stdout, 0, _IONBF, 0);
    puts(\"ready\");
    for (;;) deep(29);
}
";

#[test]
fn a_static_program_is_walked_from_inside_libc_to_start() {
    if Command::new("musl-gcc").arg("--version").output().is_err() {
        eprintln!("SKIPPED: musl-gcc is not on this machine");
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let (file, program) = (directory.path().join("p.c"), directory.path().join("p"));
    std::fs::write(&file, SOURCE).expect("written");
    let done = Command::new("musl-gcc").args(["-O2", "-static", "-o"]).arg(&program).arg(&file).status();
    assert!(done.expect("musl-gcc runs").success());
    let bytes = std::fs::read(&program).expect("readable");
    let object = object::File::parse(&*bytes).expect("ELF");
    let mut symbols: Vec<(u64, String)> =
        object.symbols().map(|s| (s.address(), s.name().unwrap_or_default().to_owned())).collect();
    symbols.sort();
    let stripped = directory.path().join("stripped");
    let done = Command::new("strip").arg("-o").arg(&stripped).arg(&program).status().expect("strip runs");
    assert!(done.success());
    for program in [&program, &stripped] {
        let mut child = Command::new(program).stdout(Stdio::piped()).spawn().map(walk::Running).expect("starts");
        let mut ready = [0; 6];
        std::io::Read::read_exact(child.0.stdout.as_mut().expect("piped"), &mut ready).expect("it says ready");
        let (mut walked, mut complete) = (0, 0);
        for _ in 0..100 {
            for stack in walk::threads(child.0.id()).iter().filter(|s| !s.moved) {
                walked += 1;
                let name = |pc: &u64| symbols[symbols.partition_point(|s| s.0 <= *pc).saturating_sub(1)].1.as_str();
                let names: Vec<&str> = stack.frames.iter().map(name).collect();
                assert!(stack.complete, "{}: {names:?}", program.display());
                assert_eq!(names.iter().filter(|n| n.starts_with("deep")).count(), 30, "{names:?}");
                for wanted in ["rest", "main", "_start"] {
                    assert!(names.contains(&wanted), "{wanted} in {names:?}");
                }
                complete += 1;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        drop(child);
        eprintln!("{}: {complete} of {walked} stacks are complete", program.display());
        assert!(complete > 20, "{complete} of {walked}");
    }
}
