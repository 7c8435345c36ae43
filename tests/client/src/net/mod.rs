//! Tests of network devices. The other end is the gateway of a segment: it leases addresses, answers ping and
//! names, and serves counters.

pub mod basic;
mod chains;
mod control;
pub mod flood;
mod headers;
mod host;
pub mod hostile;
mod nic;
mod packet;
mod raw;
