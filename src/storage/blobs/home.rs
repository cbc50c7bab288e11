//! Where blobs live, and the settings that say so.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::StreamExt;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;

use super::copies::Copies;
use super::objects::S3Location;
use super::{PUBLISHED, StoreError};

/// Where blobs are kept.
#[derive(Debug, Clone)]
pub struct BlobSettings {
    /// Folder of staging files, of what jobs keep, and of the blobs, or of copies of them.
    pub folder: PathBuf,
    /// The object store that they live in instead.
    pub objects: Option<ObjectSettings>,
}

/// An object store that blobs live in.
#[derive(Debug, Clone)]
pub struct ObjectSettings {
    /// Which one.
    pub store: ObjectHome,
    /// How many bytes of copies the folder keeps.
    pub max_copies_bytes: u64,
}

/// Which object store it is.
#[derive(Debug, Clone)]
pub enum ObjectHome {
    /// A bucket.
    S3(S3Location),
    /// This one.
    #[cfg(test)]
    Given(Arc<dyn ObjectStore>),
}

impl std::fmt::Display for ObjectHome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::S3(location) => location.fmt(f),
            #[cfg(test)]
            Self::Given(store) => store.fmt(f),
        }
    }
}

impl ObjectHome {
    fn connect(&self) -> Result<Arc<dyn ObjectStore>, StoreError> {
        match self {
            Self::S3(location) => location.connect(),
            #[cfg(test)]
            Self::Given(store) => Ok(Arc::clone(store)),
        }
    }
}

impl BlobSettings {
    /// All of it in `folder`.
    pub fn folder(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), objects: None }
    }
}

/// Where published blobs live: a folder or an object store.
#[derive(Debug)]
pub(in crate::storage) struct Home {
    pub(in crate::storage) objects: Arc<dyn ObjectStore>,
    /// The folder, in which the blobs themselves lie where there are no copies.
    pub(super) files: LocalFileSystem,
    pub(super) root: PathBuf,
    pub(super) copies: Option<Copies>,
    /// For people.
    place: String,
}

impl Home {
    /// Opens what `settings` say; the folder must be there.
    pub(in crate::storage) fn open(settings: &BlobSettings) -> Result<Self, StoreError> {
        let root = settings.folder.canonicalize()?;
        std::fs::create_dir_all(root.join(PUBLISHED))?;
        let files = LocalFileSystem::new_with_prefix(&root)?.with_fsync(true);
        let (objects, copies, place): (Arc<dyn ObjectStore>, _, _) = match &settings.objects {
            None => (Arc::new(files.clone()), None, root.display().to_string()),
            Some(given) => {
                let copies = Copies::new(root.join(PUBLISHED), given.max_copies_bytes);
                (given.store.connect()?, Some(copies), given.store.to_string())
            }
        };
        Ok(Self { objects, files, root, copies, place })
    }

    /// Whether it holds a blob.
    pub(in crate::storage) async fn is_any_published(&self) -> Result<bool, StoreError> {
        Ok(self.objects.list(Some(&Key::from(PUBLISHED))).next().await.transpose()?.is_some())
    }
}

impl std::fmt::Display for Home {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.place)
    }
}
