//! What is told must be what the published types read: every event and object goes through async-openai's.

use std::collections::BTreeSet;

use async_openai::types::responses::{Response, ResponseStreamEvent};

use super::*;

fn tell(style: Style) -> (Vec<Value>, Telling) {
    let call = |custom| Piece::Call {
        call_id: format!("call_{custom}"),
        name: "shell".to_owned(),
        arguments: r#"{"a": 10.0, "b":"\u00e8"}"#.to_owned(),
        custom,
    };
    let pieces = [
        Piece::Reasoning { identity: "0".repeat(64), summary: "thinking hard".to_owned() },
        Piece::Message { text: "a few words".to_owned(), commentary: true, cited: true },
        call(false),
        call(true),
    ];
    let request = json!({"model": "gpt-sim", "tools": [{"type": "function", "name": "shell", "parameters": {}, "strict": true}],
        "instructions": "be brief", "metadata": {"a": "b"}, "store": false});
    let mut count = 0;
    let mut mint = |prefix: &str| {
        count += 1;
        format!("{prefix}_{count}")
    };
    let response = opening(&request, "resp_1", &Digests::default(), 1_700_000_000);
    let saying = Saying { pieces: &pieces, cut: false, logprobs: Some(2) };
    let mut telling = Telling::new(response, &saying, style, (100, 0), &mut mint);
    let mut frames = Vec::new();
    loop {
        let emission = telling.next(1_700_000_001);
        frames.push(emission.frame);
        if emission.ending.is_some() {
            return (frames, telling);
        }
    }
}

fn names(frames: &[Value]) -> Vec<&str> {
    let mut names: Vec<_> = frames.iter().map(|frame| frame["type"].as_str().unwrap()).collect();
    names.dedup();
    names
}

#[test]
fn the_official_order() {
    let (frames, _) = tell(Style::default());
    let short: Vec<_> = names(&frames).into_iter().map(|name| name.trim_start_matches("response.")).collect();
    assert_eq!(
        short,
        [
            "created",
            "in_progress",
            "output_item.added",
            "reasoning_summary_part.added",
            "reasoning_summary_text.delta",
            "reasoning_summary_text.done",
            "reasoning_summary_part.done",
            "output_item.done",
            "output_item.added",
            "content_part.added",
            "output_text.delta",
            "output_text.annotation.added",
            "output_text.done",
            "content_part.done",
            "output_item.done",
            "output_item.added",
            "function_call_arguments.delta",
            "function_call_arguments.done",
            "output_item.done",
            "output_item.added",
            "custom_tool_call_input.delta",
            "custom_tool_call_input.done",
            "output_item.done",
            "completed",
        ]
    );
    let numbers: Vec<_> = frames.iter().map(|frame| frame["sequence_number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..frames.len() as u64).collect::<Vec<_>>());
}

#[test]
fn every_event_and_the_object_parse_with_the_published_types() {
    let (frames, telling) = tell(Style::default());
    for frame in &frames {
        serde_json::from_value::<ResponseStreamEvent>(frame.clone())
            .unwrap_or_else(|error| panic!("{error}: {frame}"));
    }
    let response = serde_json::from_value::<Response>(telling.response().clone()).unwrap();
    assert_eq!(response.output.len(), 4);

    let request = json!({"model": "gpt-sim"});
    let failed = |end: &dyn Fn(&mut Telling) -> Emission| {
        let response = opening(&request, "resp_1", &Digests::default(), 1);
        let mut telling = Telling::new(
            response,
            &Saying { pieces: &[], cut: false, logprobs: None },
            Style::default(),
            (1, 0),
            &mut |prefix| prefix.to_owned(),
        );
        end(&mut telling).frame
    };
    for frame in [
        failed(&|telling| telling.fail("server_error", "it broke")),
        failed(&|telling| telling.leave_incomplete("max_output_tokens")),
    ] {
        serde_json::from_value::<ResponseStreamEvent>(frame).unwrap();
    }
}

#[test]
fn the_copies_of_a_reasoning_item_differ_in_bytes_only() {
    let (frames, telling) = tell(Style::default());
    let mut copies: Vec<&Value> =
        frames.iter().map(|frame| &frame["item"]).filter(|item| item["type"] == "reasoning").collect();
    copies.push(&telling.response()["output"][0]);
    let blobs: BTreeSet<_> = copies.iter().map(|item| item["encrypted_content"].as_str().unwrap()).collect();
    assert_eq!(blobs.len(), 3);
    let identities: BTreeSet<_> =
        copies.iter().map(|item| canon::reasoning_identity(item).unwrap()).collect();
    assert_eq!(identities.len(), 1);
}

#[test]
fn styles() {
    let (frames, telling) = tell(Style {
        sparse: true,
        empty_output: true,
        future_event: true,
        single_delta: true,
        ..Style::default()
    });
    let names = names(&frames);
    assert!(
        !names.iter().any(|name| name.ends_with("item.added") || name.ends_with("part.added")),
        "{names:?}"
    );
    assert_eq!(names[2], "response.future_thing.delta");
    let arguments = frames.iter().filter(|frame| frame["type"] == "response.function_call_arguments.delta");
    assert_eq!(arguments.count(), 1);
    assert_eq!(frames.last().unwrap()["response"]["output"], json!([]));
    assert_eq!(telling.response()["output"].as_array().unwrap().len(), 4, "what is kept is whole");
}
