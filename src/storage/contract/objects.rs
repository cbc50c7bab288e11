//! Blobs in an object store, of which each machine keeps copies.

use std::sync::Arc;

use futures_util::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt};

use super::*;

/// A database and an object store, which machines share.
struct Shared {
    place: Place,
    objects: Arc<dyn ObjectStore>,
}

impl Shared {
    async fn new() -> Self {
        Self { place: Place::new().await, objects: Arc::new(InMemory::new()) }
    }

    /// A machine with a folder of its own, which keeps `max_copies_bytes` of copies.
    async fn machine(&self, name: &str, max_copies_bytes: u64) -> Storage {
        let store = ObjectHome::Given(Arc::clone(&self.objects));
        let folder = self.place.folder.path().join(name);
        let settings = BlobSettings { folder, objects: Some(ObjectSettings { store, max_copies_bytes }) };
        Storage::open(&self.place.database_url, &settings).await.expect("a storage")
    }

    async fn keys(&self) -> Vec<String> {
        let found: Vec<_> = self.objects.list(Some(&Key::from("sha256"))).try_collect().await.expect("a list");
        found.into_iter().filter_map(|object| object.location.filename().map(str::to_owned)).collect()
    }

    async fn end(self, machines: impl IntoIterator<Item = Storage>) {
        for machine in machines {
            machine.store.close().await;
        }
        self.place.remove().await;
    }
}

async fn publish(storage: &Storage, name: &str, bytes: &[u8]) -> String {
    let staged = stage(storage, bytes).await;
    storage.add_model(staged, &new_model(name)).await.expect("a model").0.sha256
}

async fn read(storage: &Storage, sha256: &str, range: std::ops::Range<u64>) -> Vec<u8> {
    let chunks = storage.blobs.read(sha256, range).await.expect("a blob");
    chunks.try_collect::<Vec<Bytes>>().await.expect("chunks").concat()
}

fn copies(storage: &Storage) -> Vec<String> {
    let mut found = Vec::new();
    for folder in std::fs::read_dir(storage.blobs.root().join("sha256")).expect("a folder") {
        for file in std::fs::read_dir(folder.expect("a folder").path()).expect("a folder") {
            found.push(file.expect("a file").file_name().into_string().expect("a hash"));
        }
    }
    found
}

#[tokio::test]
async fn what_one_machine_publishes_another_reads_whole_and_in_ranges() {
    let shared = Shared::new().await;
    let (one, other) = (shared.machine("one", 1 << 20).await, shared.machine("other", 1 << 20).await);
    let bytes: Vec<u8> = (0..200_000_u32).map(|i| ((i * 31) >> 3) as u8).collect();
    let sha256 = publish(&one, "net", &bytes).await;
    assert_eq!(shared.keys().await, std::slice::from_ref(&sha256));
    for machine in [&one, &other] {
        assert_eq!(read(machine, &sha256, 0..200_000).await, bytes);
        assert_eq!(read(machine, &sha256, 70_000..70_003).await, bytes[70_000..70_003]);
    }
    assert_eq!(copies(&other), [] as [&str; 0], "a download keeps no copy");
    let files = other.blobs.checkout();
    let path = files.path(&sha256).await.expect("a file");
    assert_eq!(std::fs::read(&path).expect("a file"), bytes);
    assert_eq!(copies(&other), std::slice::from_ref(&sha256));
    // From the copy now.
    shared.objects.delete(&Key::from(format!("sha256/{}/{sha256}", &sha256[..2]))).await.expect("a removal");
    assert_eq!(read(&other, &sha256, 5..9).await, bytes[5..9]);
    drop(files);
    assert!(!path.exists(), "links go with their checkout");
    shared.end([one, other]).await;
}

#[tokio::test]
async fn copies_that_are_in_use_outlive_being_dropped_and_the_longest_unread_goes_first() {
    let shared = Shared::new().await;
    let machine = shared.machine("one", 2500).await;
    let mut hashes = Vec::new();
    for (index, name) in ["a", "b"].into_iter().enumerate() {
        hashes.push(publish(&machine, name, &[index as u8; 1000]).await);
    }
    let files = machine.blobs.checkout();
    let path = files.path(&hashes[0]).await.expect("a file");
    hashes.push(publish(&machine, "c", &[2; 1000]).await);
    let mut kept = copies(&machine);
    kept.sort();
    let mut expected = [hashes[0].clone(), hashes[2].clone()];
    expected.sort();
    assert_eq!(kept, expected, "b was read before a");
    publish(&machine, "d", &[3; 2400]).await;
    assert_eq!(copies(&machine).len(), 1);
    assert_eq!(std::fs::read(path).expect("the link"), [0; 1000]);
    // A blob that is larger than all copies together may be.
    let large = publish(&machine, "e", &[4; 9000]).await;
    let path = files.path(&large).await.expect("a file");
    assert_eq!(std::fs::metadata(path).expect("a file").len(), 9000);
    assert_eq!(copies(&machine), [] as [&str; 0]);
    shared.end([machine]).await;
}

#[tokio::test]
async fn objects_that_are_gone_or_damaged_are_named() {
    let shared = Shared::new().await;
    let (one, other) = (shared.machine("one", 0).await, shared.machine("other", 0).await);
    let sha256 = publish(&one, "net", b"weights").await;
    let key = Key::from(format!("sha256/{}/{sha256}", &sha256[..2]));
    shared.objects.put(&key, "weighty".into()).await.expect("an object");
    let error = other.blobs.checkout().path(&sha256).await.expect_err("other bytes");
    assert!(matches!(&error, StoreError::BlobDamaged { sha256: named, .. } if *named == sha256), "{error}");
    shared.objects.delete(&key).await.expect("a removal");
    let error = other.blobs.checkout().path(&sha256).await.expect_err("nothing");
    assert!(matches!(&error, StoreError::BlobMissing { sha256: named } if *named == sha256), "{error}");
    shared.end([one, other]).await;
}

#[tokio::test]
async fn deleting_removes_the_object_and_sweeping_the_copies_elsewhere() {
    let shared = Shared::new().await;
    let (one, other) = (shared.machine("one", 1 << 20).await, shared.machine("other", 1 << 20).await);
    let sha256 = publish(&one, "net", b"weights").await;
    other.blobs.checkout().path(&sha256).await.expect("a copy");
    one.delete_model("net").await.expect("a removal");
    assert_eq!(shared.keys().await, [] as [&str; 0]);
    assert_eq!((copies(&one), copies(&other)), (vec![], vec![sha256]));
    // An object without a row that was sent a moment ago may be about to get one.
    let young = Key::from(format!("sha256/ab/{}", "ab".repeat(32)));
    shared.objects.put(&young, "on its way".into()).await.expect("an object");
    other.sweep().await.expect("a sweep");
    assert_eq!(copies(&other), [] as [&str; 0]);
    assert_eq!(shared.keys().await.len(), 1);
    shared.end([one, other]).await;
}

/// One machine deletes what another publishes, over and over: whenever there is a row there is an object.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishing_and_deleting_the_same_bytes_never_parts_a_row_from_its_object() {
    let shared = Shared::new().await;
    // SQLite is for one machine, whose processes may still have folders of their own.
    let (one, other) = (shared.machine("one", 0).await, shared.machine("other", 0).await);
    let publishing = async {
        for round in 0..40 {
            publish(&one, &format!("net{round}"), b"the same bytes").await;
        }
    };
    let deleting = async {
        for round in 0..40 {
            while other.delete_model(&format!("net{round}")).await.is_err() {
                tokio::task::yield_now().await;
            }
            publish(&other, &format!("other{round}"), b"the same bytes").await;
            assert_eq!(shared.keys().await.len(), 1);
            other.delete_model(&format!("other{round}")).await.expect("a removal");
        }
    };
    tokio::join!(publishing, deleting);
    assert_eq!(shared.keys().await, [] as [&str; 0]);
    shared.end([one, other]).await;
}

#[tokio::test]
async fn an_object_store_is_refused_to_another_database() {
    let shared = Shared::new().await;
    let machine = shared.machine("one", 0).await;
    publish(&machine, "net", b"weights").await;
    let stranger = Place::new().await;
    let store = ObjectHome::Given(Arc::clone(&shared.objects));
    let folder = stranger.folder.path().to_owned();
    let settings = BlobSettings { folder, objects: Some(ObjectSettings { store, max_copies_bytes: 0 }) };
    let error = Storage::open(&stranger.database_url, &settings).await.expect_err("another database");
    assert!(matches!(error, StoreError::NotAPair { .. }), "{error}");
    assert_eq!(shared.keys().await.len(), 1);
    stranger.remove().await;
    shared.end([machine]).await;
}
