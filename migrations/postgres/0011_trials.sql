-- Trials of a search that any worker may make are jobs of their own, whose parent is the search.
ALTER TABLE jobs ADD COLUMN parent_id TEXT; -- no reference: each is forgotten by its own age
CREATE INDEX jobs_by_parent ON jobs (parent_id) WHERE parent_id IS NOT NULL;

-- What a search found out before its first trial, for those who make its trials and for whoever goes on with it.
ALTER TABLE jobs ADD COLUMN plan JSONB; -- JSON

-- Blobs that a trial made: they are kept until its search is over.
CREATE TABLE job_blobs (
    tenant_id TEXT NOT NULL,
    job_id    TEXT NOT NULL REFERENCES jobs (id),
    sha256    TEXT NOT NULL,
    PRIMARY KEY (job_id, sha256),
    FOREIGN KEY (tenant_id, sha256) REFERENCES blobs (tenant_id, sha256)
);

CREATE INDEX job_blobs_by_blob ON job_blobs (tenant_id, sha256);
