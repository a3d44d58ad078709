//! ELF and kallsyms to a symbol index that is looked up mapped. No IO beyond bytes.
