//! What a client got in the end, compared with what the provider says to the same request sent directly.

use serde_json::{Value, json};
use tailwire::proto::wire::event::Event;

use crate::client::Node;
use crate::direct::{self, Expected, Story};
use crate::turn::Ask;
use crate::{Tally, World};

/// How it ended for the client.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// A response, whatever its status, and its items as they were told one by one.
    Response { response: Value, done: Vec<Value>, exact: bool },
    /// An error with this status, before anything was said.
    Error(u16),
    /// A stream that broke off.
    Broken,
}

impl World<'_> {
    /// Every event the provider told, in order, and only set-up events besides. What a sparse socket told of an item that
    /// never came to be is not shown.
    pub(crate) fn check_story(&self, story: &Story, told: &[String]) {
        let completed = story.last["response"]["status"] == "completed";
        let mut rest = story.names.iter();
        for name in told.iter().filter(|_| completed || !self.setup.sparse) {
            assert!(rest.any(|seen| seen == name), "{name} of {told:?} in {:?}", story.names);
        }
        let whole = completed && !self.setup.sparse;
        assert!(!whole || story.names.len() == told.len(), "nothing was left out, so nothing is supplied");
    }

    /// The client has its answer: the one the provider would have given it directly.
    pub(crate) fn finish(&mut self, number: usize, outcome: Outcome) {
        let ask = self.asks.remove(&number).expect("a turn ends once");
        let Ask { request, expected, disturbed, rungs, .. } = ask;
        let (response, done, exact) = match (outcome, &expected) {
            (Outcome::Response { response, done, exact }, _) => (response, done, exact),
            (Outcome::Error(status), Expected::Refused(told)) if status == *told => {
                return Tally::count(&self.tally.refused);
            }
            (Outcome::Error(status), _) => {
                assert!(disturbed, "an error {status} out of nothing: {rungs:?}");
                return Tally::count(&self.tally.broken);
            }
            (Outcome::Broken, _) => {
                assert!(disturbed, "a stream broken for nothing");
                return Tally::count(&self.tally.broken);
            }
        };
        let anchor = request.anchor.as_ref().map_or(Value::Null, |anchor| json!(anchor));
        assert_eq!(response["previous_response_id"], anchor, "the client's own anchor");
        let Expected::Answer { visible, context, reasoning, output } = &expected else {
            assert!(disturbed, "an answer where a refusal was due");
            return;
        };
        assert_eq!(direct::text(&response["sim"]["visible"]), *visible, "a wrong context");
        if exact {
            assert_eq!(direct::text(&response["sim"]["context"]), *context, "not exact");
        }
        // What the model thought may be more than the client sent, never less, never in another order.
        let thoughts = &response["sim"]["reasoning"];
        // Who names the response to continue has asked for its reasoning.
        if self.setup.strict && request.anchor.is_none() {
            assert_eq!(thoughts, reasoning, "reasoning that the client did not send");
        } else {
            assert!(direct::is_within(reasoning, thoughts), "{thoughts} is not {reasoning} and more");
        }
        if response["status"] != "completed" {
            assert!(disturbed, "{}", response["status"]);
            return;
        }
        assert_eq!(direct::said(&response["output"], exact), direct::said(output, exact), "what was said");
        let id = direct::text(&response["id"]);
        self.owners.insert(id.clone(), (request.tenant, request.scope));
        self.nodes.push(Node {
            tenant: request.tenant,
            scope: request.scope,
            output: direct::both(&done, &response["output"]),
            history: request.history,
            response: Some(id),
            foreign: false,
        });
    }
}

/// What the client got is the terminal event's response, with the client's own anchor and never without its output.
pub(crate) fn check_fold(event: &Event, response: &Value, completed: bool) {
    let mut told: Value = serde_json::from_str(event.value("response").expect("a response")).expect("JSON");
    told["previous_response_id"] = response["previous_response_id"].clone();
    if completed && told["output"] == json!([]) {
        told["output"] = response["output"].clone();
    }
    if completed || told["output"] != json!([]) {
        assert_eq!(told, *response, "the terminal event's response");
    }
}
