//! Ingest, queries, symbol service and the web application over one port. Knows no BPF.
