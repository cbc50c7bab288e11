-- Keys of tenants. The secret is not here: only what it hashes to.
CREATE TABLE api_keys (
    id            TEXT   NOT NULL PRIMARY KEY, -- the public part of the key
    tenant_id     TEXT   NOT NULL REFERENCES tenants (id),
    name          TEXT   NOT NULL,             -- for people
    scopes        JSONB  NOT NULL,             -- JSON
    secret_sha256 TEXT   NOT NULL CHECK (length(secret_sha256) = 64),
    created_at    BIGINT NOT NULL,
    expires_at    BIGINT,                      -- null: never
    revoked_at    BIGINT                       -- null: in force
);

CREATE INDEX api_keys_by_tenant ON api_keys (tenant_id, id);

-- What a tenant may have; null: as much as there is.
ALTER TABLE tenants ADD COLUMN max_stored_bytes        BIGINT;
ALTER TABLE tenants ADD COLUMN max_unfinished_jobs     BIGINT;
ALTER TABLE tenants ADD COLUMN max_requests_per_minute BIGINT;

-- Whether anybody wants a file.
CREATE INDEX blobs_by_hash ON blobs (sha256);

-- Claims look at one tenant after the other.
CREATE INDEX jobs_to_claim_of_tenant ON jobs (tenant_id, priority DESC, run_at, id) WHERE state = 'queued';
CREATE INDEX jobs_started ON jobs (tenant_id, started_at);
CREATE INDEX jobs_held ON jobs (tenant_id) WHERE state IN ('running', 'cancelling');
