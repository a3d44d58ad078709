//! The program: command line, up, record, top, doctor.
fn main() {}
