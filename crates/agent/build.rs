//! Compiles bpf/everflame.bpf.c into OUT_DIR. One call of clang instead of generated
//! skeletons: the few structs that cross the border are mirrored by hand in
//! src/bpf/abi.rs, and no second libbpf has to be built for the build machine.

use std::{env, path::PathBuf, process::Command};

fn main() {
    let bpf = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../../bpf");
    println!("cargo:rerun-if-changed={}", bpf.display());
    println!("cargo:rerun-if-env-changed=CLANG");
    let object = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it")).join("everflame.bpf.o");
    let headers = env::var("DEP_BPF_INCLUDE").expect("libbpf-sys says where its headers are");
    let candidates: Vec<String> = match env::var("CLANG") {
        Ok(clang) => vec![clang],
        Err(_) => ["clang-19", "clang-18", "clang-17", "clang-16", "clang"].map(String::from).into(),
    };
    for clang in &candidates {
        let mut command = Command::new(clang);
        command
            .args(["-target", "bpf", "-mcpu=v3", "-O2", "-g", "-Wall", "-Wextra", "-Werror"])
            .args(["-Wno-unused-parameter", "-Wno-sign-compare", "-fdebug-prefix-map=../../=", "-I"])
            .arg(&headers)
            .args(["-I/usr/include/x86_64-linux-gnu", "-c"])
            .arg(bpf.join("everflame.bpf.c"))
            .arg("-o")
            .arg(&object);
        match command.status() {
            Ok(status) if status.success() => return,
            Ok(status) => panic!("{clang} could not compile bpf/everflame.bpf.c ({status})"),
            Err(_) => continue,
        }
    }
    panic!("no clang found (tried {}): run scripts/setup.sh or set CLANG", candidates.join(", "));
}
