//! Black-box tests of the HTTP API: a real server on a random port, its own data directory and database per test, and a
//! real HTTP client.
//!
//! With `WEIGHTPRESS_TEST_DATABASE_URL` set to a Postgres server, every test gets a database of its own there instead of
//! an SQLite file.

mod adapters;
mod bad_binary;
mod bad_jobs;
mod bad_predictions;
mod bad_requests;
mod bad_uploads;
mod benchmarks;
mod binary;
mod client;
mod codings;
mod crash;
mod datasets;
mod downloads;
mod events;
mod faults;
mod fixtures;
mod harness;
mod hostile_models;
mod isolation;
mod jobs;
mod keys;
mod memory;
mod metadata;
mod models;
mod operations;
mod predictions;
mod program;
mod repository;
mod searches;
mod uploads;
mod webhooks;
