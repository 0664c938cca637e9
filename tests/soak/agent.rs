//! An agent: holds one conversation after another, and retries as SDKs do until it has its answer.
//!
//! Everything it decides comes from the run's seed and its own number. Four neighbours share a story, so that they say
//! the same things; two of those share a credential as well.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http_body_util::Full;
use hyper::Request;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::World;
use crate::chance::Chance;
use crate::chat::{Ask, Chat, Drops, Echo, Habit, prose};
use crate::client::{self, Answer, Leave, Line, Manner, Outcome};
use crate::excuse::Case;
use crate::judge::{self, Expected};
use crate::lore::Body;
use crate::proxy::client_key;
use crate::tally::{LOST, WRONG};
use crate::trouble::Trouble;

pub(crate) struct Agent {
    world: Arc<World>,
    number: usize,
    /// What is said; shared with neighbours.
    story: Chance,
    /// How it is sent.
    ways: Chance,
    key: String,
    stream: bool,
    line: Option<Line>,
    reference: Option<Line>,
    chats: u64,
}

impl Agent {
    pub(crate) fn new(world: Arc<World>, number: usize) -> Self {
        let seed = world.plan.seed;
        Self {
            number,
            story: Chance::new(seed, 1_000_000 + number as u64 / 4),
            ways: Chance::new(seed, number as u64),
            key: format!("key-{}", number / 2 % 8),
            stream: true,
            line: None,
            reference: None,
            chats: 0,
            world,
        }
    }

    /// Talks until the run is over.
    pub(crate) async fn run(mut self) {
        while !self.world.is_over() {
            self.chats += 1;
            let mut chat = Chat::new(self.habit(), &mut self.story);
            let turns = self.ways.within(3, 40) as u64;
            self.stream = !self.ways.once_in(3);
            while !self.world.is_over() && chat.turns() < turns && chat.size() < LARGEST_CHAT {
                if !self.round(&mut chat).await {
                    break;
                }
            }
            self.world.tally.count("conversations", "ended");
        }
    }

    /// One last word after the chaos: it must be answered at once.
    pub(crate) async fn calm(mut self) {
        let mut chat = Chat::new(self.habit(), &mut self.story);
        for _ in 0..2 {
            chat.say("Is all well again? [sim text=40]");
            let Some(response) = self.turn(&mut chat, Manner::default()).await else { return };
            chat.take(&response, &mut self.story);
        }
    }

    fn habit(&mut self) -> Habit {
        let ways = &mut self.ways;
        let store = ways.once_in(4);
        Habit {
            drops: ways.pick(&[
                Drops::Nothing,
                Drops::Nothing,
                Drops::Nothing,
                Drops::Everything,
                Drops::First,
                Drops::Earlier,
            ]),
            echo: ways.pick(&[Echo::Identical, Echo::Identical, Echo::Bare, Echo::Rewritten]),
            store,
            references: store && ways.once_in(4),
            settings_first: ways.once_in(2),
        }
    }

    /// The user says something, and the agent works on it until there are no more calls. False ends the conversation.
    async fn round(&mut self, chat: &mut Chat) -> bool {
        self.whim(chat);
        let text = self.words();
        chat.say(&text);
        loop {
            let manner = self.manner();
            let Some(response) = self.turn(chat, manner).await else { return false };
            if response["output"].as_array().is_none_or(Vec::is_empty) {
                // A provider that leaves its output out of a JSON body: there is nothing to go on from.
                return false;
            }
            if self.ways.once_in(15) {
                // Regenerate: the same again, and the other answer is kept.
                self.world.tally.count("moves", "regenerate");
                continue;
            }
            let calls = chat.take(&response, &mut self.story);
            if !calls {
                self.aside(chat).await;
                return true;
            }
            if self.world.is_over() {
                return false;
            }
        }
    }

    /// What the user says, with a wish for the simulated model.
    fn words(&mut self) -> String {
        let story = &mut self.story;
        let calls = story.pick(&[0, 1, 1, 2, 3]);
        let parallel = story.pick(&[1, 1, 2, 3]);
        let reasoning = story.pick(&[0, 1, 1, 2]);
        let text = story.pick(&[10, 60, 200, 400]);
        let custom = u8::from(story.once_in(8));
        let commentary = u8::from(story.once_in(4));
        let high = if story.once_in(150) {
            2 << 20
        } else if story.once_in(30) {
            200_000
        } else {
            3000
        };
        let body = prose(story, 30, high);
        format!(
            "{body} [sim calls={calls} parallel={parallel} reasoning={reasoning} text={text} args=120 custom={custom} commentary={commentary}]"
        )
    }

    /// Now and then something about the conversation changes before the user speaks.
    fn whim(&mut self, chat: &mut Chat) {
        let (ways, story) = (&mut self.ways, &mut self.story);
        let moved = match ways.below(40) {
            0 => {
                chat.compact(story);
                "compaction"
            }
            1 if chat.rewind(ways) => "rewind",
            2 if chat.prune(ways) => "old output cut",
            3 => {
                chat.set("instructions", json!(format!("Be brief. {}", prose(story, 100, 4000))));
                "instructions changed"
            }
            4 => {
                let temperature = json!(ways.pick(&[0.2, 0.7, 1.0]));
                chat.set("temperature", temperature);
                "temperature changed"
            }
            5 => {
                let model = ways.pick(&["gpt-sim", "gpt-sim-mini"]);
                chat.set("model", json!(model));
                "model changed"
            }
            6 => {
                let mut tools = chat.setting("tools").clone();
                let tool = json!({ "type": "function", "name": format!("extra_{}", chat.turns()), "parameters": {} });
                tools.as_array_mut().expect("a list").push(tool);
                chat.set("tools", tools);
                "tools changed"
            }
            7 => {
                let mut tools = chat.setting("tools").clone();
                let tool = json!({ "type": "mcp", "server_label": "s", "server_url": "https://mcp.invalid" });
                tools.as_array_mut().expect("a list").push(tool);
                chat.set("tools", tools);
                "tools that act"
            }
            8 => {
                chat.set("x_unknown", json!(ways.below(3)));
                "unknown field changed"
            }
            9 if !chat.habit.references && chat.len() > 0 => {
                let number = self.number / 2 % 8;
                self.key = format!("key-{number}-{}", ways.below(3));
                // Nothing the old credential stored can be named under the new one.
                chat.taken.clear();
                chat.back(chat.mark());
                "credential rotated"
            }
            10 => {
                self.stream = !self.stream;
                "json or sse"
            }
            _ => return,
        };
        self.world.tally.count("moves", moved);
    }

    /// A question beside the conversation, which goes on as if it had not been asked.
    async fn aside(&mut self, chat: &mut Chat) {
        if !self.ways.once_in(8) {
            return;
        }
        self.world.tally.count("moves", "question aside");
        let mark = chat.mark();
        chat.say("Suggest the user's next words. [sim text=20]");
        let manner = self.manner();
        let _ = self.turn(chat, manner).await;
        chat.back(mark);
    }

    fn manner(&mut self) -> Manner {
        let ways = &mut self.ways;
        Manner {
            http2: ways.once_in(3),
            fresh: ways.once_in(5),
            pause: ways.once_in(25).then(|| Duration::from_millis(ways.within(1, 40) as u64)),
            leave: ways.once_in(14).then(|| match ways.below(3) {
                0 => Leave::Waiting(Duration::from_millis(ways.below(60) as u64)),
                _ => Leave::Reading(ways.within(1, 20_000)),
            }),
        }
    }

    /// One turn: asked again until it is answered, as SDKs and their users do. None if the answer cannot be had.
    async fn turn(&mut self, chat: &mut Chat, mut manner: Manner) -> Option<Value> {
        let label = format!("agent-{}-chat-{}", self.number, self.chats);
        let mut anchored = self.ways.once_in(3);
        let mut ask = chat.ask(self.stream, anchored, &label);
        let mode = self.ways.once_in(30);
        let expected = self.expect(chat, &label).await;
        let mut before = 0;
        let (began, mut attempt) = (Instant::now(), 0);
        while attempt < MOST_ATTEMPTS && began.elapsed() < LONGEST_TURN {
            let from = Instant::now();
            let strict = self.world.is_strict();
            let request = self.request(&ask, mode);
            let outcome = client::attempt(&mut self.line, self.world.proxy_addr(), request, manner).await;
            if let Outcome::Done(answer) = &outcome
                && answer.response["status"] == "completed"
            {
                let strict = strict && !self.restarted(from);
                self.judge(chat, (&ask, &label), (answer, &expected), strict).await;
                self.judge_end(answer, from);
                self.world.tally.turn();
                self.world.tally.count("attempts a turn", (attempt + 1).to_string());
                return self.completed(outcome);
            }
            let case = Case {
                ask: &ask,
                chat,
                key: &self.key,
                settings: &expected.settings,
                credential: &expected.credential,
                before,
                manner,
                from,
                to: Instant::now(),
            };
            let why = self.explained(&case, &outcome).await.unwrap_or_default();
            let forgotten = why == "forgotten by the provider";
            // A side that is down is waited for, not counted against.
            attempt += usize::from(!["proxy draining", "proxy killed", "provider down"].contains(&why));
            before = self.world.provider.tries(&expected.settings).len();
            manner.leave = manner.leave.filter(|_| self.ways.once_in(4));
            if forgotten && ask.refers {
                return None;
            }
            if forgotten || (anchored && attempt > 3) {
                anchored = false;
                ask = chat.again(self.stream, &label);
            }
            self.pause(attempt).await;
        }
        let story = format!("{label} turn {}: {MOST_ATTEMPTS} attempts", ask.turn);
        self.world.tally.fail(LOST, "never answered", &story);
        None
    }

    /// What a direct client would be given.
    async fn expect(&mut self, chat: &Chat, label: &str) -> Expected {
        let body = Body { items: chat.visible(), around: chat.around(label) };
        let request = body.with(&body.items);
        let expected = judge::direct(&self.world, &mut self.reference, &self.key, &request).await;
        self.world.lore.bodies.put(&expected.settings, Arc::new(body));
        expected
    }

    async fn judge(
        &mut self,
        chat: &Chat,
        (ask, label): (&Ask, &str),
        (answer, expected): (&Answer, &Expected),
        strict: bool,
    ) {
        let world = self.world.clone();
        world.tally.count("plans", answer.plan.clone());
        let verdict = judge::right(&world, &mut self.reference, &self.key, (answer, expected), strict).await;
        let story = |what: &str| {
            let seed = world.plan.seed;
            format!(
                "seed {seed}, {label}, turn {}, {} items, {:?}, plan {}: {what}",
                ask.turn,
                chat.len(),
                chat.habit,
                answer.plan
            )
        };
        if let Err(wrong) = verdict {
            world.tally.fail(WRONG, "context", &story(&wrong));
        }
        if !answer.mangled.is_empty() && !answer.plan.starts_with("http") {
            world.tally.fail(WRONG, "mangled stream", &story(&answer.mangled));
        }
    }

    /// A body that breaks off after all was said: a client that reads to the end has no answer. Over HTTP the provider may
    /// have done that.
    fn judge_end(&self, answer: &Answer, from: Instant) {
        let Answer { torn, plan, .. } = answer;
        if !torn.is_empty() && !plan.starts_with("http") && !self.restarted(from) {
            let story = format!("agent {}, chat {}, plan {plan}: {torn}", self.number, self.chats);
            self.world.tally.fail(LOST, "torn at its end", &story);
        }
    }

    /// Whether the proxy may have been another one, or none, at some time since.
    fn restarted(&self, since: Instant) -> bool {
        let met = |what| self.world.troubles.met(what, since, Instant::now());
        met(Trouble::Cut) || met(Trouble::Draining)
    }

    async fn explained(&self, case: &Case<'_>, outcome: &Outcome) -> Option<&'static str> {
        match case.explain(&self.world, outcome).await {
            Ok(why) => {
                self.world.tally.count("failed attempts, as direct", why);
                Some(why)
            }
            Err(story) => {
                let kind = match outcome {
                    Outcome::Done(_) => "response not completed",
                    Outcome::Refused { .. } => "status",
                    Outcome::Broken { .. } => "stream broken",
                    Outcome::Unreachable(_) => "no answer",
                    Outcome::Hung(_) => "hung",
                    Outcome::Left => "left",
                };
                let seed = self.world.plan.seed;
                let about = format!(
                    "seed {seed}, agent {}, chat {}, turn {}, {:?}\n{story}",
                    self.number, self.chats, case.ask.turn, case.chat.habit
                );
                self.world.tally.fail(LOST, kind, &about);
                None
            }
        }
    }

    fn completed(&mut self, outcome: Outcome) -> Option<Value> {
        match outcome {
            Outcome::Done(Answer { response, .. }) => Some(response),
            _ => None,
        }
    }

    fn request(&mut self, ask: &Ask, mode: bool) -> Request<Full<Bytes>> {
        let (coding, body) = match self.ways.below(8) {
            0 => (Some("gzip"), gzip(&ask.body)),
            1 => (Some("zstd"), zstd::bulk::compress(&ask.body, 1).expect("memory").into()),
            _ => (None, ask.body.clone()),
        };
        let addr = self.world.proxy_addr();
        let mut request = Request::post(format!("http://{addr}/v1/responses"))
            .header("host", addr.to_string())
            .header("authorization", format!("Bearer {}", self.key))
            .header("content-type", "application/json")
            .header("x-tailwire-key", client_key(self.number))
            .header("x-stainless-retry-count", "0")
            .header("user-agent", "soak/1");
        if let Some(coding) = coding {
            request = request.header("content-encoding", coding);
        }
        if mode {
            request = request.header("x-tailwire-mode", "http");
        }
        request.body(Full::new(body)).expect("a request")
    }

    /// A little longer each time, and longer yet while a side is down.
    async fn pause(&mut self, attempt: usize) {
        let now = Instant::now();
        let down = [Trouble::Cut, Trouble::Draining, Trouble::ProviderDown];
        let down = down.iter().any(|what| self.world.troubles.met(*what, now, now));
        let most = if down { 400 } else { 20 << attempt.min(4) };
        sleep(Duration::from_millis(self.ways.within(1, most) as u64)).await;
    }
}

fn gzip(body: &[u8]) -> Bytes {
    use std::io::Write as _;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).expect("memory");
    encoder.finish().expect("memory").into()
}

/// Attempts before a turn counts as never answered.
const MOST_ATTEMPTS: usize = 25;
/// More than any side is down for.
const LONGEST_TURN: Duration = Duration::from_secs(300);
/// Bytes of items from which a conversation comes to its end.
const LARGEST_CHAT: usize = 300_000;
