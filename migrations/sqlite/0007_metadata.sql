-- What users note about their jobs and models, as one JSON object of strings.
ALTER TABLE jobs   ADD COLUMN metadata TEXT NOT NULL DEFAULT '{}';
ALTER TABLE models ADD COLUMN metadata TEXT NOT NULL DEFAULT '{}';

-- The same pairs one by one, to find jobs and models by; written by whoever writes the columns.
CREATE TABLE job_metadata (
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    job_id    TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    key       TEXT NOT NULL,
    value     TEXT NOT NULL,
    PRIMARY KEY (job_id, key)
) STRICT;

CREATE INDEX job_metadata_by_pair ON job_metadata (tenant_id, key, value, job_id);

CREATE TABLE model_metadata (
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    model_id  TEXT NOT NULL REFERENCES models (id) ON DELETE CASCADE,
    key       TEXT NOT NULL,
    value     TEXT NOT NULL,
    PRIMARY KEY (model_id, key)
) STRICT;

CREATE INDEX model_metadata_by_pair ON model_metadata (tenant_id, key, value, model_id);
