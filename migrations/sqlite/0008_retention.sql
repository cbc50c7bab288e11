-- What was measured of a version outlives the job that measured it: job_id refers to no row any more. SQLite has to make the
-- table anew for that.
CREATE TABLE new_metrics (
    tenant_id  TEXT    NOT NULL,
    model_id   TEXT    NOT NULL,
    version    INTEGER NOT NULL,
    job_id     TEXT    NOT NULL, -- may be deleted by now
    name       TEXT    NOT NULL, -- accuracy, mse, output_snr_db, ...
    value      REAL,             -- null where it is undefined
    dataset    TEXT    NOT NULL, -- its name at that time
    split      TEXT,             -- train, validation, test; null: the whole dataset
    samples    INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (job_id, version, name),
    FOREIGN KEY (model_id, version) REFERENCES versions (model_id, number) ON DELETE CASCADE
) STRICT;

INSERT INTO new_metrics (tenant_id, model_id, version, job_id, name, value, dataset, split, samples, created_at)
SELECT tenant_id, model_id, version, job_id, name, value, dataset, split, samples, created_at FROM metrics;

DROP TABLE metrics;
ALTER TABLE new_metrics RENAME TO metrics;
CREATE INDEX metrics_by_version ON metrics (model_id, version, name);
CREATE INDEX metrics_by_name ON metrics (tenant_id, name, value);

-- False once the events of a finished job were deleted.
ALTER TABLE jobs ADD COLUMN has_events INTEGER NOT NULL DEFAULT 1 CHECK (has_events IN (0, 1));

-- Finished jobs by age, those with events apart.
CREATE INDEX jobs_by_end ON jobs (has_events, finished_at) WHERE finished_at IS NOT NULL;
