//! Files: whole or not there.

use futures_util::TryStreamExt;

use super::*;

/// Files below `folder`, sorted, but for locks and the owner.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().is_some_and(|name| !matches!(name.to_str(), Some("lock" | "owner" | "gate"))) {
                found.push(path.display().to_string());
            }
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn a_blob_is_read_back_whole_and_in_ranges() {
    with_storage(async |storage| {
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|i| ((i * 31) >> 3) as u8).collect();
        let staged = stage(&storage, &bytes).await;
        assert_eq!(staged.size_bytes(), 3_000_000);
        let (model, _) = storage.add_model(staged, &new_model("net")).await.expect("a model");
        for range in [0..3_000_000, 0..1, 1_048_575..1_048_577, 2_999_999..3_000_000, 5..5] {
            let chunks = storage.blobs.read(&model.sha256, range.clone()).await.expect("a blob");
            let found: Vec<Bytes> = chunks.try_collect().await.expect("chunks");
            assert_eq!(found.concat(), &bytes[range.start as usize..range.end as usize]);
        }
        assert_eq!(std::fs::read(path_of(&storage, &model.sha256).await).expect("a file"), bytes);
    })
    .await;
}

#[tokio::test]
async fn hashes_are_those_of_the_standard() {
    with_storage(async |storage| {
        // FIPS 180-4 examples.
        let cases: [(&[u8], &str); 2] = [
            (b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(stage(&storage, bytes).await.sha256(), expected);
            let file = storage.blobs.staging_file().expect("a staging file");
            std::fs::write(&file, bytes).expect("a file");
            let adopted = storage.blobs.adopt(file).await.expect("a staged blob");
            assert_eq!((adopted.sha256(), adopted.size_bytes()), (expected, bytes.len() as u64));
        }
    })
    .await;
}

#[tokio::test]
async fn a_missing_blob_is_named() {
    with_storage(async |storage| {
        let missing = "0".repeat(64);
        let error = storage.blobs.read(&missing, 0..1).await.err().expect("nothing there");
        assert!(matches!(&error, StoreError::BlobMissing { sha256 } if *sha256 == missing), "{error}");
    })
    .await;
}

#[tokio::test]
async fn uploads_that_are_dropped_leave_nothing() {
    let place = Place::new().await;
    let folder = place.folder.path().join("blobs");
    let storage = place.open_at(&folder).await.expect("a storage");
    let mut upload = storage.blobs.upload().await.expect("an upload");
    upload.write(vec![7; 3 << 20].into()).await.expect("a write");
    assert_eq!(files(&folder).len(), 1);
    drop(upload);
    let staged = stage(&storage, b"finished, never published").await;
    drop(staged);
    // The aborted upload is removed by a thread in the background.
    while !files(&folder).is_empty() {
        tokio::task::yield_now().await;
    }
    storage.store.close().await;
    place.remove().await;
}

#[tokio::test]
async fn what_a_killed_process_left_is_swept_at_the_next_start() {
    let place = Place::new().await;
    let folder = place.folder.path().join("blobs");
    let storage = place.open_at(&folder).await.expect("a storage");
    let kept = add_model(&storage, "net").await;
    storage.store.close().await;
    drop(storage);

    // Killed while it staged one file, and after it published another without a row.
    let dead = folder.join("staging/0193-dead");
    std::fs::create_dir_all(&dead).expect("a folder");
    std::fs::write(dead.join("lock"), "").expect("a file");
    std::fs::write(dead.join("half#1"), "half").expect("a file");
    let orphan = "ab".repeat(32);
    std::fs::create_dir_all(folder.join("sha256/ab")).expect("a folder");
    std::fs::write(folder.join("sha256/ab").join(&orphan), "orphan").expect("a file");

    let storage = place.open_at(&folder).await.expect("a storage");
    assert_eq!(files(&folder), [path_of(&storage, &kept.sha256).await.display().to_string()]);
    storage.store.close().await;
    place.remove().await;
}

#[tokio::test]
async fn what_a_killed_process_left_is_swept_while_others_work() {
    let place = Place::new().await;
    let folder = place.folder.path().join("blobs");
    let one = place.open_at(&folder).await.expect("a storage");
    let other = place.open_at(&folder).await.expect("a storage");
    let kept = add_model(&one, "net").await;
    let staged = stage(&one, b"being uploaded").await;
    let orphan = folder.join("sha256/ab").join("ab".repeat(32));
    std::fs::create_dir_all(folder.join("sha256/ab")).expect("a folder");
    std::fs::write(&orphan, "orphan").expect("a file");
    other.sweep().await.expect("a sweep");
    let left = [path_of(&other, &kept.sha256).await, staged.path().to_owned()].map(|path| path.display().to_string());
    assert_eq!(files(&folder), left);
    one.add_model(staged, &new_model("late")).await.expect("the upload goes on");
    for storage in [one, other] {
        storage.store.close().await;
    }
    place.remove().await;
}

#[tokio::test]
async fn a_folder_of_blobs_is_refused_to_another_database_and_keeps_them() {
    let (place, other) = (Place::new().await, Place::new().await);
    let folder = place.folder.path().join("blobs");
    let storage = place.open_at(&folder).await.expect("a storage");
    let model = add_model(&storage, "net").await;
    storage.store.close().await;
    drop(storage);

    // An empty database beside the folder, an empty folder beside the database, and a database with another folder.
    let error = other.open_at(&folder).await.expect_err("another database");
    assert!(matches!(error, StoreError::NotAPair { .. }), "{error}");
    assert!(error.to_string().contains(&folder.display().to_string()), "{error}");
    let empty = place.folder.path().join("empty");
    let error = place.open_at(&empty).await.expect_err("an empty folder");
    assert!(matches!(error, StoreError::NotAPair { .. }), "{error}");
    let own = other.open_at(&other.folder.path().join("blobs")).await.expect("a storage");
    own.store.close().await;
    drop(own);
    let error = other.open_at(&folder).await.expect_err("another database");
    assert!(matches!(error, StoreError::NotAPair { .. }), "{error}");

    let storage = place.open_at(&folder).await.expect("the pair");
    assert_eq!(files(&folder), [path_of(&storage, &model.sha256).await.display().to_string()]);
    storage.store.close().await;
    place.remove().await;
    other.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_start_together_leave_each_other_alone() {
    let place = Place::new().await;
    let folder = place.folder.path().join("blobs");
    let starts = (0..8).map(|_| {
        let (database_url, settings) = (place.database_url.clone(), BlobSettings::folder(&folder));
        tokio::spawn(async move { Storage::open(&database_url, &settings).await.expect("a storage") })
    });
    for (index, start) in starts.collect::<Vec<_>>().into_iter().enumerate() {
        let storage = start.await.expect("a start");
        // Its staging folder is there, and what it publishes stays.
        let model = add_model(&storage, &format!("net{index}")).await;
        assert!(path_of(&storage, &model.sha256).await.is_file());
        storage.store.close().await;
    }
    place.remove().await;
}

#[tokio::test]
async fn the_files_of_a_living_process_are_left_alone() {
    let place = Place::new().await;
    let folder = place.folder.path().join("blobs");
    let first = place.open_at(&folder).await.expect("a storage");
    let staged = stage(&first, b"on its way").await;
    let second = place.open_at(&folder).await.expect("a storage");
    first.add_model(staged, &new_model("net")).await.expect("a model");
    assert_eq!(second.blobs.list().await.expect("blobs").len(), 1);
    first.store.close().await;
    second.store.close().await;
    place.remove().await;
}
