mod architecture;
mod invalid_files;
mod orders;
mod postgres;
mod redis;
mod report;
mod sandbox;
mod support;
