//! Object stores that blobs may live in.

use std::fmt::{self, Display};
use std::str::FromStr;
use std::sync::Arc;

use object_store::ObjectStore;

use super::StoreError;

/// A bucket of an S3-compatible store, and what the keys of blobs begin with there: `s3://BUCKET/PREFIX`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Location {
    bucket: String,
    prefix: String,
}

impl FromStr for S3Location {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        let place = url.strip_prefix("s3://").ok_or("it must start with s3://")?;
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        if !(3..=63).contains(&bucket.len())
            || !bucket.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        {
            return Err(format!("{bucket:?} is not the name of a bucket"));
        }
        let prefix = prefix.trim_matches('/');
        if object_store::path::Path::parse(prefix).is_err() {
            return Err(format!("{prefix:?} is not a prefix of keys"));
        }
        Ok(Self { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

impl Display for S3Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.prefix)
    }
}

impl S3Location {
    /// A client of the store. Endpoint, region and credentials are those of the environment, in the variables `AWS_...` that all
    /// tools of S3 know; nothing is asked yet.
    ///
    /// # Errors
    /// [`StoreError::Blob`] when they cannot be used.
    #[cfg(feature = "s3")]
    pub(super) fn connect(&self) -> Result<Arc<dyn ObjectStore>, StoreError> {
        use std::time::Duration;

        use object_store::ClientOptions;
        use object_store::aws::AmazonS3Builder;
        use object_store::prefix::PrefixStore;

        // One provider for the process, the one that webhooks use too; it may be installed already.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        // What is slow is not broken as long as bytes come.
        let plain = std::env::var("AWS_ALLOW_HTTP").is_ok_and(|value| value.eq_ignore_ascii_case("true"));
        let options = ClientOptions::new().with_timeout_disabled().with_read_timeout(Duration::from_secs(30));
        let builder = AmazonS3Builder::from_env().with_client_options(options.with_allow_http(plain));
        let store = builder.with_bucket_name(&self.bucket).build()?;
        Ok(Arc::new(PrefixStore::new(store, self.prefix.as_str())))
    }

    /// Refused: this program was built without it.
    ///
    /// # Errors
    /// [`StoreError::Location`], always.
    #[cfg(not(feature = "s3"))]
    pub(super) fn connect(&self) -> Result<Arc<dyn ObjectStore>, StoreError> {
        Err(StoreError::Location {
            setting: "blob_store",
            reason: format!("{self} needs the feature s3, and this program was built without it"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_buckets_and_prefixes() {
        for (url, shown) in [
            ("s3://models", Some("s3://models/")),
            ("s3://models/", Some("s3://models/")),
            ("s3://models/team/a/", Some("s3://models/team/a")),
            ("s3://", None),
            ("s3:///team", None),
            ("s3://a b/c", None),
            ("s3://models/a//b", None),
            ("http://models", None),
        ] {
            let found = url.parse::<S3Location>().ok().map(|place| place.to_string());
            assert_eq!(found.as_deref(), shown, "{url}");
        }
    }
}
