//! What is recovered.

pub mod redis;
