-- Where tenants want to hear of their jobs. Secrets are here as they are, for they sign what is sent.
CREATE TABLE webhooks (
    id              TEXT    NOT NULL PRIMARY KEY,
    tenant_id       TEXT    NOT NULL REFERENCES tenants (id),
    url             TEXT    NOT NULL,
    events          TEXT    NOT NULL,                    -- words with spaces between them, e.g. job.failed
    enabled         INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    secret          TEXT    NOT NULL,
    previous_secret TEXT,                                -- signs beside the new one
    previous_until  INTEGER,                             -- until then
    created_at      INTEGER NOT NULL
) STRICT;

CREATE INDEX webhooks_by_tenant ON webhooks (tenant_id, id);

-- Messages to webhooks; each is sent until it is taken, or given up. Its id is the message's own.
CREATE TABLE webhook_deliveries (
    id           TEXT    NOT NULL PRIMARY KEY,
    tenant_id    TEXT    NOT NULL REFERENCES tenants (id),
    webhook_id   TEXT    NOT NULL, -- no reference: the end of a job waits for no webhook that is being deleted
    job_id       TEXT    NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    kind         TEXT    NOT NULL, -- job.queued, job.started, job.succeeded, job.failed, job.cancelled
    state        TEXT    NOT NULL CHECK (state IN ('pending', 'delivered', 'failed')),
    attempt      INTEGER NOT NULL DEFAULT 0, -- sendings so far; the fencing token of the lease
    tried_before INTEGER NOT NULL DEFAULT 0, -- of these, those before somebody asked to send it again
    run_at       INTEGER NOT NULL,           -- not sent before
    lease_until  INTEGER,                    -- while it is being sent: the outcome must be known by then
    status_code  INTEGER,                    -- what the latest sending was answered with
    error        TEXT,                       -- why the latest sending failed
    created_at   INTEGER NOT NULL,
    finished_at  INTEGER,
    CHECK ((finished_at IS NOT NULL) = (state IN ('delivered', 'failed')))
) STRICT;

CREATE INDEX webhook_deliveries_to_send ON webhook_deliveries (run_at, id) WHERE state = 'pending';
CREATE INDEX webhook_deliveries_held ON webhook_deliveries (tenant_id) WHERE lease_until IS NOT NULL;
CREATE INDEX webhook_deliveries_by_webhook ON webhook_deliveries (webhook_id, id);
CREATE INDEX webhook_deliveries_by_job ON webhook_deliveries (job_id);
CREATE INDEX webhook_deliveries_by_age ON webhook_deliveries (created_at);
