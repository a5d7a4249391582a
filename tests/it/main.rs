mod redis;
mod support;
