//! What is recovered.

pub mod postgres;
pub mod redis;
