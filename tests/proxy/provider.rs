//! What the provider does by itself: it compacts contexts in mid-answer or on request, and keeps stored responses that
//! a client asks for by their ids. Seen through tailwire and from the provider directly.

use hyper::Method;
use serde_json::{Value, json};
use tailwire::sim::script::Style;

use crate::agent::{Agent, Turn, assert_same_contexts};
use crate::http::Reply;
use crate::transparency::{announced, assert_same, read};
use crate::world::World;

/// What a client does with its history when an answer holds a compaction item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Habit {
    /// Repeats everything.
    Keeps,
    /// Drops what came before the latest compaction item.
    Drops,
    /// Repeats everything but reasoning.
    DropsReasoning,
    /// Drops what came before the item, and all reasoning.
    DropsBoth,
    /// Does not know such items, and drops them alone.
    Ignores,
    /// Drops reasoning, and puts the item behind what the same answer said after it.
    Reorders,
    /// Puts the reasoning that follows the item before it.
    Swaps,
}

const WORDS: [&str; 3] = [
    "go [sim calls=4 parallel=2 reasoning=2 commentary=1 text=300 args=200]",
    "again [sim calls=3 parallel=2 reasoning=1 text=200]",
    "and say it [sim calls=2 parallel=2 text=500 reasoning=1]",
];

fn is_compaction(item: &Value) -> bool {
    item["type"] == "compaction"
}

fn compacted(turn: &Turn) -> bool {
    turn.response["output"].as_array().unwrap().iter().any(is_compaction)
}

impl Habit {
    fn drops(self) -> bool {
        matches!(self, Self::Drops | Self::DropsBoth)
    }

    fn drops_reasoning(self) -> bool {
        matches!(self, Self::DropsReasoning | Self::DropsBoth | Self::Reorders)
    }

    /// Before the next request: what is done to a history that has grown since `from`.
    fn apply(self, history: &mut Vec<Value>, from: usize) {
        let Some(latest) = history.iter().rposition(is_compaction) else { return };
        match self {
            Self::Drops | Self::DropsBoth => drop(history.drain(..latest)),
            Self::Ignores => history.retain(|item| !is_compaction(item)),
            Self::Reorders if latest >= from => {
                let said = |item: &Value| {
                    item["role"] == "assistant"
                        || item["type"] == "reasoning"
                        || item["type"] == "function_call"
                };
                let after = history[latest + 1..].iter().take_while(|item| said(item)).count();
                history[latest..=latest + after].rotate_left(1);
            }
            Self::Swaps if latest >= from && history[latest + 1]["type"] == "reasoning" => {
                history.swap(latest, latest + 1);
            }
            Self::Keeps | Self::DropsReasoning | Self::Reorders | Self::Swaps => {}
        }
    }

    /// The whole talk.
    async fn talk(self, mut agent: Agent) -> Vec<Turn> {
        agent.change(&json!({"context_management": [{"type": "compaction", "compact_threshold": 1000}]}));
        agent.drops_reasoning = self.drops_reasoning();
        let mut turns = Vec::new();
        for words in WORDS {
            agent.hear(words);
            loop {
                let from = agent.history.len();
                let (turn, calls) = agent.step().await;
                turns.push(turn);
                assert!(turns.len() < 40, "no end");
                self.apply(&mut agent.history, from);
                if !calls {
                    break;
                }
            }
        }
        turns
    }
}

fn kinds(turns: &[Turn]) -> Vec<Vec<&str>> {
    let of = |turn: &Turn| {
        let output = turn.response["output"].as_array().unwrap().iter();
        output.map(|item| item["type"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let all: Vec<Vec<String>> = turns.iter().map(of).collect();
    let known = ["compaction", "reasoning", "message", "function_call"];
    let name = |kind: &String| *known.iter().find(|known| *known == kind).expect("a known type");
    all.iter().map(|kinds| kinds.iter().map(name).collect()).collect()
}

async fn talks(habit: Habit, stream: bool, style: Style) -> (Vec<Turn>, Vec<Turn>) {
    let plain = World::plain().await;
    let world = World::start(|_| (), |script| script.style = style).await;
    let settings = json!({"stream": stream});
    let direct = habit.talk(Agent::new(plain.direct()).set(&settings)).await;
    let proxied = habit.talk(Agent::new(world.proxied()).set(&settings)).await;
    assert!(direct.iter().filter(|turn| compacted(turn)).count() > 1, "{:?}", kinds(&direct));
    assert_eq!(kinds(&direct), kinds(&proxied), "{habit:?}");
    plain.assert_lawful();
    world.assert_lawful();
    (direct, proxied)
}

fn plans(turns: &[Turn]) -> Vec<String> {
    turns.iter().map(|turn| turn.told().plan).collect()
}

#[tokio::test]
async fn a_client_that_repeats_a_compaction_item_goes_on_in_deltas() {
    let plain = Style::default();
    let odd = Style { sparse: true, empty_output: true, pretty: true, late_frames: true, ..plain };
    for style in [plain, odd] {
        for stream in [false, true] {
            let (direct, proxied) = talks(Habit::Keeps, stream, style).await;
            assert_same_contexts(&direct, &proxied);
            for (n, (direct, proxied)) in direct.iter().zip(&proxied).enumerate() {
                let [direct, told] = [direct, proxied].map(|turn| {
                    // A sparse socket's items are announced with what is known of them later.
                    let events = read(&turn.reply).into_iter();
                    events.map(|event| if style.sparse && stream { announced(event) } else { event })
                });
                assert_same(&direct.collect::<Vec<_>>(), &told.collect::<Vec<_>>(), &format!("turn {n}"));
                let plan = if n == 0 { ("full", "first-turn") } else { ("delta", "exact") };
                assert_eq!(proxied.told().plan(), plan, "turn {n}, {stream}");
            }
        }
    }
}

#[tokio::test]
async fn a_client_that_drops_what_was_compacted_is_sent_in_full_once_and_then_in_deltas() {
    for stream in [false, true] {
        let (direct, proxied) = talks(Habit::Drops, stream, Style::default()).await;
        assert_same_contexts(&direct, &proxied);
        for (n, pair) in proxied.windows(2).enumerate() {
            // After the drop the compaction item is the first thing the provider hears of this conversation.
            let plan = if compacted(&pair[0]) { ("full", "first-turn") } else { ("delta", "exact") };
            assert_eq!(pair[1].told().plan(), plan, "turn {}", n + 1);
        }
    }
}

#[tokio::test]
async fn reasoning_dropped_around_a_compaction_is_nothing_new() {
    for habit in [Habit::DropsReasoning, Habit::DropsBoth] {
        let (direct, proxied) = talks(habit, true, Style::default()).await;
        for (n, (direct, proxied)) in direct.iter().zip(&proxied).enumerate() {
            assert_eq!(direct.context().1, proxied.context().1, "turn {n}, {habit:?}");
        }
        for (n, pair) in proxied.windows(2).enumerate() {
            let full = habit.drops() && compacted(&pair[0]);
            let plan = if full { "full" } else { "delta" };
            assert_eq!(pair[1].told().plan, plan, "turn {}, {habit:?}", n + 1);
        }
    }
}

#[tokio::test]
async fn a_compaction_item_left_out_or_out_of_place_is_another_context() {
    for habit in [Habit::Ignores, Habit::Reorders, Habit::Swaps] {
        let (direct, proxied) = talks(habit, false, Style::default()).await;
        for (n, (direct, proxied)) in direct.iter().zip(&proxied).enumerate() {
            assert_eq!(direct.context().1, proxied.context().1, "turn {n}, {habit:?}");
        }
        if !habit.drops_reasoning() {
            assert_same_contexts(&direct, &proxied);
        }
        let after: Vec<_> = proxied
            .windows(2)
            .filter(|pair| compacted(&pair[0]))
            // Not every answer that compacts reasons.
            .filter(|pair| habit != Habit::Swaps || kinds(&pair[..1])[0].contains(&"reasoning"))
            .map(|pair| pair[1].told().plan)
            .collect();
        assert!(
            !after.is_empty() && after.iter().all(|plan| plan == "full"),
            "{habit:?}: {:?}",
            plans(&proxied)
        );
    }
}

#[tokio::test]
async fn a_compaction_asked_for_by_the_client() {
    let world = World::plain().await;
    let mut agents = [world.direct(), world.proxied()].map(Agent::new);
    let mut runs = Vec::new();
    for agent in &mut agents {
        let mut turns = agent.run("go [sim calls=2 reasoning=1]").await;
        agent.history.push(json!({"type": "compaction_trigger"}));
        turns.push(agent.step().await.0);
        let item = agent.history.pop().unwrap();
        assert!(is_compaction(&item), "{item}");
        agent.history = vec![item];
        turns.extend(agent.run("on [sim calls=1]").await);
        runs.push(turns);
    }
    assert_same_contexts(&runs[0], &runs[1]);
    assert_eq!(plans(&runs[1]), ["full", "delta", "delta", "delta", "full", "delta"]);
    world.assert_lawful();
}

#[tokio::test]
async fn a_threshold_that_is_too_low_is_refused_as_over_rest() {
    let world = World::plain().await;
    for threshold in [json!(999), json!(-1), json!("many")] {
        let body = json!({"model": "gpt-sim", "store": false, "input": "hi",
            "context_management": [{"type": "compaction", "compact_threshold": threshold}]});
        let (direct, proxied) = (world.direct().ask(&body).await, world.proxied().ask(&body).await);
        assert_eq!((direct.status, direct.json()), (proxied.status, proxied.json()));
        assert_eq!(proxied.status, 400);
    }
}

#[tokio::test]
async fn f32_a_compacted_window_begins_a_new_conversation() {
    let world = World::plain().await;
    let mut agents = [world.direct(), world.proxied()].map(Agent::new);
    let mut runs = Vec::new();
    let mut windows = Vec::new();
    for agent in &mut agents {
        let mut turns = agent.run("go [sim calls=2 reasoning=1]").await;
        turns.extend(agent.run("and on [sim text=30]").await);
        let body = json!({"model": "gpt-sim", "input": agent.history}).to_string();
        let window = agent.client.send(Method::POST, "/v1/responses/compact", body).await;
        assert_eq!(window.status, 200);
        windows.push(read(&window));
        assert!(!window.headers.contains_key("x-tailwire"), "it is not a turn");
        agent.history = window.json()["output"].as_array().unwrap().clone();
        turns.extend(agent.run("after [sim calls=1 reasoning=1]").await);
        runs.push(turns);
    }
    assert_eq!(windows[0], windows[1], "it passes through");
    let output = windows[1][0]["output"].as_array().unwrap();
    let roles: Vec<_> = output.iter().map(|item| (&item["type"], &item["role"])).collect();
    let (message, user) = (json!("message"), json!("user"));
    assert_eq!(roles, [(&message, &user), (&message, &user), (&json!("compaction"), &Value::Null)]);
    assert_same_contexts(&runs[0], &runs[1]);
    assert_eq!(plans(&runs[1]), ["full", "delta", "delta", "delta", "full", "delta"]);
    world.assert_lawful();
}

#[tokio::test]
async fn a_compaction_of_a_stored_chain_passes_through() {
    let world = World::plain().await;
    let turns = Agent::new(world.proxied()).set(&json!({"store": true})).run("go [sim calls=1]").await;
    let body = json!({"model": "gpt-sim", "previous_response_id": turns[1].id()}).to_string();
    let of = |client: crate::http::Client| {
        let body = body.clone();
        async move { client.send(Method::POST, "/v1/responses/compact", body).await }
    };
    let (direct, proxied) = (of(world.direct()).await, of(world.proxied()).await);
    assert_eq!(read(&direct), read(&proxied));
    // Its id is none of a response.
    let id = proxied.json()["id"].clone();
    let next = json!({"model": "gpt-sim", "input": "on", "previous_response_id": id});
    let refused = world.proxied().ask(&next).await;
    assert_eq!(refused.json()["error"]["code"], "previous_response_not_found");
}

/// Both ways to the same stored response, which are one.
async fn fetch(world: &World, method: Method, path: &str) -> Reply {
    let (direct, proxied) = match method {
        Method::GET => (world.direct().get(path).await, world.proxied().get(path).await),
        _ => (
            world.direct().send(method.clone(), path, "").await,
            world.proxied().send(method.clone(), path, "").await,
        ),
    };
    assert_eq!((direct.status, &direct.body), (proxied.status, &proxied.body), "{method} {path}");
    for name in ["x-ratelimit-remaining-requests", "openai-processing-ms", "x-request-id"] {
        assert!(proxied.headers.contains_key(name), "{name} of the provider's own");
    }
    proxied
}

/// A stored conversation, direct and through tailwire.
async fn stored(world: &World) -> [Vec<Turn>; 2] {
    let mut runs = [Vec::new(), Vec::new()];
    for (client, run) in [world.direct(), world.proxied()].into_iter().zip(&mut runs) {
        let mut agent = Agent::new(client).set(&json!({"store": true}));
        *run = agent.run("go [sim calls=2 parallel=2 reasoning=1]").await;
    }
    assert_same_contexts(&runs[0], &runs[1]);
    assert_eq!(plans(&runs[1]), ["full", "delta", "delta"]);
    runs
}

#[tokio::test]
async fn a_stored_response_of_a_delta_names_the_one_it_continued() {
    let world = World::plain().await;
    let [direct, proxied] = stored(&world).await;
    for (n, (direct, proxied)) in direct.iter().zip(&proxied).enumerate() {
        let path = format!("/v1/responses/{}", proxied.id());
        let kept = fetch(&world, Method::GET, &path).await.json();
        let before = n.checked_sub(1).map_or(Value::Null, |before| json!(runs_id(&world, before)));
        assert_eq!(kept["previous_response_id"], before, "as the provider was asked");
        // The answer itself said what the client had sent, and is otherwise the same object.
        assert_eq!(proxied.response["previous_response_id"], Value::Null);
        let mut told = kept.clone();
        told["previous_response_id"] = Value::Null;
        assert_eq!(told, proxied.response);
        let plain = world.direct().get(&format!("/v1/responses/{}", direct.id())).await.json();
        assert_eq!(plain["previous_response_id"], Value::Null, "over REST there is none");
    }
}

/// The id of the proxied agent's nth response: those over the socket, in order.
fn runs_id(world: &World, n: usize) -> String {
    use tailwire::sim::Transport;
    world.ledger().read(|book| {
        let mut over = book.turns.iter().filter(|turn| turn.transport == Transport::WebSocket);
        over.nth(n).and_then(|turn| turn.response.clone()).unwrap()
    })
}

#[tokio::test]
async fn the_input_items_of_a_delta_are_those_it_was_sent_with() {
    for whole in [false, true] {
        let world = World::start(|_| (), |script| script.style.whole_input_items = whole).await;
        let [direct, proxied] = stored(&world).await;
        let mut lists = Vec::new();
        for turn in [&direct[2], &proxied[2]] {
            let path = format!("/v1/responses/{}/input_items?order=asc&limit=100", turn.id());
            let items = fetch(&world, Method::GET, &path).await.json()["data"].as_array().unwrap().clone();
            let kind = |item: &Value| item["type"].as_str().unwrap_or("message").to_owned();
            lists.push(items.iter().map(kind).collect::<Vec<_>>());
        }
        let count = |list: &[String]| list.len();
        assert_eq!(count(&lists[0]), 11, "over REST all there is: {:?}", lists[0]);
        match whole {
            true => assert_eq!(lists[0], lists[1]),
            false => assert_eq!(lists[1], ["function_call_output", "function_call_output"]),
        }
        // Pages pass through as they are.
        let id = proxied[2].id();
        let first =
            fetch(&world, Method::GET, &format!("/v1/responses/{id}/input_items?limit=1")).await.json();
        assert_eq!(first["has_more"], true);
        let after = first["last_id"].as_str().unwrap();
        let path = format!("/v1/responses/{id}/input_items?limit=1&after={after}");
        let second = fetch(&world, Method::GET, &path).await.json();
        assert_ne!(second["data"], first["data"]);
        let wrong = fetch(&world, Method::GET, &format!("/v1/responses/{id}/input_items?limit=0")).await;
        assert_eq!(wrong.status, 400);
    }
}

#[tokio::test]
async fn what_is_deleted_or_cancelled_is_so_at_the_provider() {
    let world = World::plain().await;
    let [_, proxied] = stored(&world).await;
    let path = format!("/v1/responses/{}", proxied[2].id());
    let refused = fetch(&world, Method::POST, &format!("{path}/cancel")).await;
    assert_eq!(refused.status, 400, "a synchronous response is not cancelled");
    assert_eq!(world.proxied().send(Method::DELETE, &path, "").await.json()["deleted"], true);
    for gone in [
        fetch(&world, Method::GET, &path).await,
        fetch(&world, Method::DELETE, &path).await,
        fetch(&world, Method::GET, &format!("{path}/input_items")).await,
        fetch(&world, Method::POST, &format!("{path}/cancel")).await,
    ] {
        assert_eq!(gone.status, 404);
    }
}

#[test]
fn every_difference_that_is_written_down_names_tests_that_exist() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("docs/differences.md")).unwrap();
    let named: Vec<_> = text.split('`').filter_map(|part| part.split_once("::")).collect();
    assert!(named.len() > 20, "{named:?}");
    for (module, name) in named {
        let found = ["proxy", "faults"].into_iter().any(|suite| {
            let source = std::fs::read_to_string(root.join(format!("tests/{suite}/{module}.rs")));
            source.is_ok_and(|source| source.contains(&format!("fn {name}(")))
        });
        assert!(found, "docs/differences.md names {module}::{name}");
    }
}
