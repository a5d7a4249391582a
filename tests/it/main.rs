mod postgres;
mod redis;
mod support;
