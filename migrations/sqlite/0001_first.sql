-- The first schema, for SQLite. migrations/postgres holds the same tables for Postgres: keep the two alike, column by
-- column, for the queries are written once. Migrations are append-only; see migrations/README.md.
--
-- Times are milliseconds since 1970-01-01T00:00:00Z by the database's clock. Identifiers are UUIDs (version 7: they
-- sort by time) in text. JSON is text here and JSONB in Postgres.

-- The database's clock as a relation, so that a query reads it the same way in both databases.
CREATE VIEW clock AS
SELECT CAST(ROUND(unixepoch('now', 'subsec') * 1000) AS INTEGER) AS now_ms;

-- Who owns rows. One for now; every table names it, so that more can come without a rewrite.
CREATE TABLE tenants (
    id         TEXT    NOT NULL PRIMARY KEY,
    name       TEXT    NOT NULL UNIQUE,
    created_at INTEGER NOT NULL
) STRICT;

INSERT INTO tenants (id, name, created_at)
SELECT '00000000-0000-0000-0000-000000000000', 'default', now_ms FROM clock;

-- The identifier of this database, in one row. The file `owner` of the folder of blobs holds it too, so that the folder is
-- never swept for another database.
CREATE TABLE blob_owner (
    one INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    id  TEXT    NOT NULL
) STRICT;

-- Files in the blob store, under the SHA-256 of their bytes. A row comes after its file and goes before it.
CREATE TABLE blobs (
    tenant_id  TEXT    NOT NULL REFERENCES tenants (id),
    sha256     TEXT    NOT NULL CHECK (length(sha256) = 64),
    size_bytes INTEGER NOT NULL CHECK (size_bytes >= 0),
    created_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, sha256)
) STRICT;

-- Uploaded networks. The file itself is version 0.
CREATE TABLE models (
    id                    TEXT    NOT NULL PRIMARY KEY,
    tenant_id             TEXT    NOT NULL REFERENCES tenants (id),
    name                  TEXT    NOT NULL,
    format                TEXT    NOT NULL,           -- onnx, safetensors, npz
    inputs                TEXT    NOT NULL,           -- JSON, as are the next four
    outputs               TEXT    NOT NULL,
    weights               TEXT    NOT NULL,           -- what can be compressed
    kept                  TEXT    NOT NULL,           -- what cannot, and why
    unsupported_operators TEXT    NOT NULL,           -- what predictions lack
    default_version       INTEGER NOT NULL DEFAULT 0, -- served when none is named
    next_version          INTEGER NOT NULL DEFAULT 0, -- numbers are never given twice
    created_at            INTEGER NOT NULL,
    UNIQUE (tenant_id, name)
) STRICT;

-- Versions of models: 0 is the upload, each finished compression adds one.
CREATE TABLE versions (
    tenant_id  TEXT    NOT NULL,
    model_id   TEXT    NOT NULL REFERENCES models (id) ON DELETE CASCADE,
    number     INTEGER NOT NULL CHECK (number >= 0),
    sha256     TEXT    NOT NULL,
    ratio      REAL    NOT NULL, -- bytes of the upload / bytes of this file
    recipe     TEXT,             -- JSON; null for version 0, as are the next two
    report     TEXT,             -- JSON
    job_id     TEXT,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (model_id, number),
    FOREIGN KEY (tenant_id, sha256) REFERENCES blobs (tenant_id, sha256)
) STRICT;

CREATE INDEX versions_by_blob ON versions (tenant_id, sha256);

-- Layers of compressed versions, one row each, in file order.
CREATE TABLE layers (
    tenant_id        TEXT    NOT NULL REFERENCES tenants (id),
    model_id         TEXT    NOT NULL,
    version          INTEGER NOT NULL,
    position         INTEGER NOT NULL,
    name             TEXT    NOT NULL,
    op               TEXT    NOT NULL,
    shape            TEXT    NOT NULL, -- JSON
    weights          INTEGER NOT NULL, -- elements
    original_bytes   INTEGER NOT NULL,
    compressed_bytes INTEGER NOT NULL,
    stream_bytes     INTEGER NOT NULL, -- of these, the stream
    codebook_bytes   INTEGER NOT NULL, -- of these, its own codebook
    ratio            REAL    NOT NULL,
    bits_per_weight  REAL    NOT NULL,
    psi              REAL    NOT NULL, -- stream and own codebook / (4 x weights)
    sparsity         REAL    NOT NULL, -- fraction of zeros
    distinct_values  INTEGER NOT NULL,
    codec            TEXT    NOT NULL,
    weight_snr_db    REAL,             -- null when lossless
    PRIMARY KEY (model_id, version, position),
    FOREIGN KEY (model_id, version) REFERENCES versions (model_id, number) ON DELETE CASCADE
) STRICT;

-- Named arrays for evaluation.
CREATE TABLE datasets (
    id         TEXT    NOT NULL PRIMARY KEY,
    tenant_id  TEXT    NOT NULL REFERENCES tenants (id),
    name       TEXT    NOT NULL,
    format     TEXT    NOT NULL, -- npz, safetensors
    sha256     TEXT    NOT NULL,
    samples    INTEGER NOT NULL,
    arrays     TEXT    NOT NULL, -- JSON
    created_at INTEGER NOT NULL,
    UNIQUE (tenant_id, name),
    FOREIGN KEY (tenant_id, sha256) REFERENCES blobs (tenant_id, sha256)
) STRICT;

CREATE INDEX datasets_by_blob ON datasets (tenant_id, sha256);

-- The queue, and its history.
CREATE TABLE jobs (
    id           TEXT    NOT NULL PRIMARY KEY,
    tenant_id    TEXT    NOT NULL REFERENCES tenants (id),
    kind         TEXT    NOT NULL, -- compress, evaluate
    state        TEXT    NOT NULL
        CHECK (state IN ('queued', 'running', 'cancelling', 'succeeded', 'failed', 'cancelled')),
    priority     INTEGER NOT NULL,
    spec         TEXT    NOT NULL, -- JSON: what was asked for
    model_id     TEXT REFERENCES models (id) ON DELETE SET NULL,
    model        TEXT    NOT NULL, -- its name, which outlives it
    dataset_id   TEXT REFERENCES datasets (id) ON DELETE SET NULL,
    fraction     REAL    NOT NULL DEFAULT 0,
    stage        TEXT    NOT NULL DEFAULT '',
    message      TEXT    NOT NULL DEFAULT '',
    attempt      INTEGER NOT NULL DEFAULT 0, -- starts so far; the fencing token of the lease
    max_attempts INTEGER NOT NULL,
    result       TEXT,                       -- JSON, once it succeeded
    failure      TEXT,                       -- JSON, once it failed
    worker       TEXT,                       -- who holds the lease, for people
    run_at       INTEGER NOT NULL,           -- not claimed before
    lease_until  INTEGER,                    -- the worker must be heard of by then
    created_at   INTEGER NOT NULL,
    started_at   INTEGER,
    finished_at  INTEGER,
    CHECK ((lease_until IS NOT NULL) = (state IN ('running', 'cancelling'))),
    CHECK ((finished_at IS NOT NULL) = (state IN ('succeeded', 'failed', 'cancelled')))
) STRICT;

CREATE INDEX jobs_to_claim ON jobs (priority DESC, run_at, id) WHERE state = 'queued';
CREATE INDEX jobs_to_reap ON jobs (lease_until) WHERE state IN ('running', 'cancelling');
CREATE INDEX jobs_by_tenant ON jobs (tenant_id, id);
CREATE INDEX jobs_by_model ON jobs (model_id);
CREATE INDEX jobs_by_dataset ON jobs (dataset_id);

-- What happened to each job, in order, without gaps.
CREATE TABLE job_events (
    tenant_id TEXT    NOT NULL REFERENCES tenants (id),
    job_id    TEXT    NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    seq       INTEGER NOT NULL, -- from 1
    kind      TEXT    NOT NULL, -- queued, started, progress, requeued, cancelling, succeeded, failed, cancelled
    attempt   INTEGER NOT NULL,
    data      TEXT    NOT NULL, -- JSON
    at        INTEGER NOT NULL,
    PRIMARY KEY (job_id, seq)
) STRICT;

-- What was measured about versions.
CREATE TABLE metrics (
    tenant_id  TEXT    NOT NULL REFERENCES tenants (id),
    model_id   TEXT    NOT NULL,
    version    INTEGER NOT NULL,
    job_id     TEXT    NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    name       TEXT    NOT NULL, -- accuracy, mse, output_snr_db, ...
    value      REAL,             -- null where it is undefined
    dataset    TEXT    NOT NULL, -- its name at that time
    split      TEXT,             -- train, validation, test; null: the whole dataset
    samples    INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (job_id, version, name),
    FOREIGN KEY (model_id, version) REFERENCES versions (model_id, number) ON DELETE CASCADE
) STRICT;

CREATE INDEX metrics_by_version ON metrics (model_id, version, name);
CREATE INDEX metrics_by_name ON metrics (tenant_id, name, value);
