-- How long a running job will take from its latest progress on, by its own estimate; NULL before there is one.
ALTER TABLE jobs ADD COLUMN remaining_seconds DOUBLE PRECISION;
