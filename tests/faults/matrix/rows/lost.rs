//! Connections that end: by a reset, without a word, and with each close code.

use tailwire::sim::{Fault, Moment};

use crate::matrix::table::{
    AT_REST, Cell, Family, NEW, Next, Outcome, REFUSED, Row, Rung, Seen, Socket, broken, lost,
};

pub(crate) fn losses() -> Family {
    const LOST: &str = "tailwire_socket_lost";
    const SPOKEN: Cell = Cell::Never("close codes are spoken on open sockets");
    let twice = |name: &str, fault| Row { handshakes: 2, ..Row::new(name, fault, lost(REFUSED, LOST)) };
    let mut rows = vec![
        twice("reset", Fault::Reset),
        twice("close 1006: the connection ends without a close frame", Fault::HangUp),
    ];
    for code in [1000, 1001, 1011, 1012, 1013] {
        rows.push(Row::new(format!("close {code}"), Fault::Close(code), lost(SPOKEN, LOST)));
    }
    let large = Seen::Right(Rung::Http("too-large"));
    let size = move |moment| match moment {
        Moment::Upgrade => SPOKEN,
        // It is about the frame just sent, whose size is learned: the conversation does not shrink.
        Moment::AfterSend => {
            Cell::Played(Outcome::new(large, large, Socket::Lost).next(Next::Http("too-large")))
        }
        Moment::AfterTerminal | Moment::Idle => AT_REST,
        // The frame was taken: a loss like any other.
        _ => broken(LOST),
    };
    // Larger than any frame the socket has taken, and than what every provider takes, or it cannot be the frame.
    rows.push(Row { weight: 1_500, ..Row::new("close 1009", Fault::Close(1009), size).apart() });
    Family { title: "Lost connections", rows }
}

pub(crate) fn age() -> Family {
    use serde_json::json;
    const CODE: &str = "websocket_connection_limit_reached";
    let error = json!({ "type": "error", "status": 400, "error": { "type": "invalid_request_error", "code": CODE,
        "message": "Responses websocket connection limit reached (60 minutes)." } });
    const UNHEARD: Cell = Cell::Played(Outcome::new(NEW, NEW, Socket::Lost));
    const TOLD: Outcome = Outcome::new(NEW, Seen::Error(CODE), Socket::Lost);
    const NEVER: Cell = Cell::Never("a socket that is not open has no age");
    let to_the_turn = |moment| match moment {
        Moment::Upgrade => NEVER,
        Moment::AfterSend => UNHEARD,
        Moment::AfterTerminal | Moment::Idle => AT_REST,
        _ => Cell::Played(TOLD),
    };
    let to_nobody = move |moment| match moment {
        // Several turns may be under way: those go on to their end. With one in flight it can mean no other.
        Moment::AfterCreated | Moment::MidText | Moment::MidArguments | Moment::AfterLastDelta => {
            let goes_on = Outcome::new(Seen::Right(Rung::None), Seen::Right(Rung::None), Socket::Lost);
            Cell::ByWidth(goes_on.next(Next::Full("socket-lost")), TOLD)
        }
        _ => to_the_turn(moment),
    };
    let rows = vec![
        Row::new("age limit, told to the turn", Fault::Error(error.clone()), to_the_turn),
        Row::new("age limit, told to nobody; the turn goes on", Fault::Garbage(error.to_string()), to_nobody),
    ];
    Family { title: "The age limit, idle and in flight", rows }
}
