//! Sockets that cannot be had: upgrades refused, and addresses where nobody is.

use serde_json::json;
use tailwire::config::Settings;
use tailwire::sim::script::Upgrade;
use tailwire::sim::{Fault, Moment};

use crate::matrix::table::{
    Address, Cell, Family, HTTP, Next, Outcome, REFUSED, Row, Seen, Socket, Strike, Turns,
};
use crate::support::ms;

/// The provider's own answer to this turn, and nothing about sockets: the next turn asks again.
const ANSWERED: Cell = Cell::Played(Outcome::new(HTTP, HTTP, Socket::None).next(Next::Anew));

pub(crate) fn upgrades() -> Family {
    let at_upgrade = |cell: Cell| {
        move |moment| match moment {
            Moment::Upgrade => cell,
            _ => Cell::Never("a refused upgrade has no later moment"),
        }
    };
    let refused = |status, cell| {
        Row::new(
            format!("upgrade refused: {status}"),
            Fault::Upgrade(Upgrade::refuse(status)),
            at_upgrade(cell),
        )
    };
    let slow =
        Upgrade::Refuse { status: 429, body: json!({"error": {"code": "slow"}}), retry_after: Some(7) };
    let rows = vec![
        refused(401, ANSWERED),
        refused(403, ANSWERED),
        refused(404, REFUSED),
        refused(405, REFUSED),
        refused(426, REFUSED),
        Row::new("upgrade refused: 429 with retry-after", Fault::Upgrade(slow), at_upgrade(ANSWERED)),
        refused(500, REFUSED),
        Row { handshakes: 2, ..refused(501, REFUSED) },
        refused(503, REFUSED),
    ];
    Family { title: "Refused upgrades", rows }
}

pub(crate) fn addresses() -> Family {
    let unreachable = |status, code| {
        let seen = Seen::Down(status, code);
        Cell::Played(Outcome::new(seen, seen, Socket::None).next(Next::Again))
    };
    let row = |name: &str, address, cell: Cell| {
        let cells = move |moment| match moment {
            Moment::Upgrade => cell,
            _ => Cell::Never("an open socket needs its address no more; losing it is a row of its own"),
        };
        Row {
            strike: Strike::Address(address),
            turns: Turns::Firsts(
                "a conversation has its socket; where it lost that, it asks as a first turn does",
            ),
            ..Row::new(name, Fault::Silence, cells)
                .tuned(|settings: &mut Settings| settings.timeouts.connect = ms(500))
                .apart()
        }
    };
    let never =
        Cell::Never("a resolver that stalls is not to be had; it spends the time that the next rows spend");
    let rows = vec![
        row(
            "DNS: the name does not resolve",
            Address::NoName,
            unreachable(502, "tailwire_upstream_unreachable"),
        ),
        row("DNS: no answer in time", Address::NoName, never),
        row("connect: refused", Address::Refused, unreachable(502, "tailwire_upstream_unreachable")),
        row("connect: no answer in time", Address::Full, unreachable(504, "tailwire_upstream_timeout")),
        row("TLS: no answer in time", Address::MuteTls, unreachable(504, "tailwire_upstream_timeout")),
    ];
    Family { title: "Addresses where nobody is", rows }
}
