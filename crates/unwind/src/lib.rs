//! ELF bytes to compact unwind rows and rule tables. No IO, no unsafe.
