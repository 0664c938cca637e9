//! The request headers that every provider reads as who is asking, or as what: no setting and no client may explain them
//! away. Names only; what becomes of a header is `downstream::headers`'s to say.

/// The headers that SDKs put a key into.
pub const CREDENTIALS: [&str; 3] = ["authorization", "api-key", "x-api-key"];

/// Whether a header holds a key.
#[must_use]
pub fn is_credential(name: &str) -> bool {
    CREDENTIALS.contains(&name)
}

/// Whether a header says who is asking, or what, to every provider. In lower case.
#[must_use]
pub fn is_essential(name: &str) -> bool {
    is_credential(name) || NAMES.contains(&name) || BEGINNINGS.iter().any(|known| name.starts_with(known))
}

const NAMES: [&str; 4] = ["chatgpt-account-id", "cookie", "expect", "host"];
const BEGINNINGS: [&str; 2] = ["content-", "openai-"];
