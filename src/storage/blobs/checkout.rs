//! Blobs as files.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use tempfile::TempPath;

use super::{Blobs, StagedBlob, StoreError, key_of, missing};

/// Blobs as files, for the core, which reads files in place: they stay where they are while it lives.
#[derive(Debug)]
pub struct Checkout {
    blobs: Blobs,
    /// To copies, which may be dropped.
    links: Mutex<Vec<TempPath>>,
}

impl Checkout {
    /// Where the bytes of a blob lie, once they are here.
    ///
    /// # Errors
    /// [`StoreError::BlobMissing`], [`StoreError::BlobDamaged`], [`StoreError::Blob`], [`StoreError::Io`]: from an object store
    /// alone; in a folder it is for the reader to find out.
    pub async fn path(&self, sha256: &str) -> Result<PathBuf, StoreError> {
        let Some(copies) = &self.blobs.home().copies else {
            return Ok(self.blobs.home().root.join(key_of(sha256).as_ref()));
        };
        let _turn = copies.turn(sha256).await;
        if let Some(link) = copies.link(sha256, self.blobs.staging_file()?).await? {
            let path = link.to_path_buf();
            self.keep(link);
            return Ok(path);
        }
        let file = self.blobs.fetch(sha256).await?;
        copies.add(sha256, file.path()).await?;
        let path = file.path().to_owned();
        self.keep(file.file);
        Ok(path)
    }

    fn keep(&self, link: TempPath) {
        self.links.lock().unwrap_or_else(PoisonError::into_inner).push(link);
    }
}

impl Blobs {
    /// Hands out blobs as files.
    pub fn checkout(&self) -> Checkout {
        Checkout { blobs: self.clone(), links: Mutex::default() }
    }

    /// Gets a blob from the object store as a staging file.
    async fn fetch(&self, sha256: &str) -> Result<StagedBlob, StoreError> {
        let mut file = self.upload().await?;
        self.append_object(&key_of(sha256), &mut file).await.map_err(|error| match error {
            StoreError::Blob(error) => missing(error, sha256),
            error => error,
        })?;
        let file = file.finish().await?;
        match file.sha256 == sha256 {
            true => Ok(file),
            false => Err(StoreError::BlobDamaged { sha256: sha256.to_owned(), found: file.sha256 }),
        }
    }
}
