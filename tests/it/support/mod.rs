//! Real servers for the tests.

pub mod redis;
