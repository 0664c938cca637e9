//! Was the context of an answer right? It is if the provider's digests of it are those of the client's own full request,
//! posted to a second provider that nothing happens to.
//!
//! Not here: attempts without an answer (`excuse.rs`).

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request};
use serde_json::Value;
use tailwire::sim::ledger::Record;

use crate::World;
use crate::client::{self, Answer, Line, Manner, Outcome};
use crate::lore::Items;

/// What a direct client would have been given.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    sim: Value,
    output: Value,
    /// Digest of the settings: by it the tries of a turn are known.
    pub(crate) settings: String,
    pub(crate) credential: String,
}

/// What the second provider makes of a body.
pub(crate) async fn direct(world: &World, line: &mut Option<Line>, key: &str, body: &Value) -> Expected {
    let text = Bytes::from(body.to_string());
    let outcome = ask_reference(world, line, Method::POST, "", key, text).await;
    let Outcome::Done(answer) = outcome else {
        panic!("the reference refuses a request of the soak's own: {outcome:?}");
    };
    let id = answer.response["id"].as_str().unwrap_or_default().to_owned();
    if body["store"] != false {
        // Nobody will continue it, and it would only take room.
        drop(ask_reference(world, line, Method::DELETE, &format!("/{id}"), key, Bytes::new()).await);
    }
    let record = world.reference.provider.ledger().read(|book| {
        let mut newest = book.turns.iter().rev();
        newest.find(|record| record.response.as_deref() == Some(&*id)).cloned()
    });
    let record = record.expect("the reference writes down what it answers");
    let Answer { mut response, .. } = answer;
    Expected {
        sim: response["sim"].take(),
        output: response["output"].take(),
        settings: record.settings,
        credential: record.credential,
    }
}

async fn ask_reference(
    world: &World,
    line: &mut Option<Line>,
    method: Method,
    path: &str,
    key: &str,
    body: Bytes,
) -> Outcome {
    let addr = world.reference.addr;
    let request = || {
        Request::builder()
            .method(method.clone())
            .uri(format!("http://{addr}/v1/responses{path}"))
            .header("host", "reference")
            .header("authorization", format!("Bearer {key}"))
            .header("content-type", "application/json")
            .body(Full::new(body.clone()))
            .expect("a request")
    };
    let outcome = client::attempt(line, addr, request(), Manner::default()).await;
    match outcome {
        // It was kept too long, and closed at the other end meanwhile.
        Outcome::Unreachable(_) => client::attempt(line, addr, request(), Manner::default()).await,
        outcome => outcome,
    }
}

/// Judges a completed answer; the story of what is wrong with it, if anything. `strict`: the proxy was told to add no
/// reasoning.
pub(crate) async fn right(
    world: &World,
    line: &mut Option<Line>,
    key: &str,
    (answer, expected): (&Answer, &Expected),
    strict: bool,
) -> Result<(), String> {
    let response = &answer.response;
    let id = response["id"].as_str().unwrap_or_default();
    let output = response["output"].as_array().into_iter().flatten();
    let output: Items = output.map(|item| Arc::new(item.clone())).collect();
    let mut wrong = Vec::new();
    if response["sim"]["visible"] != expected.sim["visible"] {
        wrong.push(format!("visible context {} is not {}", response["sim"], expected.sim));
    }
    if !is_within(&expected.sim["reasoning"], &response["sim"]["reasoning"]) {
        wrong.push(format!("reasoning {} is not {} and more", response["sim"], expected.sim));
    }
    let exact = !answer.plan.contains("visible");
    if exact {
        wrong.extend(differences(response, expected));
    } else if strict {
        wrong.push("a plan that adds reasoning, where that is forbidden".to_owned());
    }
    if !output.is_empty() {
        world.lore.outputs.put(id, output.clone());
    }
    let Some(record) = world.provider.record(id) else {
        world.tally.count("judged by digests alone", "its book is closed");
        return if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) };
    };
    if !exact {
        match loose(world, line, key, &record).await {
            Ok(Some(full)) => wrong.extend(differences(response, &full)),
            Ok(None) => world.tally.count("judged by digests alone", "its history is forgotten"),
            Err(why) => wrong.push(why),
        }
    }
    if record.settings != expected.settings {
        wrong.push("other settings".to_owned());
    }
    if record.credential != expected.credential {
        wrong.push("another credential".to_owned());
    }
    if wrong.is_empty() { Ok(()) } else { Err(format!("{}; {record:?}", wrong.join("; "))) }
}

/// What differs between an answer and the one expected: the whole context, or what was said.
fn differences(response: &Value, expected: &Expected) -> Option<String> {
    if response["sim"]["context"] != expected.sim["context"] {
        return Some(format!("context {} is not {}", response["sim"], expected.sim));
    }
    let (said, wanted) = (bare(&response["output"]), bare(&expected.output));
    let told = said.as_array().is_some_and(|items| !items.is_empty());
    (told && said != wanted).then(|| difference(&said, &wanted))
}

/// Whether all that one list has stands in the other, in the same order.
fn is_within(part: &Value, whole: &Value) -> bool {
    let mut rest = whole.as_array().into_iter().flatten();
    part.as_array().into_iter().flatten().all(|wanted| rest.any(|item| item == wanted))
}

/// What a direct client would be given who had left nothing out: with exactly the reasoning of the chain continued.
async fn loose(
    world: &World,
    line: &mut Option<Line>,
    key: &str,
    record: &Record,
) -> Result<Option<Expected>, String> {
    let Some(body) = world.lore.bodies.find(&record.settings) else { return Ok(None) };
    let Some(context) = upstream(world, line, key, record).await else { return Ok(None) };
    let thoughts = |items: &Items| -> HashSet<String> {
        items.iter().filter_map(|item| thought(&item["encrypted_content"]).map(str::to_owned)).collect()
    };
    if !thoughts(&body.items).is_subset(&thoughts(&context)) {
        return Err("reasoning that the client sent is not in the context".to_owned());
    }
    Ok(Some(direct(world, line, key, &body.with(&context)).await))
}

/// The context of a response, rebuilt along the chain of responses that the provider says it continued. None if
/// something in it is no longer known.
async fn upstream(world: &World, line: &mut Option<Line>, key: &str, last: &Record) -> Option<Items> {
    let mut chain = vec![last.clone()];
    let mut context = Items::new();
    while let Some(previous) = &chain.last()?.previous {
        if let Some(known) = world.lore.contexts.find(previous) {
            context = known;
            break;
        }
        chain.push(world.provider.record(previous)?);
    }
    for record in chain.iter().rev() {
        let body = world.lore.bodies.find(&record.settings)?;
        if let Some(previous) = &record.previous {
            let said = match world.lore.outputs.find(previous) {
                Some(said) => said,
                // Its client left; the model says the same to the same context.
                None => {
                    let asked = world.lore.bodies.find(&world.provider.record(previous)?.settings)?;
                    let again = direct(world, line, key, &asked.with(&context)).await;
                    again.output.as_array()?.iter().map(|item| Arc::new(item.clone())).collect()
                }
            };
            context.extend(said);
            context.extend_from_slice(&body.items[body.items.len().checked_sub(record.items)?..]);
        } else {
            context = body.items.clone();
        }
        world.lore.contexts.put(record.response.as_deref()?, context.clone());
    }
    Some(context)
}

/// An output without the ids that every run mints anew, and of each blob only whose copy it is.
fn bare(output: &Value) -> Value {
    let mut items = output.clone();
    for item in items.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        item.remove("id");
        if let Some(blob) = item.get_mut("encrypted_content") {
            *blob = thought(blob).into();
        }
    }
    items
}

/// Copies of a blob differ, but not in their beginning, which is the thought's identity.
fn thought(blob: &Value) -> Option<&str> {
    blob.as_str()?.get(..104)
}

/// The first item that two outputs do not share.
fn difference(one: &Value, other: &Value) -> String {
    let items = |output: &Value| output.as_array().cloned().unwrap_or_default();
    let (one, other) = (items(one), items(other));
    let at = one.iter().zip(&other).take_while(|(one, other)| one == other).count();
    format!("output {at} is {:.400?}, not {:.400?}", one.get(at), other.get(at))
}
