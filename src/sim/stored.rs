//! The small endpoints around a stored response: read it, list its input, delete it, cancel it, and compact a context.
//!
//! What is stored and how contexts are made is `account.rs`'s and `compaction.rs`'s.

use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use super::compaction;
use super::http::{Body, Caller, Reply, body, error, json_reply, ok};
use super::refusal::Refusal;
use super::request::{self, Transport};
use super::server::unix;

impl Caller {
    /// `GET` or `DELETE /responses/{id}`.
    pub(super) fn stored(&self, method: &Method, credential: &str, id: &str) -> Response<Body> {
        if method == Method::DELETE {
            return match self.provider.account(|account| account.delete(credential, id)) {
                true => ok(&json!({ "id": id, "object": "response", "deleted": true })),
                false => no_response(id),
            };
        }
        match self.provider.account(|account| account.stored(credential, id)) {
            Some(saved) => ok(&saved.response),
            None => no_response(id),
        }
    }

    /// What the model saw before an answer: the digests that Chat's own reply has no place for.
    pub(super) fn seen(&self, id: &str) -> Response<Body> {
        let seen = self.provider.ledger().read(|book| {
            book.answer(id).map(|record| {
                json!({ "context": record.digests.context, "visible": record.digests.visible,
                    "settings": record.settings, "items": record.items,
                    "transport": format!("{:?}", record.transport) })
            })
        });
        seen.map_or_else(|| error(StatusCode::NOT_FOUND, "No such answer.", None), |seen| ok(&seen))
    }

    /// `GET /responses/{id}/input_items`, a page at a time.
    pub(super) fn input_items(&self, credential: &str, id: &str, query: Option<&str>) -> Response<Body> {
        let Some(saved) = self.provider.account(|account| account.stored(credential, id)) else {
            return no_response(id);
        };
        let whole = self.provider.now().style.whole_input_items;
        let items = if whole { saved.whole_input() } else { saved.input.clone() };
        let items: Vec<&Value> = items.iter().map(|item| &item.value).collect();
        match page(items, query.unwrap_or_default()) {
            Ok(list) => ok(&list),
            Err(refusal) => refuse(&refusal),
        }
    }

    /// `POST /responses/{id}/cancel`: there are no background responses to cancel.
    pub(super) fn cancel(&self, credential: &str, id: &str) -> Response<Body> {
        match self.provider.account(|account| account.stored(credential, id)) {
            Some(_) => error(StatusCode::BAD_REQUEST, "Cannot cancel a synchronous response.", None),
            None => no_response(id),
        }
    }

    /// `POST /responses/compact`.
    pub(super) async fn compact(self, request: Request<Incoming>, credential: String) -> Reply {
        let (parts, incoming) = request.into_parts();
        let bytes = match body(&parts.headers, incoming).await {
            Ok(bytes) => bytes,
            Err(reply) => return Ok(reply),
        };
        let asked = match serde_json::from_slice(&bytes) {
            Ok(Value::Object(body)) => request::Request::parse(body, Transport::Http),
            _ => Err(Refusal::invalid("We could not parse the JSON body of your request.")),
        };
        let compacted = asked.and_then(|asked| {
            self.provider.account(|account| compaction::compact(account, &asked, &credential, unix()))
        });
        Ok(match compacted {
            Ok(window) => ok(&window),
            Err(refusal) => refuse(&refusal),
        })
    }
}

/// One page of a list as its query wants it: `limit` (1 to 100, 20 by default), `order` (newest first by default), and
/// what stands `after` an id.
fn page(mut items: Vec<&Value>, query: &str) -> Result<Value, Refusal> {
    let asked = |name: &str| {
        query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, v)| v)
    };
    let limit = match asked("limit").map(str::parse::<usize>) {
        None => 20,
        Some(Ok(limit @ 1..=100)) => limit,
        Some(_) => {
            let message = "Invalid 'limit': expected an integer from 1 to 100.";
            return Err(Refusal::named("invalid_value", "limit", message));
        }
    };
    match asked("order") {
        None | Some("desc") => items.reverse(),
        Some("asc") => {}
        Some(_) => {
            let message = "Invalid value for 'order'. Supported values are: 'asc' and 'desc'.";
            return Err(Refusal::named("invalid_value", "order", message));
        }
    }
    let from = match asked("after") {
        None => 0,
        Some(after) => match items.iter().position(|item| item["id"] == after) {
            Some(index) => index + 1,
            None => return Err(Refusal::named("invalid_value", "after", "No item with the id of 'after'.")),
        },
    };
    let rest = &items[from..];
    let data = &rest[..limit.min(rest.len())];
    let edge = |item: Option<&&Value>| item.map_or(Value::Null, |item| item["id"].clone());
    Ok(json!({ "object": "list", "data": data, "first_id": edge(data.first()), "last_id": edge(data.last()),
        "has_more": data.len() < rest.len() }))
}

fn refuse(refusal: &Refusal) -> Response<Body> {
    json_reply(StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_REQUEST), &refusal.body())
}

fn no_response(id: &str) -> Response<Body> {
    error(StatusCode::NOT_FOUND, &format!("Response with id '{id}' not found."), None)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn pages() {
        let items: Vec<Value> = (0..50).map(|n| json!({ "id": format!("i{n}") })).collect();
        let list = |query: &str| page(items.iter().collect(), query);
        for (query, first, last, count, more) in [
            ("", "i49", "i30", 20, true),
            ("order=asc&limit=3", "i0", "i2", 3, true),
            ("limit=3&after=i2", "i1", "i0", 2, false),
            ("order=asc&after=i46&limit=3", "i47", "i49", 3, false),
            ("limit=100&include=x", "i49", "i0", 50, false),
        ] {
            let page = list(query).unwrap();
            assert_eq!((&page["first_id"], &page["last_id"]), (&json!(first), &json!(last)), "{query}");
            assert_eq!(page["data"].as_array().unwrap().len(), count, "{query}");
            assert_eq!(page["has_more"], more, "{query}");
        }
        assert_eq!(list("after=i0").unwrap()["first_id"], Value::Null);
        for wrong in ["limit=0", "limit=101", "limit=x", "order=up", "after=none"] {
            assert_eq!(list(wrong).unwrap_err().status, 400, "{wrong}");
        }
    }
}
