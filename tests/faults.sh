#!/usr/bin/env bash
# The long form of tests/api/faults.rs: 200 jobs while everything around them fails, on SQLite and, where
# WEIGHTPRESS_TEST_DATABASE_URL names a server, on Postgres.
set -euo pipefail
cd "$(dirname "$0")/.."
export WEIGHTPRESS_FAULTS_JOBS=${WEIGHTPRESS_FAULTS_JOBS:-200}
server=${WEIGHTPRESS_TEST_DATABASE_URL:-}
unset WEIGHTPRESS_TEST_DATABASE_URL
cargo test --release --locked --test api -- --nocapture faults
if [ -n "$server" ]; then
    WEIGHTPRESS_TEST_DATABASE_URL=$server cargo test --release --locked --test api -- --nocapture faults
fi
