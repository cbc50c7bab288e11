//! The command line as a user meets it: the built binary, real files, exit statuses.

mod bad_input;
mod commands;
mod harness;
mod keys;
mod settings;
