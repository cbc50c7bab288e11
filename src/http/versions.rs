//! `/api/v1/models/{name}/versions/{number}`: what a compression made, as a report and as a file.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use std::fs::File as LocalFile;
use std::io::{BufWriter, Write as _};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::artifact::{Artifact, ArtifactError, ExportFormat};
use crate::compress::{Recipe, Report};
use crate::model::Format;
use crate::storage::{JobId, Making, MetricRecord, ModelRecord, StagedBlob, Timestamp, VersionRecord};

use super::content::{self, Download};
use super::limits::Limits;
use super::problem::Failures;
use super::upload::File;
use super::{Api, Error, Name, digest, extract};

pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(get_version, delete_version)).routes(routes!(get_content))
}

/// A version in a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct VersionSummary {
    /// 0 is the upload itself.
    pub number: i64,
    /// SHA-256 of the file, hex.
    pub sha256: String,
    /// Bytes of the file.
    pub size_bytes: i64,
    /// Bytes of the upload / bytes of this file.
    pub ratio: f64,
    /// What was measured of this version, oldest first.
    pub metrics: Vec<MetricRecord>,
    /// The job that made it, which may be deleted by now; null for version 0.
    pub job: Option<JobId>,
    pub created_at: Timestamp,
    /// Where it is described.
    pub url: String,
    /// Where it is downloaded.
    pub content_url: String,
}

impl VersionSummary {
    /// Describes `version` of `model`; picks its own from `metrics`.
    pub fn new(model: &str, version: &VersionRecord, metrics: &[MetricRecord]) -> Self {
        let url = format!("/api/v1/models/{model}/versions/{}", version.number);
        Self {
            number: version.number,
            sha256: version.sha256.clone(),
            size_bytes: version.size_bytes,
            ratio: version.ratio,
            metrics: metrics.iter().filter(|metric| metric.version == version.number).cloned().collect(),
            job: version.job_id.clone(),
            created_at: version.created_at,
            content_url: format!("{url}/content"),
            url,
        }
    }
}

/// A version in full.
#[derive(Debug, Serialize, ToSchema)]
struct VersionDetail {
    #[serde(flatten)]
    summary: VersionSummary,
    /// How it was compressed; null for version 0.
    recipe: Option<Recipe>,
    /// What the compression measured; null for version 0.
    report: Option<Report>,
}

/// A version of a model.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct VersionPath {
    /// The model's name.
    #[param(value_type = Name)]
    name: Name,
    /// The version; 0 is the upload itself.
    number: i64,
}

impl VersionPath {
    async fn find(&self, app: &App) -> Result<(ModelRecord, VersionRecord), Error> {
        let model = app.storage.store.model(self.name.as_str()).await?;
        let version = app.storage.store.version(&model, self.number).await?;
        Ok((model, version))
    }

    /// `outcome` of reading the version's file; a failure because it was deleted meanwhile is a 404.
    async fn unless_deleted<T>(&self, app: &App, outcome: Result<T, Error>) -> Result<T, Error> {
        if outcome.is_err() {
            self.find(app).await?;
        }
        outcome
    }
}

/// Describes a version, with the full report of its compression.
#[utoipa::path(
    get,
    path = "/api/v1/models/{name}/versions/{number}",
    tag = "versions",
    security(("key" = ["read"])),
    params(VersionPath),
    responses((status = OK, description = "The version", body = VersionDetail), Failures)
)]
async fn get_version(app: App, extract::Path(path): extract::Path<VersionPath>) -> Result<Json<VersionDetail>, Error> {
    let (model, version) = path.find(&app).await?;
    let metrics = app.storage.store.metrics(&model.id, Some(version.number)).await?;
    let summary = VersionSummary::new(&model.name, &version, &metrics);
    let Making { recipe, report } = app.storage.store.making(&version).await?;
    Ok(Json(VersionDetail { summary, recipe, report }))
}

/// Deletes a version and its file. Version 0 goes with its model only.
#[utoipa::path(
    delete,
    path = "/api/v1/models/{name}/versions/{number}",
    tag = "versions",
    security(("key" = ["write"])),
    params(VersionPath),
    responses((status = NO_CONTENT, description = "Deleted"), Failures)
)]
async fn delete_version(app: App, extract::Path(path): extract::Path<VersionPath>) -> Result<StatusCode, Error> {
    app.delete_version(path.name.as_str(), path.number).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// In which form a version is downloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum ContentFormat {
    /// As it is stored: the upload, or the artifact of a compression.
    #[default]
    Stored,
    /// A plain ONNX file, its weights decoded.
    Onnx,
    /// A plain safetensors file, its weights decoded.
    Safetensors,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ContentQuery {
    /// `stored` when absent.
    #[serde(default)]
    #[param(inline)]
    format: ContentFormat,
}

/// Downloads a version.
///
/// With a strong entity tag (`If-None-Match`, `If-Range`), ranges (`Range`), and the SHA-256 of the whole file in
/// `Repr-Digest`. `HEAD` makes no export, so it tells neither size nor digest of one.
#[utoipa::path(
    get,
    path = "/api/v1/models/{name}/versions/{number}/content",
    tag = "versions",
    security(("key" = ["read"])),
    params(VersionPath, ContentQuery),
    responses(
        (status = OK, description = "The file", body = File, content_type = "application/octet-stream", headers(
            ("etag" = String, description = "Changes whenever the bytes do"),
            ("repr-digest" = String, description = "SHA-256 of the whole file"),
            ("content-disposition" = String, description = "A name to save the file under"),
        )),
        (status = PARTIAL_CONTENT, description = "The range that was asked for", body = File, content_type = "application/octet-stream"),
        (status = NOT_MODIFIED, description = "The client has it already"),
        Failures,
    )
)]
async fn get_content(
    app: App,
    State(limits): State<Limits>,
    extract::Path(path): extract::Path<VersionPath>,
    extract::Query(query): extract::Query<ContentQuery>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let (model, version) = path.find(&app).await?;
    match Form::of(&model, version.number, query.format)? {
        Form::Stored { extension } => {
            let download = Download {
                size_bytes: version.size_bytes.unsigned_abs(),
                entity_tag: digest::entity_tag(&version.sha256),
                file_name: file_name(&model, &version, extension),
                sha256: version.sha256,
            };
            let sent = download.send_blob(&headers, &app.storage.blobs).await;
            path.unless_deleted(&app, sent).await
        }
        Form::Export { format, extension } => {
            // Exports are deterministic, so the tag needs no export: the artifact and the program decide the bytes.
            let tag = format!("\"{}-{extension}-{}\"", version.sha256, env!("CARGO_PKG_VERSION"));
            let entity_tag = HeaderValue::try_from(tag).expect("hex digits and a version are ASCII");
            if digest::none_match(&headers, &entity_tag) {
                return Ok(content::not_modified(&entity_tag));
            }
            let file_name = file_name(&model, &version, extension);
            if method == Method::HEAD {
                return Ok(content::head_without_size(&file_name, &entity_tag));
            }
            let share = limits.export().await?;
            let exported = export(&app, &version.sha256, format).await;
            let file = path.unless_deleted(&app, exported).await?;
            let download =
                Download { sha256: file.sha256().to_owned(), size_bytes: file.size_bytes(), entity_tag, file_name };
            download.send_staged(&headers, file, share).await
        }
    }
}

fn file_name(model: &ModelRecord, version: &VersionRecord, extension: &str) -> String {
    format!("{}-v{}.{extension}", model.name, version.number)
}

/// Where the bytes of a download come from.
enum Form {
    Stored { extension: &'static str },
    Export { format: ExportFormat, extension: &'static str },
}

impl Form {
    /// How version `number` of `model` is had in the `wanted` format.
    ///
    /// # Errors
    /// [`Error::NotExportable`] for an ONNX file of a weights-only model, and for another format than the upload's own of
    /// version 0.
    fn of(model: &ModelRecord, number: i64, wanted: ContentFormat) -> Result<Self, Error> {
        let (name, is_uploads_own) = match wanted {
            ContentFormat::Stored => ("stored", true),
            ContentFormat::Onnx => ("onnx", model.format == Format::Onnx),
            ContentFormat::Safetensors => ("safetensors", model.format == Format::Safetensors),
        };
        match (number, wanted) {
            (0, _) if is_uploads_own => Ok(Self::Stored { extension: extension(model.format) }),
            (0, _) => Err(Error::NotExportable(format!(
                "version 0 is the upload itself, a file in {} format; there is no {name} form of it",
                extension(model.format)
            ))),
            (_, ContentFormat::Stored) => Ok(Self::Stored { extension: "wp.safetensors" }),
            (_, ContentFormat::Onnx) if model.format != Format::Onnx => {
                Err(Error::NotExportable(format!("model {} holds weights only, no graph to export", model.name)))
            }
            (_, ContentFormat::Onnx) => Ok(Self::Export { format: ExportFormat::Onnx, extension: "onnx" }),
            (_, ContentFormat::Safetensors) => {
                Ok(Self::Export { format: ExportFormat::Safetensors, extension: "safetensors" })
            }
        }
    }
}

fn extension(format: Format) -> &'static str {
    match format {
        Format::Onnx => "onnx",
        Format::Safetensors => "safetensors",
        Format::Npz => "npz",
    }
}

/// Writes the artifact `sha256` in `format` to a staging file.
async fn export(app: &App, sha256: &str, format: ExportFormat) -> Result<StagedBlob, Error> {
    let files = app.storage.blobs.checkout();
    let artifact = files.path(sha256).await?;
    let out = app.storage.blobs.staging_file()?;
    let write = move || -> Result<tempfile::TempPath, ArtifactError> {
        // They stay until this ends, whoever waits for it.
        let _files = files;
        let mut writer = BufWriter::new(LocalFile::create(&out)?);
        Artifact::open(&artifact)?.export(format, &mut writer)?;
        writer.flush()?;
        drop(writer);
        Ok(out)
    };
    let out = app.executor.run(write).await??;
    Ok(app.storage.blobs.adopt(out).await?)
}
