-- What was measured of a version outlives the job that measured it: job_id refers to no row any more.
ALTER TABLE metrics DROP CONSTRAINT metrics_job_id_fkey;

-- False once the events of a finished job were deleted.
ALTER TABLE jobs ADD COLUMN has_events BOOLEAN NOT NULL DEFAULT true;

-- Finished jobs by age, those with events apart.
CREATE INDEX jobs_by_end ON jobs (has_events, finished_at) WHERE finished_at IS NOT NULL;
