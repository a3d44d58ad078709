//! Makes sure that the folder of the web application exists, so that the crate builds
//! before the application does; an empty one is answered with what to do.

fn main() {
    const FOLDER: &str = "../../ui/dist";
    if let Err(error) = std::fs::create_dir_all(FOLDER) {
        println!("cargo::error=cannot create {FOLDER}: {error}");
    }
    println!("cargo::rerun-if-changed={FOLDER}");
}
