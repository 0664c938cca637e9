//! Peers that say nothing, or say it slowly, or do not answer pings; and sockets that are full.

use std::time::Duration;

use tailwire::config::Settings;
use tailwire::sim::script::Trickle;
use tailwire::sim::{Fault, Moment};

use crate::matrix::table::{
    CLEAN, Cell, Family, NOTHING, Next, Outcome, REFUSED, Row, Rung, Seen, Socket, Strike, Turns, broken,
    lost,
};
use crate::support::ms;

/// Long enough for a busy machine, short enough to wait for.
const LIMIT: Duration = Duration::from_secs(1);

fn hasty(settings: &mut Settings) {
    settings.timeouts.connect = LIMIT;
    settings.timeouts.first_event = LIMIT;
    settings.timeouts.silence = LIMIT;
}

/// A turn that stops, and whose socket is given up for it.
fn silent(moment: Moment) -> Cell {
    match moment {
        Moment::Upgrade => REFUSED,
        // REST may answer at once, be it with a refusal.
        Moment::AfterSend => {
            let answered = Seen::Right(Rung::Http("recovered"));
            Cell::Played(Outcome::new(answered, answered, Socket::Lost).next(Next::Anew))
        }
        Moment::AfterTerminal | Moment::Idle => {
            Cell::Never("an idle socket is silent by nature; a dead one is found by its missing pongs")
        }
        _ => broken("tailwire_silent"),
    }
}

pub(crate) fn quiet() -> Family {
    let crawl = |bytes, piece, pause| Fault::Trickle(Trickle { bytes, piece, pause });
    let within = |moment| match moment {
        Moment::Upgrade => NOTHING,
        Moment::AfterTerminal | Moment::Idle => Cell::Never("nothing is on its way then"),
        _ => NOTHING,
    };
    let pongs = lost(Cell::Never("pings begin with the open socket"), "tailwire_socket_lost");
    let rows = vec![
        Row::new("silence", Fault::Silence, silent).tuned(hasty).apart(),
        Row::new("trickle: a byte at a time, past the limit of silence", crawl(1 << 20, 1, ms(200)), silent)
            .tuned(hasty)
            .apart(),
        Row::new("trickle: in pieces, within the limit of silence", crawl(400, 40, ms(2)), within),
        Row::new("missing pongs", Fault::IgnorePings, pongs)
            .tuned(|settings| {
                settings.timeouts.ping = ms(150);
                settings.timeouts.pong = LIMIT;
            })
            .apart(),
    ];
    Family { title: "Silence", rows }
}

pub(crate) fn full() -> Family {
    let row = |name: &str, strike, later| {
        let cells = move |moment| match moment {
            Moment::Upgrade => Cell::Played(Outcome::new(CLEAN, CLEAN, Socket::None)),
            _ => Cell::Never(later),
        };
        let turns = Turns::Firsts("a conversation that has its lane needs no other");
        Row { strike, turns, ..Row::new(name, Fault::Silence, cells).apart() }
    };
    let rows = vec![
        row(
            "one conversation more than the socket has names for (the 33rd; without lanes the 2nd)",
            Strike::Names,
            "a turn is given its lane before it is sent",
        ),
        row(
            "one turn more than may be in flight (the 17th; without lanes the 2nd)",
            Strike::InFlight,
            "a turn is given its socket before it is sent",
        ),
    ];
    Family { title: "Full sockets", rows }
}
