//! Files that come in parts, over more than one connection. A part is an object beside the blobs; the rows say which parts
//! count, so one whose row was never inserted is as good as never sent.

use super::database::{read, write};
use super::{Kind, Store, StoreError, Timestamp, UploadId};

/// How long an upload is kept after its last part, in milliseconds.
const KEPT_MS: i64 = 24 * 60 * 60 * 1000;
/// Parts of an upload: each is an object and a row.
const MAX_PARTS: i64 = 10_000;
/// Unfinished uploads of a tenant.
const MAX_UPLOADS: i64 = 100;

/// What is there of a file.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct UploadRecord {
    pub id: UploadId,
    /// Of the whole file.
    pub size_bytes: i64,
    pub received_bytes: i64,
    /// The header `Upload-Metadata`, as it came.
    pub metadata: Option<String>,
    /// When it is forgotten unless another part comes.
    pub expires_at: Timestamp,
}

/// A part that is in its place.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub(super) struct PartRecord {
    pub(super) size_bytes: i64,
    /// Its name beside those of the same upload.
    pub(super) part: String,
}

const COLUMNS: &str = "id, size_bytes, received_bytes, metadata, expires_at";

impl Store {
    /// Announces a file of `size_bytes`.
    ///
    /// # Errors
    /// [`StoreError::StorageQuota`] where it would not fit beside what is stored and announced already;
    /// [`StoreError::UploadQuota`].
    pub async fn begin_upload(&self, size_bytes: i64, metadata: Option<&str>) -> Result<UploadRecord, StoreError> {
        const LOCK: &str = "UPDATE tenants SET id = id WHERE id = $1";
        const COUNT: &str = "SELECT COUNT(*) FROM uploads WHERE tenant_id = $1";
        const EXCEEDED: &str = "SELECT max_stored_bytes FROM tenants WHERE id = $1 AND max_stored_bytes < $2 + \
             (SELECT CAST(COALESCE(SUM(b.size_bytes), 0) AS BIGINT) FROM blobs b WHERE b.tenant_id = $1 AND NOT EXISTS \
             (SELECT 1 FROM job_blobs j WHERE j.tenant_id = b.tenant_id AND j.sha256 = b.sha256)) + \
             (SELECT CAST(COALESCE(SUM(size_bytes), 0) AS BIGINT) FROM uploads WHERE tenant_id = $1)";
        const INSERT: &str = "INSERT INTO uploads (id, tenant_id, size_bytes, metadata, expires_at, created_at) \
             SELECT $1, $2, $3, $4, now_ms + $5, now_ms FROM clock";
        let id = UploadId::new();
        let begun: Result<(), StoreError> = write!(self, |tx| {
            // Two that come together would each find room for itself alone.
            sqlx::query(LOCK).bind(&self.tenant).execute(&mut *tx).await?;
            let uploads: i64 = sqlx::query_scalar(COUNT).bind(&self.tenant).fetch_one(&mut *tx).await?;
            if uploads >= MAX_UPLOADS {
                return Err(StoreError::UploadQuota { max_uploads: MAX_UPLOADS });
            }
            let exceeded: Option<i64> =
                sqlx::query_scalar(EXCEEDED).bind(&self.tenant).bind(size_bytes).fetch_optional(&mut *tx).await?;
            if let Some(max_bytes) = exceeded {
                return Err(StoreError::StorageQuota { max_bytes });
            }
            let insert = sqlx::query(INSERT).bind(&id).bind(&self.tenant).bind(size_bytes).bind(metadata);
            insert.bind(KEPT_MS).execute(&mut *tx).await?;
        });
        begun?;
        self.upload(&id).await
    }

    /// What is there of an upload.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], also once it has expired.
    pub async fn upload(&self, id: &UploadId) -> Result<UploadRecord, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM uploads WHERE tenant_id = $1 AND id = $2 AND expires_at > (SELECT now_ms FROM clock)"
        );
        let found: Option<UploadRecord> = read!(self, |pool| {
            sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(&self.tenant).bind(id).fetch_optional(pool).await?
        });
        found.ok_or_else(|| Kind::Upload.not_found(id.as_str()))
    }

    /// Checks that another part may come.
    pub(super) async fn check_parts(&self, id: &UploadId) -> Result<(), StoreError> {
        const COUNT: &str = "SELECT COUNT(*) FROM upload_parts WHERE upload_id = $1";
        let parts: i64 = read!(self, |pool| sqlx::query_scalar(COUNT).bind(id).fetch_one(pool).await?);
        if parts >= MAX_PARTS { Err(StoreError::PartQuota { max_parts: MAX_PARTS }) } else { Ok(()) }
    }

    /// Counts a part that is in its place, if it begins where the upload ends. Returns whether it does.
    pub(super) async fn append_part(
        &self,
        id: &UploadId,
        first_byte: i64,
        part: &PartRecord,
    ) -> Result<bool, StoreError> {
        const ADVANCE: &str = "UPDATE uploads SET received_bytes = received_bytes + $4, \
             expires_at = (SELECT now_ms FROM clock) + $5 \
             WHERE tenant_id = $1 AND id = $2 AND received_bytes = $3 AND received_bytes + $4 <= size_bytes";
        const INSERT: &str =
            "INSERT INTO upload_parts (upload_id, first_byte, size_bytes, part) VALUES ($1, $2, $3, $4)";
        write!(self, |tx| {
            let advance = sqlx::query(ADVANCE).bind(&self.tenant).bind(id).bind(first_byte).bind(part.size_bytes);
            let advanced = advance.bind(KEPT_MS).execute(&mut *tx).await?.rows_affected() == 1;
            if advanced {
                let insert = sqlx::query(INSERT).bind(id).bind(first_byte).bind(part.size_bytes).bind(&part.part);
                insert.execute(&mut *tx).await?;
            }
            advanced
        })
    }

    /// The parts of an upload, in order.
    pub(super) async fn parts(&self, id: &UploadId) -> Result<Vec<PartRecord>, StoreError> {
        const SQL: &str = "SELECT p.size_bytes, p.part FROM upload_parts p JOIN uploads u ON u.id = p.upload_id \
             WHERE u.tenant_id = $1 AND u.id = $2 ORDER BY p.first_byte";
        Ok(read!(self, |pool| sqlx::query_as(SQL).bind(&self.tenant).bind(id).fetch_all(pool).await?))
    }

    /// Forgets an upload.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub(super) async fn delete_upload_rows(&self, id: &UploadId) -> Result<(), StoreError> {
        const SQL: &str = "DELETE FROM uploads WHERE tenant_id = $1 AND id = $2";
        let deleted: Result<u64, StoreError> = write!(self, |tx| {
            sqlx::query(SQL).bind(&self.tenant).bind(id).execute(&mut *tx).await?.rows_affected()
        });
        if deleted? == 0 { Err(Kind::Upload.not_found(id.as_str())) } else { Ok(()) }
    }

    /// Forgets the uploads of all tenants that have expired.
    pub(super) async fn forget_expired_uploads(&self) -> Result<u64, StoreError> {
        const SQL: &str = "DELETE FROM uploads WHERE expires_at <= (SELECT now_ms FROM clock)";
        write!(self, |tx| sqlx::query(SQL).execute(&mut *tx).await?.rows_affected())
    }

    /// Whether any tenant has the upload.
    pub(super) async fn is_upload_wanted(&self, id: &UploadId) -> Result<bool, StoreError> {
        const COUNT: &str = "SELECT COUNT(*) FROM uploads WHERE id = $1";
        let count: i64 = read!(self, |pool| sqlx::query_scalar(COUNT).bind(id).fetch_one(pool).await?);
        Ok(count > 0)
    }
}
