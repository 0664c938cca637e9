//! Clients that leave before their answer is complete: in every phase of a turn, alone and beside others, however they
//! go. Generation stops where nobody else listens, and goes on only as long as somebody does. Whatever becomes of the
//! turn, its conversation and its neighbours' continue from a right context, and nothing of it is left behind.
//!
//! What is generated for nobody is counted by the provider, in tokens; no clock is asked.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::Request;
use hyper::body::Frame;
use tailwire::config::Settings;
use tailwire::sim::ledger::{Book, Outcome};
use tailwire::sim::rules::Ending;
use tailwire::sim::script::NotFound;
use tailwire::sim::{self, Fault, Mishap, Moment, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::support::{
    Agent, Answer, Version, Width, World, exchange, ms, open, request, script, until, within,
};
use crate::wire::Wire;

/// How far the turn had come when its client left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Uploading,
    WaitingForASocket,
    BeforeTheFirstEvent,
    AfterCreated,
    MidText,
    MidArguments,
    AfterTheLastDelta,
    /// The provider is done, and the client has not read it.
    AfterTheTerminal,
    /// A delta was not found; the whole history is under way on the same socket.
    RungSame,
    /// The socket was lost; the whole history is under way on a new one.
    RungNew,
    /// Over plain HTTP.
    Fallback,
}

/// Who else is on the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Company {
    Alone,
    /// Somebody who reads on.
    Reader,
    /// Somebody who has left as well.
    Leaver,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// HTTP/1.1: the connection is closed.
    Close,
    /// HTTP/1.1: the client says that it will say no more. To hyper, as to most servers, that is a client that left.
    HalfClose,
    /// HTTP/2: the stream is reset; its connection stays.
    Reset,
}

#[derive(Clone, Copy, Debug)]
struct Cell {
    phase: Phase,
    company: Company,
    width: Width,
    way: Way,
    stream: bool,
}

impl Cell {
    fn all(phase: Phase) -> Vec<Self> {
        let mut cells = Vec::new();
        for company in [Company::Alone, Company::Reader, Company::Leaver] {
            for width in [Width::Lanes, Width::Single] {
                for way in [Way::Close, Way::HalfClose, Way::Reset] {
                    for stream in [true, false] {
                        // Half a close differs to the listener alone; without lanes the others are on sockets of their own.
                        let same = way == Way::HalfClose
                            || (width == Width::Single && stream != (way == Way::Close));
                        if same && company != Company::Alone {
                            continue;
                        }
                        cells.push(Self { phase, company, width, way, stream });
                    }
                }
            }
        }
        cells
    }

    /// The last event waits for its reader inside the proxy: more than an HTTP/2 window takes.
    fn is_unread(self) -> bool {
        self.phase == Phase::AfterTheTerminal && self.way == Way::Reset && self.stream
    }

    /// The provider is at work for the turn, on a socket that somebody else listens on.
    fn is_shared(self) -> bool {
        let elsewhere =
            [Phase::Uploading, Phase::WaitingForASocket, Phase::AfterTheTerminal, Phase::Fallback];
        self.company == Company::Reader && self.width == Width::Lanes && !elsewhere.contains(&self.phase)
    }

    /// What the leaver asks for.
    fn wish(self) -> &'static str {
        match self.phase {
            Phase::MidArguments => "calls=1 args=40000",
            Phase::AfterTheLastDelta => "text=20",
            Phase::AfterTheTerminal if self.is_unread() => "text=12000",
            Phase::AfterTheTerminal => "text=20",
            _ => "text=40000",
        }
    }
}

/// Tokens per second. Whoever is read for a little longer than he should be shows it in tokens.
const PACE: f64 = 50.0;
/// Tokens generated until a leaving was noticed on both sides; on an idle machine one or two.
const NOTICED: u64 = 500;
/// What the reading neighbour asks for, and the tokens of that.
const NEIGHBOURLY: (&str, u64) = ("text=160", 40);

/// A client with one request out, which leaves as its cell says.
enum Client {
    Http1(TcpStream),
    Http2 { reading: JoinHandle<()>, first: Arc<Notify> },
}

impl Client {
    async fn send(world: &World, cell: Cell, agent: &Agent) -> Self {
        let body = agent.body().to_string();
        // Half of it, and the rest never.
        let uploaded = if cell.phase == Phase::Uploading { body.len() / 2 } else { body.len() };
        let addr = world.proxy.addr;
        let mut post = request(addr, &agent.key, &agent.body()).map(drop);
        post.headers_mut().insert("content-length", body.len().into());
        if cell.phase == Phase::Fallback {
            post.headers_mut().insert("x-tailwire-mode", "http".parse().unwrap());
        }
        if cell.way == Way::Reset {
            return Self::http2(world, cell, post.map(|()| body[..uploaded].to_owned())).await;
        }
        let mut head = format!("POST {} HTTP/1.1\r\n", post.uri().path());
        for (name, value) in post.headers() {
            head += &format!("{name}: {}\r\n", value.to_str().unwrap());
        }
        let mut socket = TcpStream::connect(addr).await.unwrap();
        socket.write_all(format!("{head}\r\n{}", &body[..uploaded]).as_bytes()).await.unwrap();
        Self::Http1(socket)
    }

    async fn http2(world: &World, cell: Cell, post: Request<String>) -> Self {
        let whole = cell.phase != Phase::Uploading;
        let post = post.map(|text| {
            let first = stream::once(async { Ok::<_, Infallible>(Frame::data(Bytes::from(text))) });
            let rest = if whole { stream::empty().left_stream() } else { stream::pending().right_stream() };
            StreamBody::new(first.chain(rest).boxed())
        });
        let socket = TcpStream::connect(world.proxy.addr).await.unwrap();
        let (response, connection) = exchange(Version::H2c, socket, post).await;
        let first = Arc::new(Notify::new());
        let seen = first.clone();
        let reading = tokio::spawn(async move {
            // The connection outlives the stream, as it does at a client that goes on.
            let _connection = connection;
            let mut response = response.await.unwrap();
            response.body_mut().frame().await.unwrap().unwrap();
            seen.notify_one();
            while !cell.is_unread() && response.body_mut().frame().await.is_some() {}
            pending::<()>().await;
        });
        Self::Http2 { reading, first }
    }

    /// Waits for the first piece of the answer.
    async fn hear(&mut self) {
        match self {
            Self::Http1(socket) => {
                let mut heard = Vec::new();
                while !heard.windows(7).any(|window| window == b"created") {
                    assert!(within("the first event", socket.read_buf(&mut heard)).await.unwrap() > 0);
                }
            }
            Self::Http2 { first, .. } => within("the first event", first.notified()).await,
        }
    }

    async fn leave(self, way: Way) {
        match self {
            Self::Http2 { reading, .. } => {
                reading.abort();
                assert!(reading.await.is_err_and(|error| error.is_cancelled()), "it had ended before");
            }
            Self::Http1(socket) if way == Way::Close => drop(socket),
            Self::Http1(mut socket) => {
                socket.shutdown().await.unwrap();
                let mut rest = Vec::new();
                // Ended by the other side, in order or by a reset.
                let _ = within("the other half's end", socket.read_to_end(&mut rest)).await;
            }
        }
    }
}

/// One cell's world, and who is in it.
struct Scene {
    cell: Cell,
    about: String,
    world: World,
    wire: Wire,
    leaver: Agent,
}

impl Scene {
    async fn start(cell: Cell) -> Self {
        let sim = sim::Running::start(script(cell.width)).await.unwrap();
        let wire = Wire::before(sim.addr).await;
        let tune = |settings: &mut Settings| {
            // Where nobody else listens there is none: that generation stops at once is not the grace's doing.
            let grace = if cell.is_shared() { ms(100) } else { ms(3_600_000) };
            settings.timeouts.abandon_grace = grace;
            // An answer that waits for its reader must not keep others off the socket.
            settings.limits.lag = settings.limits.turn_buffer;
        };
        let world = World::before(sim, &wire.base_url(), cell.width, tune).await;
        let leaver = Agent::new("key", "leaver", cell.stream);
        Self { cell, about: format!("{cell:?}"), world, wire, leaver }
    }

    fn know<T>(&self, look: impl FnOnce(&Book) -> T) -> T {
        self.world.sim.provider.ledger().read(look)
    }

    async fn wait(&self, what: &str, condition: impl Fn(&Book) -> bool) {
        assert!(self.world.sim.provider.ledger().wait(condition).await, "{}: {what}", self.about);
    }

    fn pace(&self, speed: f64) {
        self.world.sim.provider.script(|script| script.speed = speed);
    }

    /// What goes wrong, so that the leaver's turn stands still in its phase.
    fn obstruct(&self) -> u64 {
        let still = |moment| Mishap::new(moment, Fault::Silence);
        let mishaps = match self.cell.phase {
            Phase::BeforeTheFirstEvent => vec![still(Moment::AfterSend)],
            Phase::AfterCreated => vec![still(Moment::AfterCreated)],
            Phase::AfterTheLastDelta => vec![still(Moment::AfterLastDelta)],
            Phase::RungSame => vec![
                Mishap::new(Moment::AfterSend, Fault::NotFound(NotFound::Nested)).continued(true),
                still(Moment::AfterSend).continued(false),
            ],
            Phase::RungNew => vec![
                Mishap::new(Moment::AfterSend, Fault::Reset).continued(true),
                still(Moment::AfterSend).continued(false),
            ],
            _ => vec![],
        };
        let count = mishaps.len() as u64;
        mishaps.into_iter().for_each(|mishap| self.world.sim.provider.mishap(mishap));
        count
    }

    /// The leaver's turn, in its phase; and its record at the provider, if it has one.
    async fn reach(&self) -> (Client, Option<usize>) {
        let (phase, proxy) = (self.cell.phase, &self.world.proxy);
        let known = self.know(|book| book.turns.len());
        let mishaps = self.obstruct();
        if !self.cell.is_unread() {
            self.pace(PACE);
        }
        if phase == Phase::WaitingForASocket {
            self.wire.hold();
        }
        let mut leaving = self.leaver.clone();
        leaving.ask(self.cell.wish());
        let mut client = Client::send(&self.world, self.cell, &leaving).await;
        match phase {
            Phase::Uploading => {
                until(&self.about, || proxy.turns() == (1, 0)).await;
                return (client, None);
            }
            Phase::WaitingForASocket => {
                until(&self.about, || proxy.turns() == (1, 1) && self.wire.connections() == 1).await;
                return (client, None);
            }
            Phase::MidText | Phase::MidArguments | Phase::Fallback => {
                self.wait("under way", |book| book.turns.get(known).is_some_and(|turn| turn.tokens > 0))
                    .await;
            }
            Phase::AfterTheTerminal => {
                let done = Outcome::Ended(Ending::Completed);
                self.wait("done", |book| book.turns.get(known).is_some_and(|turn| turn.outcome == done))
                    .await;
                until(&self.about, || proxy.turns().1 == usize::from(self.cell.is_unread())).await;
            }
            _ => self.wait("in its phase", |book| book.mishaps == mishaps).await,
        }
        let silent = [Phase::BeforeTheFirstEvent, Phase::RungSame, Phase::RungNew].contains(&phase);
        if self.cell.stream && !silent {
            client.hear().await;
        }
        self.pace(PACE);
        (client, Some(self.know(|book| book.turns.len()) - 1))
    }

    /// Somebody else, in mid-answer; where the leaver is, if there are lanes.
    async fn join(&self, leaver: Option<usize>) -> Other {
        let mut agent = Agent::new("key", "other", true);
        agent.ask(if self.cell.company == Company::Reader { NEIGHBOURLY.0 } else { "text=40000" });
        let known = self.know(|book| book.turns.len());
        let addr = self.world.proxy.addr;
        let (response, connection) =
            open(Version::Http1, addr, request(addr, &agent.key, &agent.body())).await;
        let reading = tokio::spawn(async move {
            let _connection = Held(connection);
            Answer::read(response.await.unwrap()).await
        });
        if self.cell.phase == Phase::WaitingForASocket {
            until(&self.about, || self.world.proxy.turns() == (2, 2)).await;
            let sockets = if self.cell.width == Width::Lanes { 1 } else { 2 };
            assert_eq!(self.world.proxy.sockets(), sockets, "{}", self.about);
            return Other { agent, turn: known, reading: Some(reading) };
        }
        self.wait("the other", |book| book.turns.get(known).is_some_and(|turn| turn.tokens > 0)).await;
        let shares = self.cell.width == Width::Lanes && self.cell.phase != Phase::Fallback;
        if let Some(leaver) = leaver.filter(|_| shares) {
            let place = |turn: usize| self.know(|book| book.turns[turn].connection);
            assert_eq!(place(leaver), place(known), "{}: on one socket", self.about);
        }
        Other { agent, turn: known, reading: Some(reading) }
    }

    /// The other leaves as well, before the one whose cell this is.
    async fn depart(&self, other: &mut Other) {
        self.world.sim.provider.ledger().leave(other.turn);
        other.reading.take().unwrap().abort();
        let abandoned = &self.world.proxy.metrics().turns_abandoned;
        until(&self.about, || abandoned.value() == 1).await;
    }

    /// The other's answer is right, or was not generated for long; returns what was generated for nobody.
    async fn assert_other(&self, other: &mut Other) -> u64 {
        let waiting = self.cell.phase == Phase::WaitingForASocket;
        let Some(reading) = other.reading.take() else {
            other.agent.unask();
            return if waiting { 0 } else { self.assert_stopped(other.turn, NOTICED).await };
        };
        let answer = within("the neighbour's answer", reading).await.unwrap();
        let response = self.world.assert_right(&other.agent, &answer, &self.about).await;
        other.agent.take(&response);
        let ended = Outcome::Ended(Ending::Completed);
        self.know(|book| assert_eq!(book.turns[other.turn].outcome, ended, "{}", self.about));
        0
    }

    /// What the proxy counted, and what the provider saw of the turn at all.
    async fn assert_counted(&self, record: Option<usize>) {
        let (phase, company) = (self.cell.phase, self.cell.company);
        let no_turn =
            phase == Phase::Uploading || (phase == Phase::AfterTheTerminal && !self.cell.is_unread());
        let leavers = u64::from(!no_turn) + u64::from(company == Company::Leaver);
        let abandoned = &self.world.proxy.metrics().turns_abandoned;
        until(&format!("{}: abandoned", self.about), || abandoned.value() == leavers).await;
        if phase == Phase::WaitingForASocket {
            let turns = self.know(|book| book.turns.len());
            assert_eq!(turns, usize::from(company == Company::Reader), "{}: sent for nobody", self.about);
        }
        if phase == Phase::Fallback {
            self.know(|book| assert_eq!(book.turns[record.unwrap()].transport, Transport::Http));
        }
    }

    /// What the provider did for a client that had left.
    async fn assert_stopped(&self, turn: usize, most: u64) -> u64 {
        self.wait("generation stops", |book| book.turns[turn].outcome == Outcome::Cancelled).await;
        let wasted = self.know(|book| book.turns[turn].wasted());
        assert!(wasted <= most, "{}: {wasted} tokens for nobody", self.about);
        wasted
    }

    /// The conversation goes on: at worst one turn in full, then as if nothing had been.
    async fn go_on(&self, agent: &mut Agent) {
        let first = agent.turn(&self.world, "text=20", &self.about).await;
        assert!(first == "delta" || first.starts_with("full; "), "{}: {first}", self.about);
        assert_eq!(agent.turn(&self.world, "text=20", &self.about).await, "delta", "{}", self.about);
    }

    /// Nothing is held for anybody.
    async fn assert_clean(&self, most_sockets: usize) {
        let proxy = &self.world.proxy;
        until(&format!("{}: {:?} left", self.about, proxy.turns()), || {
            proxy.turns() == (0, 0) && proxy.buffered() == 0
        })
        .await;
        let sockets = |book: &Book| book.sockets_open <= most_sockets;
        self.wait("sockets are closed", sockets).await;
        until(&self.about, || proxy.sockets() == self.know(|book| book.sockets_open)).await;
        self.world.assert_lawful();
    }
}

/// A connection that ends with its holder.
struct Held(JoinHandle<()>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Somebody else's turn, and who reads it, if anybody does.
struct Other {
    agent: Agent,
    turn: usize,
    reading: Option<JoinHandle<Answer>>,
}

/// One cell of the table; returns what was generated for nobody.
async fn leave(cell: Cell) -> u64 {
    let mut scene = Scene::start(cell).await;
    if cell.phase != Phase::WaitingForASocket {
        let about = scene.about.clone();
        scene.leaver.turn(&scene.world, "text=20", &about).await;
    }
    let (client, record) = scene.reach().await;
    let mut other = if cell.company == Company::Alone { None } else { Some(scene.join(record).await) };
    let rungs = scene.world.rungs();
    if let Some(other) = other.as_mut().filter(|_| cell.company == Company::Leaver) {
        scene.depart(other).await;
    }
    let (proxy, ledger) = (&scene.world.proxy, scene.world.sim.provider.ledger());
    record.into_iter().for_each(|record| ledger.leave(record));
    client.leave(cell.way).await;
    let served = usize::from(cell.company == Company::Reader);
    until(&format!("{}: its place is free", scene.about), || proxy.turns().0 <= served).await;
    scene.wire.release();

    let over = record.filter(|_| cell.phase != Phase::AfterTheTerminal);
    let mut wasted = 0;
    if let Some(record) = over.filter(|_| !cell.is_shared()) {
        wasted = scene.assert_stopped(record, NOTICED).await;
    }
    let mut agents = vec![scene.leaver.clone()];
    if let Some(mut other) = other {
        wasted += scene.assert_other(&mut other).await;
        agents.push(other.agent);
    }
    // The socket is closed with the last turn that is listened to, and the abandoned one with it.
    if let Some(record) = over.filter(|_| cell.is_shared()) {
        wasted = scene.assert_stopped(record, NEIGHBOURLY.1 + NOTICED).await;
    }
    scene.assert_counted(record).await;

    scene.pace(0.0);
    for agent in &mut agents {
        scene.go_on(agent).await;
    }
    assert_eq!(scene.world.rungs(), rungs, "{}: nothing more had to be repeated", scene.about);
    // Without lanes, an answer that nobody read keeps its socket as any idle head does.
    let unseen = usize::from(cell.phase == Phase::AfterTheTerminal && !cell.is_unread());
    scene.assert_clean(if cell.width == Width::Lanes { 1 } else { agents.len() + unseen }).await;
    wasted
}

/// Every cell of a phase, a few at a time: they mostly wait.
async fn leave_in(phase: Phase) {
    let cells = Cell::all(phase);
    let count = cells.len();
    let runs =
        stream::iter(cells).map(|cell| async move { (cell, tokio::spawn(leave(cell)).await.unwrap()) });
    let wasted: Vec<(Cell, u64)> = runs.buffer_unordered(4).collect().await;
    let worst = wasted.iter().max_by_key(|(_, wasted)| *wasted).unwrap();
    println!("{phase:?}: {count} cells, at most {} tokens for nobody ({:?})", worst.1, worst.0);
}

macro_rules! phases {
    ($($name:ident: $phase:ident;)+) => {
        $(#[tokio::test]
        async fn $name() {
            leave_in(Phase::$phase).await;
        })+
    };
}

phases! {
    a_client_that_leaves_while_uploading: Uploading;
    a_client_that_leaves_while_waiting_for_a_socket: WaitingForASocket;
    f62_a_client_that_leaves_before_the_first_event: BeforeTheFirstEvent;
    a_client_that_leaves_after_created: AfterCreated;
    f60_a_client_that_leaves_mid_text: MidText;
    a_client_that_leaves_mid_arguments: MidArguments;
    a_client_that_leaves_after_the_last_delta: AfterTheLastDelta;
    f61_a_client_that_leaves_after_the_last_event: AfterTheTerminal;
    a_client_that_leaves_while_the_same_socket_is_tried_again: RungSame;
    a_client_that_leaves_while_a_new_socket_is_tried: RungNew;
    a_client_that_leaves_while_http_answers: Fallback;
}

/// A neighbour in mid-answer, and somebody on the same socket who leaves.
async fn with_a_neighbour(world: &World, wish: &str) -> (Agent, JoinHandle<Answer>, Agent) {
    let mut leaver = Agent::new("key", "leaver", true);
    leaver.turn(world, "text=20", "before").await;
    world.sim.provider.script(|script| script.speed = 100.0);
    let mut neighbour = Agent::new("key", "neighbour", true);
    neighbour.ask("text=4000");
    let addr = world.proxy.addr;
    let (response, _) = open(Version::Http1, addr, request(addr, &neighbour.key, &neighbour.body())).await;
    let reading = tokio::spawn(async { Answer::read(response.await.unwrap()).await });
    let ledger = world.sim.provider.ledger();
    assert!(ledger.wait(|book| book.turns.len() == 2 && book.turns[1].tokens > 0).await);
    let mut leaving = leaver.clone();
    leaving.ask(wish);
    let cell = Cell {
        phase: Phase::MidText,
        company: Company::Reader,
        width: Width::Lanes,
        way: Way::Close,
        stream: true,
    };
    let mut client = Client::send(world, cell, &leaving).await;
    client.hear().await;
    assert!(ledger.wait(|book| book.turns.len() == 3 && book.turns[2].tokens > 0).await);
    client.leave(Way::Close).await;
    (neighbour, reading, leaver)
}

async fn assert_complete(world: &World, neighbour: &mut Agent, reading: JoinHandle<Answer>) {
    let answer = within("the neighbour's answer", reading).await.unwrap();
    let response = world.assert_right(neighbour, &answer, "the neighbour").await;
    neighbour.take(&response);
}

#[tokio::test]
async fn beside_a_neighbour_the_socket_is_given_up_after_the_grace() {
    let world = World::start(Width::Lanes, |settings| settings.timeouts.abandon_grace = ms(100)).await;
    let (mut neighbour, reading, mut leaver) = with_a_neighbour(&world, "text=400000").await;
    let ledger = world.sim.provider.ledger();
    // Newcomers find no place on that socket once the grace is over.
    let mut newcomers = 0;
    while ledger.read(|book| book.upgrades_granted) == 1 {
        newcomers += 1;
        assert!(newcomers < 25, "the socket still takes new turns");
        Agent::new("key", "newcomer", false).turn(&world, "text=4", "newcomer").await;
    }
    ledger.read(|book| {
        assert_eq!((book.turns[1].outcome, book.turns[2].outcome), (Outcome::Running, Outcome::Running))
    });
    world.sim.provider.script(|script| script.speed = 0.0);
    assert_complete(&world, &mut neighbour, reading).await;
    let gone = |book: &Book| book.sockets_open == 1 && book.turns[2].outcome == Outcome::Cancelled;
    assert!(ledger.wait(gone).await);
    assert!(ledger.read(|book| book.turns[2].tokens < 50_000));
    assert!(neighbour.turn(&world, "text=20", "neighbour").await.starts_with("full; socket-"));
    assert!(leaver.turn(&world, "text=20", "leaver").await.starts_with("full; "));
    assert_eq!(neighbour.turn(&world, "text=20", "neighbour").await, "delta");
    assert_eq!(leaver.turn(&world, "text=20", "leaver").await, "delta");
    world.assert_lawful();
}

#[tokio::test]
async fn an_abandoned_turn_that_ends_within_the_grace_costs_nobody_anything() {
    let world = World::start(Width::Lanes, |_| {}).await;
    let (mut neighbour, reading, mut leaver) = with_a_neighbour(&world, "text=400").await;
    world.sim.provider.script(|script| script.speed = 0.0);
    assert_complete(&world, &mut neighbour, reading).await;
    let ledger = world.sim.provider.ledger();
    assert!(ledger.wait(|book| matches!(book.turns[2].outcome, Outcome::Ended(_))).await);
    assert_eq!(neighbour.turn(&world, "text=20", "neighbour").await, "delta");
    assert!(leaver.turn(&world, "text=20", "leaver").await.starts_with("full; "));
    assert_eq!(leaver.turn(&world, "text=20", "leaver").await, "delta");
    ledger.read(|book| assert_eq!((book.upgrades_granted, book.sockets_open), (1, 1)));
    assert_eq!(world.proxy.buffered(), 0, "what nobody reads is not kept");
    world.assert_lawful();
}
