-- Files that come in parts, over more than one connection: what is there of them so far.
CREATE TABLE uploads (
    id              TEXT    NOT NULL PRIMARY KEY,
    tenant_id       TEXT    NOT NULL REFERENCES tenants (id),
    size_bytes      BIGINT NOT NULL CHECK (size_bytes >= 0), -- of the whole file
    received_bytes  BIGINT NOT NULL DEFAULT 0 CHECK (received_bytes BETWEEN 0 AND size_bytes),
    metadata        TEXT,                                     -- the header Upload-Metadata, as it came
    expires_at      BIGINT NOT NULL,                         -- moves on with each part
    created_at      BIGINT NOT NULL
);

CREATE INDEX uploads_by_tenant ON uploads (tenant_id, id);
CREATE INDEX uploads_by_age ON uploads (expires_at);

-- Their parts, which lie in the blob store under uploads/UPLOAD/PART; together they are the file without a gap.
CREATE TABLE upload_parts (
    upload_id       TEXT    NOT NULL REFERENCES uploads (id) ON DELETE CASCADE,
    first_byte      BIGINT NOT NULL,
    size_bytes      BIGINT NOT NULL,
    part            TEXT    NOT NULL,
    PRIMARY KEY (upload_id, first_byte)
);
