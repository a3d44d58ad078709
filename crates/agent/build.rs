//! Compiles bpf/everflame.bpf.c into OUT_DIR. One call of clang instead of generated
//! skeletons: the few structs that cross the border are mirrored by hand in
//! src/bpf/abi.rs, and no second libbpf has to be built for the build machine. The walk is
//! compiled once more for the host (bpf/host), as a library that user space calls.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

fn main() {
    let bpf = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../../bpf");
    println!("cargo:rerun-if-changed={}", bpf.display());
    println!("cargo:rerun-if-env-changed=CLANG");
    host_walk(&bpf);
    let object = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it")).join("everflame.bpf.o");
    let headers = env::var("DEP_BPF_INCLUDE").expect("libbpf-sys says where its headers are");
    let target = target();
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
            .args(&target)
            .arg("-c")
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

/// What the kernel programs have to know of the machine that they run on: its name as libbpf's
/// headers have it, and where the compiler for it keeps the kernel's headers.
fn target() -> Vec<String> {
    let (name, folders) = match env::var("CARGO_CFG_TARGET_ARCH").as_deref() {
        Ok("x86_64") => ("x86", ["/usr/include/x86_64-linux-gnu", "/usr/x86_64-linux-gnu/include"]),
        Ok("aarch64") => ("arm64", ["/usr/include/aarch64-linux-gnu", "/usr/aarch64-linux-gnu/include"]),
        other => panic!("no kernel programs for {other:?}: x86_64 and aarch64 are supported"),
    };
    let folders = folders.iter().filter(|folder| Path::new(folder).is_dir());
    std::iter::once(format!("-D__TARGET_ARCH_{name}")).chain(folders.map(|folder| format!("-I{folder}"))).collect()
}

/// The kernel's habits that the host's compiler must share: types that alias, sums that wrap.
fn host_walk(bpf: &Path) {
    cc::Build::new()
        .file(bpf.join("host/host.c"))
        .opt_level(2)
        .extra_warnings(true)
        .warnings_into_errors(true)
        .flags(["-fno-strict-aliasing", "-fwrapv", "-Wno-sign-compare", "-Wno-unused-parameter"])
        .compile("everflame_walk");
}
