//! Files that come in parts, and files that were in the object store before: what becomes a staged file in the end.

use futures_util::StreamExt;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt};
use uuid::Uuid;

use super::{Blobs, Kind, StagedBlob, StoreError, Upload, UploadId};

/// Folder of parts of uploads, a folder for each.
const UPLOADS: &str = "uploads";
/// Folder of files that may be imported, a folder for each tenant; in an object store alone.
const IMPORTS: &str = "imports";

impl Blobs {
    /// Keeps a staged file as a part of an upload. Returns its name there.
    pub(in crate::storage) async fn keep_part(
        &self,
        upload: &UploadId,
        part: StagedBlob,
    ) -> Result<String, StoreError> {
        let name = Uuid::now_v7().to_string();
        let key = Key::from(format!("{UPLOADS}/{upload}/{name}"));
        match self.home().copies {
            None => self.move_to(part, &key).await?,
            Some(_) => self.send_as(part.path(), key).await?,
        }
        Ok(name)
    }

    /// Puts the parts of an upload together.
    pub(in crate::storage) async fn join_parts(
        &self,
        upload: &UploadId,
        parts: &[String],
    ) -> Result<StagedBlob, StoreError> {
        let _turn = self.inner.copying.acquire().await.map_err(std::io::Error::other)?;
        let mut file = self.upload().await?;
        for part in parts {
            self.append_object(&Key::from(format!("{UPLOADS}/{upload}/{part}")), &mut file).await?;
        }
        file.finish().await
    }

    /// Removes the parts of an upload that is over.
    pub(in crate::storage) async fn remove_parts(&self, upload: &UploadId) -> Result<(), StoreError> {
        let mut parts = self.home().objects.list(Some(&Key::from(format!("{UPLOADS}/{upload}"))));
        while let Some(part) = parts.next().await {
            match self.home().objects.delete(&part?.location).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if self.home().copies.is_none() {
            // An object store knows no folders. One that is not empty has got another part.
            let _removed = tokio::fs::remove_dir(self.root().join(UPLOADS).join(upload.as_str())).await;
        }
        Ok(())
    }

    /// Removes a part of an upload that nobody counts.
    pub(in crate::storage) async fn remove_part(&self, upload: &UploadId, part: &str) -> Result<(), StoreError> {
        match self.home().objects.delete(&Key::from(format!("{UPLOADS}/{upload}/{part}"))).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The uploads that have parts.
    pub(in crate::storage) async fn uploads(&self) -> Result<Vec<UploadId>, StoreError> {
        let found = self.home().objects.list_with_delimiter(Some(&Key::from(UPLOADS))).await?;
        Ok(found.common_prefixes.iter().filter_map(|folder| folder.filename()?.parse().ok()).collect())
    }

    /// A staging copy of the file that a tenant put under `key` of its own folder of the object store.
    pub(in crate::storage) async fn import(
        &self,
        tenant: &str,
        key: &str,
        limit_bytes: u64,
    ) -> Result<StagedBlob, StoreError> {
        if self.home().copies.is_none() {
            return Err(StoreError::NoObjectStore);
        }
        let absent = || Kind::Import.not_found(key);
        let key = Key::parse(format!("{IMPORTS}/{tenant}/{key}")).map_err(|_| absent())?;
        match self.home().objects.head(&key).await {
            Ok(found) if found.size > limit_bytes => return Err(StoreError::ImportTooLarge { limit_bytes }),
            Ok(_) => {}
            Err(object_store::Error::NotFound { .. }) => return Err(absent()),
            Err(error) => return Err(error.into()),
        }
        let _turn = self.inner.copying.acquire().await.map_err(std::io::Error::other)?;
        let mut file = self.upload().await?;
        self.append_object(&key, &mut file).await?;
        match file.size_bytes() > limit_bytes {
            // It grew meanwhile.
            true => Err(StoreError::ImportTooLarge { limit_bytes }),
            false => file.finish().await,
        }
    }

    /// Appends an object to a file.
    pub(super) async fn append_object(&self, key: &Key, file: &mut Upload) -> Result<(), StoreError> {
        let mut chunks = self.home().objects.get(key).await?.into_stream();
        while let Some(chunk) = chunks.next().await {
            file.write(chunk?).await?;
        }
        Ok(())
    }
}
