//! Lists in pages: `limit` and `after` in, `has_more` and `Link: rel="next"` out.
//!
//! `after` is the key of the last entry seen, so that a page stays right while entries come and go.

use axum::Json;
use axum::http::{HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::storage::Page;

use super::{Error, Name};

const DEFAULT_LIMIT: i64 = 50;
const MAX_LIMIT: i64 = 1000;

/// Which page of a list.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// Most entries to return, 1 to 1000.
    #[param(minimum = 1, maximum = 1000, default = 50)]
    pub limit: Option<i64>,
    /// The key of the last entry of the page before; each list describes its own.
    #[param(ignore)]
    pub after: Option<String>,
}

impl PageQuery {
    /// The page to ask the store for: one entry more than is shown, to learn whether there are more.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] for a limit out of range.
    pub fn to_page(&self) -> Result<Page, Error> {
        Ok(Page { after: self.after.clone(), limit: self.limit()? + 1 })
    }

    /// [`PageQuery::to_page`] of a list whose keys are names.
    ///
    /// # Errors
    /// [`Error::Name`] for an `after` that is none; [`Error::InvalidParameter`] for a limit out of range.
    pub fn to_page_of_names(&self) -> Result<Page, Error> {
        self.after.as_deref().map(str::parse::<Name>).transpose()?;
        self.to_page()
    }

    /// Entries to show.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] for a limit out of range.
    pub fn limit(&self) -> Result<i64, Error> {
        let limit = self.limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(Error::InvalidParameter(format!("limit is {limit}, it must be from 1 to {MAX_LIMIT}")));
        }
        Ok(limit)
    }
}

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct List<T> {
    pub items: Vec<T>,
    /// Whether more entries follow; the header `Link` then says where.
    pub has_more: bool,
}

/// A page about to be sent, and where the next one is.
pub struct ListResponse<T> {
    list: List<T>,
    next: Option<String>,
}

impl<T> ListResponse<T> {
    /// Cuts `items`, which may hold one entry too many, to the `limit` of `query`; `key` is what `after` refers to.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] for a limit out of range.
    pub fn new(uri: &Uri, query: &PageQuery, mut items: Vec<T>, key: impl Fn(&T) -> String) -> Result<Self, Error> {
        let limit = query.limit()? as usize;
        let has_more = items.len() > limit;
        items.truncate(limit);
        let next = if has_more { items.last().map(|last| next_uri(uri, &key(last))) } else { None };
        Ok(Self { list: List { items, has_more }, next })
    }
}

/// The URI of this list from `after` on; other parameters stay. Keys are names, ids and numbers: nothing to escape.
fn next_uri(uri: &Uri, after: &str) -> String {
    let kept =
        uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("after="));
    let query: Vec<&str> = kept.collect();
    let separator = if query.is_empty() { "" } else { "&" };
    format!("{}?{}{separator}after={after}", uri.path(), query.join("&"))
}

impl<T: Serialize> IntoResponse for ListResponse<T> {
    fn into_response(self) -> Response {
        let link = self.next.and_then(|next| HeaderValue::try_from(format!("<{next}>; rel=\"next\"")).ok());
        let mut response = Json(self.list).into_response();
        if let Some(link) = link {
            response.headers_mut().insert(header::LINK, link);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_page_keeps_the_other_parameters() {
        let next = |uri: &'static str| next_uri(&Uri::from_static(uri), "k");
        assert_eq!(next("/jobs"), "/jobs?after=k");
        assert_eq!(next("/jobs?limit=2&after=a&state=failed"), "/jobs?limit=2&state=failed&after=k");
    }

    #[test]
    fn limits_out_of_range_are_refused() {
        for limit in [-1, 0, 1001] {
            assert!(PageQuery { limit: Some(limit), after: None }.to_page().is_err());
        }
        assert_eq!(PageQuery { limit: Some(1000), after: None }.to_page().unwrap().limit, 1001);
    }
}
