//! Verbs behind the last parameter of a path, as in `/v1/models/{name}:predict`.
//!
//! The router takes a whole segment as a parameter, so a path with a verb is routed like the one without it. The API's
//! description has the path as clients write it, and [`access`](super::access) lets nothing through that is not described: the
//! handler of a path with a verb meets no other, and takes the verb off its parameter.

use std::borrow::Cow;

use utoipa::openapi::{ComponentsBuilder, OpenApiBuilder};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

use super::Api;

/// A handler whose path has a verb, on its route.
pub fn routed((schemas, paths, handler): UtoipaMethodRouter<Api>) -> OpenApiRouter<Api> {
    let routes: Vec<String> = paths.paths.keys().map(|path| route_of(path).to_owned()).collect();
    let components = ComponentsBuilder::new().schemas_from_iter(schemas).build();
    let document = OpenApiBuilder::new().paths(paths).components(Some(components)).build();
    routes.iter().fold(OpenApiRouter::with_openapi(document), |router, route| router.route(route, handler.clone()))
}

/// The route of what is described as `path`.
fn route_of(path: &str) -> &str {
    path.find("}:").map_or(path, |end| &path[..=end])
}

/// How what is at `path`, which has this `route`, would be described. No parameter has a colon inside.
pub fn described<'a>(route: &'a str, path: &str) -> Cow<'a, str> {
    match path.rsplit('/').next().and_then(|segment| segment.rsplit_once(':')) {
        Some((_, verb)) if route.ends_with('}') => format!("{route}:{verb}").into(),
        _ => route.into(),
    }
}

/// The parameter in `segment`, without the verb behind it.
pub fn noun(segment: &str) -> &str {
    segment.rsplit_once(':').map_or(segment, |(noun, _)| noun)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_a_verb_is_routed_as_the_one_without() {
        let route = "/v1/models/{name}/versions/{version}";
        for (path, at) in [
            (route.to_owned(), "/v1/models/x/versions/1"),
            (format!("{route}:predict"), "/v1/models/x/versions/1:predict"),
        ] {
            assert_eq!(route_of(&path), route);
            assert_eq!(described(route, at), path);
        }
        assert_eq!(described("/v1/models/{name}/metadata", "/v1/models/x:y/metadata"), "/v1/models/{name}/metadata");
        assert_eq!(described("/livez", "/livez"), "/livez");
    }

    #[test]
    fn a_verb_is_taken_off() {
        assert_eq!((noun("x:predict"), noun("x"), noun("x:y:predict")), ("x", "x", "x:y"));
    }
}
