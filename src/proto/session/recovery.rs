//! The ladder: what a fault leads to, given how far the turn had come. One function, one table (decisions 4).
//!
//! delta → full, same socket → full, new socket → HTTP with the client's bytes → error. Each at most once; nothing
//! after the first byte has gone down.

use crate::proto::fault::Fault;
use crate::proto::wire::error::ErrorClass;

/// The next try, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rung {
    /// The whole history on the same socket.
    FullSame,
    /// The whole history on a new socket.
    FullNew,
    /// The client's own bytes over HTTP.
    Http,
    /// No further try: the client hears of the fault.
    Fail,
}

/// How far a turn had come when the fault struck.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// The last try continued an earlier response.
    pub delta: bool,
    /// Its frame may have reached the provider.
    pub sent: bool,
    /// An event of it has come: the provider took the frame and ran it.
    pub begun: bool,
    /// A byte has gone down to the client.
    pub relayed: bool,
    /// The turn has hosted tools that act, or names the response to continue itself: never run twice.
    pub once: bool,
    /// The turn names the response to continue itself.
    pub anchored: bool,
    /// A resend on the same socket was tried.
    pub tried_same: bool,
    /// A resend on a new socket was tried.
    pub tried_new: bool,
    /// A frame whose fate is unknown was already sent again.
    pub rerun: bool,
    /// The frame was translated from another API, which may well take what this one refuses.
    pub translated: bool,
}

/// The next rung.
pub fn next(fault: &Fault, progress: Progress) -> Rung {
    if progress.relayed {
        return Rung::Fail;
    }
    // Taken and run, perhaps with effect; whatever is said of it afterwards was not said instead of running it.
    let run = progress.begun && (progress.once || progress.rerun);
    match fault {
        Fault::Provider(error) => match error.class {
            ErrorClass::NotFound if progress.delta && !progress.tried_same => Rung::FullSame,
            // What the client named may well be found over HTTP; here it was refused before it was run.
            ErrorClass::NotFound if progress.anchored => Rung::Http,
            ErrorClass::ConnectionLimit | ErrorClass::LaneRefused | ErrorClass::Duplicate if run => {
                Rung::Fail
            }
            // Refused before it was run: safe whatever the turn does.
            ErrorClass::ConnectionLimit | ErrorClass::LaneRefused if !progress.tried_new => Rung::FullNew,
            ErrorClass::ConnectionLimit | ErrorClass::LaneRefused | ErrorClass::Duplicate => Rung::Http,
            // Refused before it was run. What the client itself sent may be in order, and if not, its own API words it.
            ErrorClass::Answer | ErrorClass::NotServed
                if progress.translated && !progress.begun && matches!(error.status, 400 | 404 | 422) =>
            {
                Rung::Http
            }
            ErrorClass::NotFound | ErrorClass::NotServed | ErrorClass::Answer => Rung::Fail,
        },
        // Not about the frame, and a repeat like any other.
        Fault::TooBig if run => Rung::Fail,
        Fault::Connect | Fault::TooBig => Rung::Http,
        // What a socket met with silence REST may answer at once, be it with a refusal (F27, F74); once, like any repeat.
        Fault::Silent if !progress.begun && !progress.once && !progress.rerun => Rung::Http,
        Fault::SocketLost(_) | Fault::Silent | Fault::Desynchronised => lost(progress),
        Fault::SlowReader | Fault::ShuttingDown => Rung::Fail,
    }
}

/// The socket went away under the turn. Not sent: no harm in trying again. Sent: once, as every SDK would itself.
fn lost(progress: Progress) -> Rung {
    if progress.sent && (progress.once || progress.rerun) {
        return Rung::Fail;
    }
    if progress.tried_new { Rung::Http } else { Rung::FullNew }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::wire::error::ProviderError;

    fn provider(class: ErrorClass) -> Fault {
        Fault::Provider(Box::new(ProviderError {
            status: 400,
            code: String::new(),
            class,
            body: String::new(),
            headers: Vec::new(),
        }))
    }

    #[test]
    fn the_table() {
        let start = Progress { delta: true, sent: true, ..Progress::default() };
        let relayed = Progress { relayed: true, ..start };
        let once = Progress { once: true, ..start };
        let unsent = Progress { sent: false, once: true, ..start };
        let rerun = Progress { rerun: true, tried_new: true, ..start };
        let translated = Progress { translated: true, ..once };
        for (fault, progress, rung) in [
            (provider(ErrorClass::NotFound), start, Rung::FullSame),
            (provider(ErrorClass::NotFound), Progress { tried_same: true, ..start }, Rung::Fail),
            (provider(ErrorClass::NotFound), Progress { delta: false, ..start }, Rung::Fail),
            (provider(ErrorClass::NotFound), Progress { delta: false, anchored: true, ..once }, Rung::Http),
            (provider(ErrorClass::ConnectionLimit), once, Rung::FullNew),
            (provider(ErrorClass::ConnectionLimit), Progress { tried_new: true, ..start }, Rung::Http),
            (provider(ErrorClass::LaneRefused), start, Rung::FullNew),
            (provider(ErrorClass::Duplicate), once, Rung::Http),
            (provider(ErrorClass::Duplicate), Progress { begun: true, ..start }, Rung::Http),
            (provider(ErrorClass::Duplicate), Progress { begun: true, ..once }, Rung::Fail),
            (provider(ErrorClass::ConnectionLimit), Progress { begun: true, ..once }, Rung::Fail),
            (provider(ErrorClass::LaneRefused), Progress { begun: true, ..start }, Rung::FullNew),
            (provider(ErrorClass::LaneRefused), Progress { begun: true, ..once }, Rung::Fail),
            (provider(ErrorClass::LaneRefused), Progress { begun: true, ..rerun }, Rung::Fail),
            (provider(ErrorClass::NotFound), Progress { begun: true, ..once }, Rung::FullSame),
            (provider(ErrorClass::NotServed), start, Rung::Fail),
            (provider(ErrorClass::NotServed), translated, Rung::Http),
            (provider(ErrorClass::Answer), translated, Rung::Http),
            (provider(ErrorClass::Answer), Progress { begun: true, ..translated }, Rung::Fail),
            (provider(ErrorClass::Answer), start, Rung::Fail),
            (Fault::Connect, once, Rung::Http),
            (Fault::TooBig, once, Rung::Http),
            (Fault::TooBig, Progress { begun: true, ..start }, Rung::Http),
            (Fault::TooBig, Progress { begun: true, ..once }, Rung::Fail),
            (Fault::TooBig, Progress { begun: true, ..rerun }, Rung::Fail),
            (Fault::SocketLost(None), start, Rung::FullNew),
            (Fault::SocketLost(Some(1006)), once, Rung::Fail),
            (Fault::SocketLost(None), unsent, Rung::FullNew),
            (Fault::SocketLost(None), rerun, Rung::Fail),
            (Fault::SocketLost(None), Progress { sent: false, ..rerun }, Rung::Http),
            (Fault::Silent, start, Rung::Http),
            (Fault::Silent, Progress { begun: true, ..start }, Rung::FullNew),
            (Fault::Silent, once, Rung::Fail),
            (Fault::Silent, rerun, Rung::Fail),
            (Fault::Desynchronised, start, Rung::FullNew),
            (Fault::SlowReader, start, Rung::Fail),
            (Fault::ShuttingDown, start, Rung::Fail),
            (Fault::SocketLost(None), relayed, Rung::Fail),
            (Fault::Connect, relayed, Rung::Fail),
        ] {
            assert_eq!(next(&fault, progress), rung, "{} {progress:?}", fault.name());
        }
    }

    #[test]
    fn the_ladder_always_ends() {
        let faults = [
            provider(ErrorClass::NotFound),
            provider(ErrorClass::ConnectionLimit),
            Fault::SocketLost(None),
            Fault::Silent,
        ];
        // Any sequence of faults, each after a frame was sent: at most three tries on the wire.
        for a in &faults {
            for b in &faults {
                for c in &faults {
                    let mut progress = Progress { delta: true, sent: true, ..Progress::default() };
                    let mut rungs = Vec::new();
                    for fault in [a, b, c] {
                        let rung = next(fault, progress);
                        rungs.push(rung);
                        progress.delta = false;
                        match rung {
                            Rung::FullSame => progress.tried_same = true,
                            Rung::FullNew => progress.tried_new = true,
                            Rung::Http | Rung::Fail => break,
                        }
                        progress.rerun |= !matches!(fault, Fault::Provider(_));
                    }
                    assert!(matches!(rungs.last(), Some(Rung::Http | Rung::Fail)), "{rungs:?}");
                }
            }
        }
    }
}
