//! Files that come in parts: what is kept, counted, and forgotten.

use super::*;

async fn append(storage: &Storage, id: &UploadId, first_byte: i64, bytes: &[u8]) -> Result<Option<i64>, StoreError> {
    let part = stage(storage, bytes).await;
    Ok(storage.append_part(id, part, first_byte).await?.map(|upload| upload.received_bytes))
}

async fn bound(storage: &Storage, max_stored_bytes: i64) {
    let tenant = storage.store.own_tenant().await.expect("a tenant").name;
    let bounds = Bounds { max_stored_bytes: Some(max_stored_bytes), ..Bounds::default() };
    storage.store.set_bounds(&tenant, &bounds).await.expect("bounds");
}

#[tokio::test]
async fn parts_in_their_order_are_the_file() {
    with_storage(async |storage| {
        let id = storage.store.begin_upload(9, Some("name bQ==")).await.expect("an upload").id;
        assert_eq!(append(&storage, &id, 0, b"abcd").await.expect("a part"), Some(4));
        for (first_byte, part) in [(0, &b"again"[..]), (5, b"gap"), (4, b"far too long")] {
            assert_eq!(append(&storage, &id, first_byte, part).await.expect("no part"), None);
        }
        let early = storage.join_upload(&id).await;
        assert!(
            matches!(early, Err(StoreError::UploadIncomplete { received_bytes: 4, size_bytes: 9, .. })),
            "{early:?}"
        );
        assert_eq!(append(&storage, &id, 4, b"efghi").await.expect("a part"), Some(9));
        let whole = storage.join_upload(&id).await.expect("a file");
        assert_eq!(std::fs::read(whole.path()).expect("bytes"), b"abcdefghi");
        storage.delete_upload(&id).await.expect("an end");
        assert!(matches!(storage.store.upload(&id).await, Err(StoreError::NotFound { .. })));
        assert_eq!(storage.blobs.uploads().await.expect("folders"), []);
    })
    .await;
}

#[tokio::test]
async fn what_is_announced_counts_as_stored() {
    with_storage(async |storage| {
        bound(&storage, 100).await;
        let id = storage.store.begin_upload(90, None).await.expect("an upload").id;
        let refused = storage.store.begin_upload(11, None).await;
        assert!(matches!(refused, Err(StoreError::StorageQuota { max_bytes: 100 })), "{refused:?}");
        let refused = storage.add_model(stage(&storage, &[7; 11]).await, &new_model("net")).await;
        assert!(matches!(refused, Err(StoreError::StorageQuota { max_bytes: 100 })), "{refused:?}");
        // What is whole takes its own place, and nobody else's.
        assert_eq!(append(&storage, &id, 0, &[7; 90]).await.expect("a part"), Some(90));
        let refused = storage.add_model(stage(&storage, &[7; 11]).await, &new_model("net")).await;
        assert!(matches!(refused, Err(StoreError::StorageQuota { max_bytes: 100 })), "{refused:?}");
        let whole = storage.join_upload(&id).await.expect("a file");
        storage.add_model(whole, &new_model("net")).await.expect("a model");
        storage.delete_upload(&id).await.expect("an end");
        storage.store.begin_upload(10, None).await.expect("an upload");
    })
    .await;
}

#[tokio::test]
async fn an_upload_that_no_part_comes_for_is_forgotten() {
    const LATER: &str = "UPDATE uploads SET expires_at = (SELECT now_ms FROM clock) - 1";
    with_storage(async |storage| {
        let id = storage.store.begin_upload(9, None).await.expect("an upload").id;
        append(&storage, &id, 0, b"abcd").await.expect("a part");
        storage.sweep().await.expect("a sweep");
        assert_eq!(storage.blobs.uploads().await.expect("folders"), std::slice::from_ref(&id));
        let store = &storage.store;
        let expire = async || -> Result<u64, StoreError> {
            database::write!(store, |tx| sqlx::query(LATER).execute(&mut *tx).await?.rows_affected())
        };
        assert_eq!(expire().await.expect("an old upload"), 1);
        assert!(matches!(store.upload(&id).await, Err(StoreError::NotFound { .. })));
        storage.sweep().await.expect("a sweep");
        assert_eq!(storage.blobs.uploads().await.expect("folders"), []);
    })
    .await;
}

#[tokio::test]
async fn uploads_belong_to_their_tenant_and_are_bounded_in_number() {
    with_storage(async |storage| {
        let other = storage.store.tenant_or_new("other").await.expect("a tenant").id;
        let mut id = None;
        for _ in 0..100 {
            id = Some(storage.store.begin_upload(1, None).await.expect("an upload").id);
        }
        let refused = storage.store.begin_upload(1, None).await;
        assert!(matches!(refused, Err(StoreError::UploadQuota { max_uploads: 100 })), "{refused:?}");
        let other = storage.for_tenant(&other);
        let id = id.expect("an upload");
        assert!(matches!(other.store.upload(&id).await, Err(StoreError::NotFound { .. })));
        assert!(matches!(other.delete_upload(&id).await, Err(StoreError::NotFound { .. })));
        other.store.begin_upload(1, None).await.expect("an upload");
    })
    .await;
}
