-- The trace of the request that asked for a job, as a W3C traceparent: the worker goes on with it.
ALTER TABLE jobs ADD COLUMN traceparent TEXT;
