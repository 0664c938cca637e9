//! Plays the cells that are not of the provider's doing: addresses where nobody is, and sockets that have no room for one
//! conversation or one turn more.

use futures_util::future::{Either, join_all, select};
use tailwire::sim::ledger::Book;
use tailwire::sim::script::Limits;
use tailwire::sim::{Fault, Mishap, Moment, Running, Script};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::matrix::table::{Address, Outcome, Row, Seen, Strike};
use crate::support::{Agent, Width, World, within};

/// Plays a row's one cell, for one form of reply.
pub(crate) async fn play(row: &Row, outcome: Outcome, stream: bool, width: Width) {
    let about = format!("{} {width:?}, stream: {stream}", row.name);
    match &row.strike {
        Strike::Address(address) => {
            unreachable_address(*address, row, outcome, (stream, width), &about).await
        }
        Strike::Names => one_conversation_more(outcome, (stream, width), &about).await,
        Strike::InFlight => one_turn_more(outcome, (stream, width), &about).await,
        Strike::Provider(_) => panic!("{about}: the provider's own"),
    }
}

async fn unreachable_address(
    address: Address,
    row: &Row,
    outcome: Outcome,
    (stream, width): (bool, Width),
    about: &str,
) {
    let place = Place::prepare(address).await;
    let sim = Running::start(Script::default()).await.unwrap();
    let world = World::before(sim, &place.base, width, row.tune).await;
    let mut agent = Agent::new("key", "agent", stream);
    agent.ask("text=8");
    let Seen::Down(status, code) = outcome.seen(stream) else { panic!("{about}: nobody can answer") };
    let plans = [outcome.seen(stream).plan(Moment::Upgrade, false), outcome.next_after(stream).plan()];
    for plan in plans {
        let answer = agent.send(&world).await;
        assert_eq!((answer.status, &*answer.code(), answer.plan()), (status, code, plan), "{about}");
        // The next one does not wait for a handshake first.
        assert_eq!(world.rungs(), outcome.seen(stream).rungs(), "{about}");
    }
}

/// An address, and what must live as long as it is used.
struct Place {
    base: String,
    _listener: Option<TcpListener>,
    _callers: Vec<TcpStream>,
}

impl Place {
    async fn prepare(address: Address) -> Self {
        let nobody = |base: String| Self { base, _listener: None, _callers: Vec::new() };
        match address {
            // Longer than a label may be: no resolver is asked.
            Address::NoName => nobody(format!("http://{}.invalid/v1", "x".repeat(64))),
            Address::Refused => {
                let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
                nobody(format!("http://{free}/v1"))
            }
            Address::MuteTls => {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let base = format!("https://{}/v1", listener.local_addr().unwrap());
                Self { base, _listener: Some(listener), _callers: Vec::new() }
            }
            Address::Full => {
                let socket = TcpSocket::new_v4().unwrap();
                socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
                let listener = socket.listen(1).unwrap();
                let addr = listener.local_addr().unwrap();
                // A backlog of one holds two; nobody takes them out.
                let callers =
                    [TcpStream::connect(addr).await.unwrap(), TcpStream::connect(addr).await.unwrap()];
                Self {
                    base: format!("http://{addr}/v1"),
                    _listener: Some(listener),
                    _callers: callers.into(),
                }
            }
        }
    }
}

async fn one_conversation_more(outcome: Outcome, (stream, width): (bool, Width), about: &str) {
    let names = if width == Width::Lanes { Limits::default().lanes.unwrap() } else { 1 };
    let world = World::start(width, |_| {}).await;
    let mut others = Vec::new();
    for _ in 0..names {
        let mut other = Agent::new("key", "other", stream);
        other.instructions = format!("Conversation {}.", others.len());
        other.turn(&world, "text=2", about).await;
        others.push(other);
    }
    assert_eq!(sockets_opened(&world), 1, "{about}");
    one_more(&world, outcome, stream, about).await;
    assert_eq!(others[0].turn(&world, "text=2", about).await, "delta", "{about}: nobody lost a lane");
}

async fn one_turn_more(outcome: Outcome, (stream, width): (bool, Width), about: &str) {
    let in_flight = if width == Width::Lanes { Limits::default().in_flight } else { 1 };
    let world = World::start(width, |_| {}).await;
    let held = u32::try_from(in_flight).unwrap();
    world.sim.provider.mishap(Mishap::new(Moment::AfterCreated, Fault::Silence).times(held));
    let others = (0..in_flight).map(|number| {
        let mut other = Agent::new("key", "other", stream);
        other.instructions = format!("Conversation {number}.");
        other.ask("text=2");
        let world = &world;
        async move { other.send(world).await }
    });
    let more = async {
        let begun = |book: &Book| book.turns.iter().filter(|turn| turn.response.is_some()).count();
        assert!(world.sim.provider.ledger().wait(|book| begun(book) == in_flight).await, "{about}");
        assert_eq!(sockets_opened(&world), 1, "{about}");
        one_more(&world, outcome, stream, about).await;
    };
    // The others are never answered; they end with the world.
    match within(about, select(Box::pin(more), Box::pin(join_all(others)))).await {
        Either::Left(_) => {}
        Either::Right(_) => panic!("{about}: the others were to stay in flight"),
    }
}

/// The turn for which there is no room: another socket is its place, at once.
async fn one_more(world: &World, outcome: Outcome, stream: bool, about: &str) {
    let mut agent = Agent::new("key", "agent", stream);
    let plan = agent.turn(world, "text=8", about).await;
    assert_eq!(plan, outcome.seen(stream).plan(Moment::Upgrade, false), "{about}");
    assert_eq!(world.rungs(), outcome.seen(stream).rungs(), "{about}");
    assert_eq!(sockets_opened(world), 2, "{about}");
    assert_eq!(agent.turn(world, "text=8", about).await, outcome.next_after(stream).plan(), "{about}");
    world.assert_lawful();
}

fn sockets_opened(world: &World) -> u64 {
    world.sim.provider.ledger().read(|book| book.upgrades_granted)
}
