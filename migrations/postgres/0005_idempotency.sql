-- Requests that named themselves, so that sending one again does not do it again; for a day.
CREATE TABLE idempotency_keys (
    tenant_id   TEXT   NOT NULL REFERENCES tenants (id),
    operation   TEXT   NOT NULL, -- method and path
    key         TEXT   NOT NULL, -- what the client called it
    body_sha256 TEXT   NOT NULL, -- of what was asked for
    job_id      TEXT   NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    created_at  BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, operation, key)
);

CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);
CREATE INDEX idempotency_keys_by_job ON idempotency_keys (job_id);
