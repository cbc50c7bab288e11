-- Every dataset that a job reads: a search may have one for each split. A dataset is not deleted under a job that is not
-- finished. jobs.dataset_id stays, as the one that older releases look at.
CREATE TABLE job_datasets (
    tenant_id  TEXT NOT NULL REFERENCES tenants (id),
    job_id     TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    dataset_id TEXT NOT NULL REFERENCES datasets (id) ON DELETE CASCADE,
    PRIMARY KEY (job_id, dataset_id)
) STRICT;

CREATE INDEX job_datasets_by_dataset ON job_datasets (dataset_id);

INSERT INTO job_datasets (tenant_id, job_id, dataset_id)
SELECT tenant_id, id, dataset_id FROM jobs WHERE dataset_id IS NOT NULL;
