//! Plays the cells that the simulated provider brings about: one conversation of its own per moment and form, its first
//! turn struck and then a turn that continues it, beside a neighbour; and what all of them see afterwards.

use futures_util::StreamExt;
use tailwire::sim::ledger::{Book, Record};
use tailwire::sim::{Fault, Mishap, Moment, Transport};

use crate::matrix::elsewhere;
use crate::matrix::table::{Family, MOMENTS, Outcome, Row, Seen, Socket, Strike, Turns};
use crate::support::{Agent, Answer, Width, World, until};

/// Worlds at once: enough that waits overlap, few enough that nothing is late for being crowded.
const WORLDS: usize = 6;

/// Plays a family's every cell. The cells of a row share a world, one after the other; those that wait, and those that
/// leave a proxy changed, have one each.
pub(crate) async fn family(family: &Family, width: Width) {
    let mut apart = Vec::new();
    for row in &family.rows {
        let scenes = scenes(row, width);
        if row.apart {
            apart.extend(scenes);
            continue;
        }
        let world = World::start(width, row.tune).await;
        for scene in scenes {
            scene.play(&world).await;
        }
        world.assert_lawful();
    }
    let played = apart.into_iter().map(|scene| async move { scene.play_apart().await });
    futures_util::stream::iter(played).buffer_unordered(WORLDS).collect::<Vec<()>>().await;
}

fn scenes(row: &Row, width: Width) -> Vec<Scene<'_>> {
    let mut scenes = Vec::new();
    for moment in MOMENTS {
        let Some(outcome) = row.cell(moment).outcome(width) else { continue };
        let deltas = match row.turns {
            Turns::Both => &[false, true][..],
            Turns::Deltas(_) => &[true],
            Turns::Firsts(_) => &[false],
        };
        for stream in [false, true] {
            let scene = |deltas| Scene { row, moment, stream, width, outcome, deltas };
            // What is known of a credential's upgrades, or of a provider, must not meet the next case.
            if row.apart || moment == Moment::Upgrade {
                scenes.extend(deltas.chunks(1).map(scene));
            } else {
                scenes.push(scene(deltas));
            }
        }
    }
    scenes
}

/// A cell, for one form of reply: one conversation that is struck, at its first turn, at a later one, or at both.
struct Scene<'a> {
    row: &'a Row,
    moment: Moment,
    stream: bool,
    width: Width,
    outcome: Outcome,
    deltas: &'static [bool],
}

impl Scene<'_> {
    async fn play_apart(&self) {
        if let Strike::Provider(_) = self.row.strike {
            let world = World::start(self.width, self.row.tune).await;
            self.play(&world).await;
            world.assert_lawful();
        } else {
            elsewhere::play(self.row, self.outcome, self.stream, self.width).await;
        }
    }

    async fn play(&self, world: &World) {
        let Strike::Provider(fault) = &self.row.strike else { panic!("{}: not here", self.row.name) };
        // A credential of its own: none of the sockets that are there.
        let key = self.about(self.deltas[0]);
        let mut agent = Agent::new(&key, "agent", self.stream);
        let mut neighbour = None;
        // With one in flight it would have a socket of its own; and it would open the one that the agent is to ask for.
        if self.width == Width::Lanes && self.moment != Moment::Upgrade {
            let mut other = Agent::new(&key, "neighbour", !self.stream);
            other.turn(world, "text=2", &key).await;
            neighbour = Some(other);
        }
        if self.deltas[0] {
            agent.turn(world, "text=2", &key).await;
        }
        for delta in self.deltas {
            self.case(world, &mut agent, fault, *delta).await;
        }
        if let Some(neighbour) = &mut neighbour {
            let beside = neighbour.turn(world, "text=2", &key).await;
            let expected = if self.outcome.socket == Socket::Lost { "full; socket-" } else { "delta" };
            assert!(beside.starts_with(expected), "{key}: beside {beside}");
        }
    }

    /// One struck turn, what the client sees of it, and what it does then.
    async fn case(&self, world: &World, agent: &mut Agent, fault: &Fault, delta: bool) {
        let about = self.about(delta);
        if delta && self.moment == Moment::Upgrade {
            lose(world).await;
        }
        let before = Mark::of(world);
        let times = if self.moment == Moment::Upgrade { self.row.handshakes } else { 1 };
        let mishap = Mishap::new(self.moment, fault.clone()).times(times);
        if self.moment != Moment::Idle {
            world.sim.provider.mishap(mishap.clone());
        }
        agent.ask(if self.moment == Moment::MidArguments { "calls=1 args=16" } else { "text=4" });
        agent.instructions.push_str(&" Think again.".repeat(self.row.weight));
        let answer = agent.send(world).await;
        if self.moment == Moment::Idle {
            world.sim.provider.mishap(mishap.on_connection(last(world).connection));
        }
        let struck = |book: &Book| book.mishaps == before.mishaps + u64::from(times);
        assert!(world.sim.provider.ledger().wait(struck).await, "{about}: no mishap; {answer:?}");
        let seen = self.outcome.seen(self.stream);
        self.assert_seen(world, seen, agent, &answer, &about).await;
        assert_eq!(before.rungs(world), seen.rungs(), "{about}: the rungs; {answer:?}");
        assert_eq!(answer.plan(), seen.plan(self.moment, delta), "{about}");
        let at_rest = matches!(self.moment, Moment::AfterTerminal | Moment::Idle);
        if at_rest && self.outcome.socket == Socket::Lost {
            until(&about, || ended(world) > before.ended).await;
        }
        let mut again = String::from("-");
        if matches!(seen, Seen::Right(_)) {
            agent.take(&answer.response());
        } else {
            again = agent.finish(world, &about).await;
            assert!(again.starts_with("full"), "{about}: repeated as {again}");
            before.assert_socket(world, self.outcome.socket, &about).await;
        }
        let next = agent.turn(world, "text=2", &about).await;
        if again == "-" {
            before.assert_socket(world, self.outcome.socket, &about).await;
        }
        println!("{about:<90} {seen:?} {} | again {again} | next {next}", answer.plan());
        assert!(self.outcome.next_after(self.stream).is(&next), "{about}: the next turn is {next}");
    }

    fn about(&self, delta: bool) -> String {
        let (turn, form) = (if delta { "delta" } else { "first" }, if self.stream { "sse" } else { "json" });
        format!("{} {:?} {turn} {form} {:?}", self.row.name, self.moment, self.width)
    }

    async fn assert_seen(&self, world: &World, seen: Seen, agent: &Agent, answer: &Answer, about: &str) {
        if let Seen::Right(_) = seen {
            world.assert_right(agent, answer, about).await;
            self.assert_shown(answer, about);
            return;
        }
        let (status, code) = (answer.status, &*answer.code());
        let broken = match seen {
            Seen::Status(expected, named) => {
                assert_eq!((status, code), (expected, named), "{about}: {answer:?}");
                if let Some((name, value)) = self.row.header {
                    assert_eq!(answer.headers[name], value, "{about}");
                }
                false
            }
            Seen::Ended(ending) => {
                assert_eq!(answer.response()["status"], ending, "{about}: {answer:?}");
                false
            }
            Seen::Error(named) | Seen::Broken(named) => {
                assert_eq!((status, code), (200, named), "{about}: {answer:?}");
                matches!(seen, Seen::Broken(_))
            }
            Seen::Right(_) | Seen::Down(..) => panic!("{about}: not of the provider's doing"),
        };
        assert_eq!(answer.broken, broken, "{about}: {answer:?}");
    }

    /// An event of the fault's own: relayed to a stream that has not ended, or to nobody.
    fn assert_shown(&self, answer: &Answer, about: &str) {
        let at_rest = matches!(self.moment, Moment::AfterTerminal | Moment::Idle);
        let recovered = self.outcome.seen(self.stream).rungs() != [0, 0, 0];
        if let Some((name, shown)) = self.row.event.filter(|_| self.stream) {
            let seen = answer.events().iter().any(|event| event["type"] == name);
            assert_eq!(seen, shown && !at_rest && !recovered, "{about}: {name} in {answer:?}");
        }
    }
}

/// What was counted before a case.
struct Mark {
    mishaps: u64,
    turns: usize,
    rungs: [u64; 3],
    ended: u64,
}

impl Mark {
    fn of(world: &World) -> Self {
        let (mishaps, turns) = world.sim.provider.ledger().read(|book| (book.mishaps, book.turns.len()));
        Self { mishaps, turns, rungs: world.rungs(), ended: ended(world) }
    }

    fn rungs(&self, world: &World) -> [u64; 3] {
        let now = world.rungs();
        [0, 1, 2].map(|rung| now[rung] - self.rungs[rung])
    }

    /// What became of the struck turn's socket: the first try's against that of the last turn since.
    async fn assert_socket(&self, world: &World, expected: Socket, about: &str) {
        let turns: Vec<Record> =
            world.sim.provider.ledger().read(|book| book.turns.iter().skip(self.turns).cloned().collect());
        let tries: Vec<&Record> =
            turns.iter().filter(|record| record.transport == Transport::WebSocket).collect();
        let socket = match tries[..] {
            // The turn went over HTTP at once.
            _ if turns.first().is_none_or(|first| first.transport == Transport::Http) => Socket::None,
            [_] if expected == Socket::Lost => {
                until(about, || ended(world) > self.ended).await;
                Socket::Lost
            }
            [first, .., last] if last.connection != first.connection => Socket::Lost,
            [first, .., last] if last.stream_id != first.stream_id => Socket::LaneGone,
            _ => Socket::Kept,
        };
        assert_eq!(socket, expected, "{about}");
    }
}

/// The conversation's socket is lost while it rests.
async fn lose(world: &World) {
    let before = ended(world);
    let close = Mishap::new(Moment::Idle, Fault::Close(1000)).on_connection(last(world).connection);
    world.sim.provider.mishap(close);
    until("the socket is lost", || ended(world) > before).await;
}

/// Sockets the proxy has had and has no more.
fn ended(world: &World) -> u64 {
    world.proxy.metrics().sockets_opened.value().saturating_sub(world.proxy.sockets() as u64)
}

/// The turn the provider saw last.
fn last(world: &World) -> Record {
    world.sim.provider.ledger().read(|book| book.turns.back().cloned()).unwrap()
}
