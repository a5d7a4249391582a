//! A bucket by URL through `object_store`.
