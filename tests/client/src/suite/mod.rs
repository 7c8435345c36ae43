//! Tests of what a driver in good faith does.

pub mod basic;
mod data;
mod limits;
mod requests;
pub mod stress;
