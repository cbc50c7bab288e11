-- The first schema, for Postgres. migrations/sqlite holds the same tables for SQLite: keep the two alike, column by
-- column, for the queries are written once. Migrations are append-only; see migrations/README.md.
--
-- Times are milliseconds since 1970-01-01T00:00:00Z by the database's clock. Identifiers are UUIDs (version 7: they
-- sort by time) in text. JSON is JSONB here and text in SQLite.

-- The database's clock as a relation, so that a query reads it the same way in both databases.
CREATE VIEW clock AS
SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT) AS now_ms;

-- Who owns rows. One for now; every table names it, so that more can come without a rewrite.
CREATE TABLE tenants (
    id         TEXT   NOT NULL PRIMARY KEY,
    name       TEXT   NOT NULL UNIQUE,
    created_at BIGINT NOT NULL
);

INSERT INTO tenants (id, name, created_at)
SELECT '00000000-0000-0000-0000-000000000000', 'default', now_ms FROM clock;

-- The identifier of this database, in one row. The file `owner` of the folder of blobs holds it too, so that the folder is
-- never swept for another database.
CREATE TABLE blob_owner (
    one BIGINT NOT NULL PRIMARY KEY CHECK (one = 1),
    id  TEXT   NOT NULL
);

-- Files in the blob store, under the SHA-256 of their bytes. A row comes after its file and goes before it.
CREATE TABLE blobs (
    tenant_id  TEXT   NOT NULL REFERENCES tenants (id),
    sha256     TEXT   NOT NULL CHECK (length(sha256) = 64),
    size_bytes BIGINT NOT NULL CHECK (size_bytes >= 0),
    created_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, sha256)
);

-- Uploaded networks. The file itself is version 0.
CREATE TABLE models (
    id                    TEXT   NOT NULL PRIMARY KEY,
    tenant_id             TEXT   NOT NULL REFERENCES tenants (id),
    name                  TEXT COLLATE "C"   NOT NULL,
    format                TEXT   NOT NULL,           -- onnx, safetensors, npz
    inputs                JSONB  NOT NULL,           -- JSON, as are the next four
    outputs               JSONB  NOT NULL,
    weights               JSONB  NOT NULL,           -- what can be compressed
    kept                  JSONB  NOT NULL,           -- what cannot, and why
    unsupported_operators JSONB  NOT NULL,           -- what predictions lack
    default_version       BIGINT NOT NULL DEFAULT 0, -- served when none is named
    next_version          BIGINT NOT NULL DEFAULT 0, -- numbers are never given twice
    created_at            BIGINT NOT NULL,
    UNIQUE (tenant_id, name)
);

-- Versions of models: 0 is the upload, each finished compression adds one.
CREATE TABLE versions (
    tenant_id  TEXT             NOT NULL,
    model_id   TEXT             NOT NULL REFERENCES models (id) ON DELETE CASCADE,
    number     BIGINT           NOT NULL CHECK (number >= 0),
    sha256     TEXT             NOT NULL,
    ratio      DOUBLE PRECISION NOT NULL, -- bytes of the upload / bytes of this file
    recipe     JSONB,                     -- JSON; null for version 0, as are the next two
    report     JSONB,                     -- JSON
    job_id     TEXT,
    created_at BIGINT           NOT NULL,
    PRIMARY KEY (model_id, number),
    FOREIGN KEY (tenant_id, sha256) REFERENCES blobs (tenant_id, sha256)
);

CREATE INDEX versions_by_blob ON versions (tenant_id, sha256);

-- Layers of compressed versions, one row each, in file order.
CREATE TABLE layers (
    tenant_id        TEXT             NOT NULL REFERENCES tenants (id),
    model_id         TEXT             NOT NULL,
    version          BIGINT           NOT NULL,
    position         BIGINT           NOT NULL,
    name             TEXT             NOT NULL,
    op               TEXT             NOT NULL,
    shape            JSONB            NOT NULL, -- JSON
    weights          BIGINT           NOT NULL, -- elements
    original_bytes   BIGINT           NOT NULL,
    compressed_bytes BIGINT           NOT NULL,
    stream_bytes     BIGINT           NOT NULL, -- of these, the stream
    codebook_bytes   BIGINT           NOT NULL, -- of these, its own codebook
    ratio            DOUBLE PRECISION NOT NULL,
    bits_per_weight  DOUBLE PRECISION NOT NULL,
    psi              DOUBLE PRECISION NOT NULL, -- stream and own codebook / (4 x weights)
    sparsity         DOUBLE PRECISION NOT NULL, -- fraction of zeros
    distinct_values  BIGINT           NOT NULL,
    codec            TEXT             NOT NULL,
    weight_snr_db    DOUBLE PRECISION,          -- null when lossless
    PRIMARY KEY (model_id, version, position),
    FOREIGN KEY (model_id, version) REFERENCES versions (model_id, number) ON DELETE CASCADE
);

-- Named arrays for evaluation.
CREATE TABLE datasets (
    id         TEXT   NOT NULL PRIMARY KEY,
    tenant_id  TEXT   NOT NULL REFERENCES tenants (id),
    name       TEXT COLLATE "C"   NOT NULL,
    format     TEXT   NOT NULL, -- npz, safetensors
    sha256     TEXT   NOT NULL,
    samples    BIGINT NOT NULL,
    arrays     JSONB  NOT NULL, -- JSON
    created_at BIGINT NOT NULL,
    UNIQUE (tenant_id, name),
    FOREIGN KEY (tenant_id, sha256) REFERENCES blobs (tenant_id, sha256)
);

CREATE INDEX datasets_by_blob ON datasets (tenant_id, sha256);

-- The queue, and its history.
CREATE TABLE jobs (
    id        TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    kind      TEXT NOT NULL, -- compress, evaluate
    state     TEXT NOT NULL
        CHECK (state IN ('queued', 'running', 'cancelling', 'succeeded', 'failed', 'cancelled')),
    priority     BIGINT           NOT NULL,
    spec         JSONB            NOT NULL,           -- JSON: what was asked for
    model_id     TEXT             REFERENCES models (id) ON DELETE SET NULL,
    model        TEXT             NOT NULL,           -- its name, which outlives it
    dataset_id   TEXT             REFERENCES datasets (id) ON DELETE SET NULL,
    fraction     DOUBLE PRECISION NOT NULL DEFAULT 0,
    stage        TEXT             NOT NULL DEFAULT '',
    message      TEXT             NOT NULL DEFAULT '',
    attempt      BIGINT           NOT NULL DEFAULT 0, -- starts so far; the fencing token of the lease
    max_attempts BIGINT           NOT NULL,
    result       JSONB,                               -- JSON, once it succeeded
    failure      JSONB,                               -- JSON, once it failed
    worker       TEXT,                                -- who holds the lease, for people
    run_at       BIGINT           NOT NULL,           -- not claimed before
    lease_until  BIGINT,                              -- the worker must be heard of by then
    created_at   BIGINT           NOT NULL,
    started_at   BIGINT,
    finished_at  BIGINT,
    CHECK ((lease_until IS NOT NULL) = (state IN ('running', 'cancelling'))),
    CHECK ((finished_at IS NOT NULL) = (state IN ('succeeded', 'failed', 'cancelled')))
);

CREATE INDEX jobs_to_claim ON jobs (priority DESC, run_at, id) WHERE state = 'queued';
CREATE INDEX jobs_to_reap ON jobs (lease_until) WHERE state IN ('running', 'cancelling');
CREATE INDEX jobs_by_tenant ON jobs (tenant_id, id);
CREATE INDEX jobs_by_model ON jobs (model_id);
CREATE INDEX jobs_by_dataset ON jobs (dataset_id);

-- What happened to each job, in order, without gaps.
CREATE TABLE job_events (
    tenant_id TEXT   NOT NULL REFERENCES tenants (id),
    job_id    TEXT   NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    seq       BIGINT NOT NULL, -- from 1
    kind      TEXT   NOT NULL, -- queued, started, progress, requeued, cancelling, succeeded, failed, cancelled
    attempt   BIGINT NOT NULL,
    data      JSONB  NOT NULL, -- JSON
    at        BIGINT NOT NULL,
    PRIMARY KEY (job_id, seq)
);

-- What was measured about versions.
CREATE TABLE metrics (
    tenant_id  TEXT             NOT NULL REFERENCES tenants (id),
    model_id   TEXT             NOT NULL,
    version    BIGINT           NOT NULL,
    job_id     TEXT             NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    name       TEXT             NOT NULL, -- accuracy, mse, output_snr_db, ...
    value      DOUBLE PRECISION,          -- null where it is undefined
    dataset    TEXT             NOT NULL, -- its name at that time
    split      TEXT,                      -- train, validation, test; null: the whole dataset
    samples    BIGINT           NOT NULL,
    created_at BIGINT           NOT NULL,
    PRIMARY KEY (job_id, version, name),
    FOREIGN KEY (model_id, version) REFERENCES versions (model_id, number) ON DELETE CASCADE
);

CREATE INDEX metrics_by_version ON metrics (model_id, version, name);
CREATE INDEX metrics_by_name ON metrics (tenant_id, name, value);
