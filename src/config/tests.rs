//! What settings come to.

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: ConfigArgs,
}

fn parse(line: &[&str]) -> ConfigArgs {
    Line::parse_from(std::iter::once("serve").chain(line.iter().copied())).args
}

#[test]
fn defaults_live_in_the_data_directory() {
    let config = parse(&["--data-dir", "/srv/wp"]).resolve().expect("settings");
    assert_eq!(config.database_url, "sqlite:///srv/wp/weightpress.db");
    assert_eq!(config.blobs.folder, Path::new("/srv/wp/blobs"));
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
}

#[test]
fn keys_are_asked_for_where_others_can_reach_the_service() {
    let keys = |line: &[&str]| parse(line).resolve().expect("settings").keys;
    assert_eq!(keys(&[]), Keys::Off);
    assert_eq!(keys(&["--listen", "[::1]:80"]), Keys::Off);
    assert_eq!(keys(&["--listen", "0.0.0.0:80"]), Keys::Required);
    assert_eq!(keys(&["--listen", "192.168.1.2:80"]), Keys::Required);
    assert_eq!(keys(&["--listen", "0.0.0.0:80", "--keys", "off"]), Keys::Off);
    assert_eq!(keys(&["--keys", "required"]), Keys::Required);
}

#[test]
fn private_endpoints_are_named_on_the_line_or_in_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("settings.json");
    std::fs::write(&file, r#"{"webhook_allow": ["10.0.0.0/8", "hooks.internal"]}"#).expect("a file");
    let from_file = parse(&["--config", file.to_str().expect("a path")]).resolve().expect("settings");
    let from_line = parse(&["--webhook-allow", "10.0.0.0/8,hooks.internal"]).resolve().expect("settings");
    assert_eq!(from_file.webhook_allow, from_line.webhook_allow);
    assert_ne!(from_line.webhook_allow, AllowList::default());
    assert!(Line::try_parse_from(["serve", "--webhook-allow", "10.0.0.0/33"]).is_err());
}

#[test]
fn what_is_empty_is_not_set() {
    let config = parse(&["--data-dir", "/srv/wp", "--database-url", "", "--blob-store", ""]).resolve();
    let config = config.expect("settings");
    assert_eq!(config.database_url, "sqlite:///srv/wp/weightpress.db");
    assert_eq!(config.blobs.folder, Path::new("/srv/wp/blobs"));
}

#[test]
fn flags_beat_the_file_and_the_file_beats_defaults() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("settings.json");
    std::fs::write(&file, r#"{"workers": 7, "max_attempts": 9, "max_body_bytes": "3MiB"}"#).expect("a file");
    let config = parse(&["--config", file.to_str().expect("a path"), "--workers", "2"]).resolve();
    let config = config.expect("settings");
    assert_eq!((config.workers, config.max_attempts, config.lease_ms), (2, 9, 30_000));
    assert_eq!(config.max_body_bytes, 3 << 20);
}

#[test]
fn a_secret_is_read_from_its_file_without_the_line_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("url");
    std::fs::write(&file, "postgres://user:secret@host/db\n").expect("a file");
    let config = parse(&["--database-url-file", file.to_str().expect("a path")]).resolve().expect("settings");
    assert_eq!(config.database_url, "postgres://user:secret@host/db");
}

#[test]
fn an_unknown_key_in_the_file_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("settings.json");
    std::fs::write(&file, r#"{"worker": 7}"#).expect("a file");
    let error = parse(&["--config", file.to_str().expect("a path")]).resolve().expect_err("a wrong key");
    assert!(error.to_string().contains("unknown field `worker`"), "{error}");
}

#[test]
fn folders_and_buckets_are_blob_stores() {
    let blobs = |url: &str| parse(&["--blob-store", url]).resolve().expect("settings").blobs;
    assert_eq!(blobs("file:///mnt/b").folder, Path::new("/mnt/b"));
    let bucket = blobs("s3://bucket/prefix");
    assert_eq!(bucket.folder, Path::new("data/blobs"), "copies");
    let objects = bucket.objects.expect("an object store");
    assert_eq!(objects.max_copies_bytes, 10 << 30);
    assert!(matches!(objects.store, ObjectHome::S3(location) if location.to_string() == "s3://bucket/prefix"));
    for url in ["s3://a b", "file://relative", "gs://bucket"] {
        assert!(matches!(
            parse(&["--blob-store", url]).resolve(),
            Err(ConfigError::UnsupportedBlobStore { url: found, .. }) if found == url
        ));
    }
}

#[test]
fn values_out_of_range_name_their_setting() {
    let error = parse(&["--lease-ms", "1"]).resolve().expect_err("a lease that short");
    assert_eq!(error.to_string(), "lease_ms must be 100 to 3600000, not 1");
    let error = parse(&["--keep-jobs-days", "0"]).resolve().expect_err("days");
    assert_eq!(error.to_string(), "keep_jobs_days must be 1 to 36500, not 0");
}

#[test]
fn jobs_and_their_events_are_kept_for_ever_unless_told_otherwise() {
    let config = parse(&[]).resolve().expect("settings");
    assert_eq!((config.keep_jobs_days, config.keep_events_days), (None, None));
    let config = parse(&["--keep-jobs-days", "365", "--keep-events-days", "30"]).resolve().expect("settings");
    assert_eq!((config.keep_jobs_days, config.keep_events_days), (Some(365), Some(30)));
}
