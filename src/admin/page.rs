//! `/`: the dashboard. One page without a build step, that may load and send nothing but what its own hashes and origin allow.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{CONTENT_SECURITY_POLICY, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use sha2::{Digest, Sha256};

use crate::admin::{answer, refusal};
use crate::downstream::body::Body;

const PAGE: &str = include_str!("page.html");

/// What the browser may do with it: run this script, apply this style, ask this origin; and be in no frame.
static POLICY: LazyLock<Option<HeaderValue>> = LazyLock::new(|| {
    let (style, script) = (hash("style")?, hash("script")?);
    let policy = format!(
        "default-src 'none'; script-src '{script}'; style-src '{style}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    HeaderValue::try_from(policy).ok()
});

/// The page.
pub(super) fn response() -> Response<Body> {
    let Some(policy) = POLICY.as_ref() else {
        return refusal(StatusCode::INTERNAL_SERVER_ERROR, "tailwire_internal", "The page is not whole.");
    };
    let mut response = answer(StatusCode::OK, "text/html; charset=utf-8", PAGE.to_owned());
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, policy.clone());
    let name = HeaderName::from_static("cross-origin-opener-policy");
    headers.insert(name, HeaderValue::from_static("same-origin"));
    response
}

/// The hash of the one element of this name, as a policy writes it.
fn hash(element: &str) -> Option<String> {
    let (_, rest) = PAGE.split_once(&format!("<{element}>"))?;
    let (text, _) = rest.split_once(&format!("</{element}>"))?;
    Some(format!("sha256-{}", STANDARD.encode(Sha256::digest(text.as_bytes()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_whole_and_asks_nobody_else() {
        assert!(POLICY.is_some());
        for element in ["<style", "<script"] {
            assert_eq!(PAGE.matches(element).count(), 1, "{element}: one, which has the hash");
        }
        // An attribute would be refused by the policy, an address would be asked.
        for forbidden in [" style=", " onclick=", "http://", "https://", "@import", "url("] {
            let allowed = ["http://www.w3.org/2000/svg"];
            let rest = allowed.iter().fold(PAGE.to_owned(), |page, allowed| page.replace(allowed, ""));
            assert!(!rest.contains(forbidden), "{forbidden}");
        }
    }
}
