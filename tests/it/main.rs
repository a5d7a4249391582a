mod architecture;
mod invalid_files;
mod postgres;
mod redis;
mod support;
