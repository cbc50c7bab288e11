//! Verbs behind the last parameter of a path, as in `/v1/models/{name}:predict`.
//!
//! The router takes a whole segment as a parameter, so a path with a verb is routed like the one without it, and the
//! handler finds the verb at the end of its parameter. The API's description has the path as clients write it.

use axum::http::{Method, Uri};
use utoipa::openapi::{ComponentsBuilder, OpenApiBuilder};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

use super::{Api, Error};

/// The route of the path that is described as `path`.
pub fn route_of(path: &str) -> &str {
    path.find("}:").map_or(path, |end| &path[..=end])
}

/// A handler whose path has a verb, on its route, which it shares with that of the path without one.
pub fn routed((schemas, paths, handler): UtoipaMethodRouter<Api>) -> OpenApiRouter<Api> {
    let routes: Vec<String> = paths.paths.keys().map(|path| route_of(path).to_owned()).collect();
    let components = ComponentsBuilder::new().schemas_from_iter(schemas).build();
    let document = OpenApiBuilder::new().paths(paths).components(Some(components)).build();
    let handler = handler.fallback(async |method: Method, uri: Uri| refusal(&method, &uri));
    routes.iter().fold(OpenApiRouter::with_openapi(document), |router, route| router.route(route, handler.clone()))
}

/// `segment`, the last of a request's path, without the `verb` that its operation has.
///
/// # Errors
/// [`Error::MethodNotAllowed`] where it is for the other operation of its route, with [`PREDICT`] or without a verb;
/// [`Error::NoRoute`] for every other verb.
pub fn noun<'a>(segment: &'a str, verb: Option<&str>, (method, uri): (&Method, &Uri)) -> Result<&'a str, Error> {
    let (noun, found) = split(segment);
    if found == verb { Ok(noun) } else { Err(refusal(method, uri)) }
}

fn split(segment: &str) -> (&str, Option<&str>) {
    match segment.rsplit_once(':') {
        Some((noun, verb)) => (noun, Some(verb)),
        None => (segment, None),
    }
}

/// Why a request is refused whose method and verb do not belong together.
fn refusal(method: &Method, uri: &Uri) -> Error {
    let path = uri.path().to_owned();
    let not_allowed = |allow, path| Error::MethodNotAllowed { method: method.clone(), path, allow: Some(allow) };
    match split(uri.path()).1 {
        None => not_allowed("GET,HEAD", path),
        Some(PREDICT) => not_allowed("POST", path),
        Some(_) => Error::NoRoute { path },
    }
}

/// The one verb that there is.
pub const PREDICT: &str = "predict";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_are_part_of_the_last_parameter() {
        assert_eq!(route_of("/v1/models/{name}:predict"), "/v1/models/{name}");
        assert_eq!(route_of("/v1/models/{name}/versions/{version}:predict"), "/v1/models/{name}/versions/{version}");
        assert_eq!(route_of("/v1/models/{name}"), "/v1/models/{name}");
    }

    #[test]
    fn a_segment_is_for_the_operation_whose_verb_it_has() {
        let of = |segment: &'static str, verb| {
            let uri: Uri = format!("/v1/models/{segment}").parse().unwrap();
            noun(segment, verb, (&Method::GET, &uri)).map_err(|error| error.status().as_u16())
        };
        assert_eq!(of("x:predict", Some(PREDICT)), Ok("x"));
        assert_eq!(of("x", None), Ok("x"));
        assert_eq!(of("x:predict", None), Err(405));
        assert_eq!(of("x", Some(PREDICT)), Err(405));
        assert_eq!(of("x:classify", Some(PREDICT)), Err(404));
        assert_eq!(of("x:classify", None), Err(404));
    }
}
