//! What the tests stand on.

pub mod loopback;
pub mod moto;
