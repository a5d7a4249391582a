//! What is recovered.
