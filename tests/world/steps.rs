//! What can happen in a world, and how likely it is.

use std::fmt;

use proptest::prelude::*;

use crate::client::Wanted;
use crate::twist::Twist;

/// The owner's limits and the provider's, and how the provider writes.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) strict: bool,
    /// 0: one turn at a time.
    pub(crate) lanes: u32,
    pub(crate) in_flight: usize,
    pub(crate) sockets_per_account: usize,
    pub(crate) sockets: usize,
    pub(crate) frame: usize,
    pub(crate) own_socket_frame: usize,
    pub(crate) index: usize,
    /// Lane names the provider allows; none: it refuses all.
    pub(crate) provider_lanes: Option<usize>,
    /// Minutes a socket lives at the provider's.
    pub(crate) provider_age: u64,
    pub(crate) sparse: bool,
    pub(crate) empty_output: bool,
    pub(crate) future_event: bool,
    pub(crate) pretty: bool,
    /// Sockets' tasks act on the heart's wishes late.
    pub(crate) lazy: bool,
}

impl Setup {
    /// Nothing in the way.
    pub(crate) fn calm(strict: bool, lanes: u32) -> Self {
        Self {
            strict,
            lanes,
            in_flight: 16,
            sockets_per_account: 16,
            sockets: 64,
            frame: 1 << 20,
            own_socket_frame: 1 << 20,
            index: 1 << 20,
            provider_lanes: (lanes > 0).then_some(32),
            provider_age: 60,
            sparse: false,
            empty_output: false,
            future_event: false,
            pretty: false,
            lazy: false,
        }
    }
}

/// One thing that happens; every number is taken modulo what there is.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// A client asks.
    Ask(Wanted),
    /// A client sends a request again, byte for byte.
    Again(u8),
    /// A handshake ends; above 220 it fails.
    Open(u8, u8),
    /// A socket's task writes its next frame.
    Write(u8),
    /// The provider says the next few things of one turn.
    Tell(u8, u8),
    /// A turn's task reads what has come for it.
    Read(u8),
    /// Everything under way is brought to rest.
    Flow,
    /// A client goes away.
    Leave(u8),
    /// A socket is lost, in one of several ways.
    Lose(u8, u8),
    /// A turn goes wrong at the provider's, in one of several ways.
    Spoil(u8, u8),
    /// Time passes.
    Wait(u8),
    /// A reader on a socket falls behind, or catches up.
    Lag(u8, bool),
    /// A client deletes a response.
    Forget(u8),
}

/// The steps of a world; shown one to a line.
pub(crate) struct Steps(pub(crate) Vec<Step>);

impl fmt::Debug for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|step| write!(f, "\n    {step:?}"))
    }
}

pub(crate) fn setups() -> impl Strategy<Value = Setup> {
    let heart = (
        any::<bool>(),
        prop_oneof![2 => Just(0u32), 1 => Just(2), 2 => Just(4), 3 => Just(32)],
        prop_oneof![1 => Just(2usize), 3 => Just(16)],
        1..4usize,
        2..6usize,
        prop_oneof![1 => Just(3000usize), 1 => Just(9000), 6 => Just(1 << 20)],
        prop_oneof![1 => Just(1500usize), 3 => Just(1 << 20)],
        prop_oneof![1 => Just(2500usize), 1 => Just(12_000), 4 => Just(1 << 20)],
    );
    let provider = (
        prop_oneof![1 => Just(None), 1 => Just(Some(3)), 8 => Just(Some(32))],
        prop_oneof![1 => Just(20u64), 3 => Just(60)],
        [prop::bool::weighted(0.3), prop::bool::weighted(0.3), prop::bool::weighted(0.2)],
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.5),
    );
    (heart, provider).prop_map(|(heart, provider)| {
        let (strict, lanes, in_flight, sockets_per_account, sockets, frame, own_socket_frame, index) = heart;
        let (provider_lanes, provider_age, [sparse, empty_output, future_event], pretty, lazy) = provider;
        Setup {
            strict,
            lanes,
            in_flight,
            sockets_per_account,
            sockets,
            frame,
            own_socket_frame,
            index,
            provider_lanes,
            provider_age,
            sparse,
            empty_output,
            future_event,
            pretty,
            lazy,
        }
    })
}

pub(crate) fn steps() -> impl Strategy<Value = Steps> {
    let step = prop_oneof![
        30 => wanted().prop_map(Step::Ask),
        3 => any::<u8>().prop_map(Step::Again),
        6 => any::<(u8, u8)>().prop_map(|(n, how)| Step::Open(n, how)),
        14 => any::<u8>().prop_map(Step::Write),
        20 => any::<(u8, u8)>().prop_map(|(n, events)| Step::Tell(n, events)),
        8 => any::<u8>().prop_map(Step::Read),
        34 => Just(Step::Flow),
        3 => any::<u8>().prop_map(Step::Leave),
        5 => any::<(u8, u8)>().prop_map(|(n, how)| Step::Lose(n, how)),
        8 => any::<(u8, u8)>().prop_map(|(n, how)| Step::Spoil(n, how)),
        2 => any::<u8>().prop_map(Step::Wait),
        1 => any::<(u8, bool)>().prop_map(|(n, on)| Step::Lag(n, on)),
        1 => any::<u8>().prop_map(Step::Forget),
    ];
    prop::collection::vec(step, 20..90).prop_map(Steps)
}

fn wanted() -> impl Strategy<Value = Wanted> {
    let node = prop_oneof![6 => 0..2u8, 2 => any::<u8>()];
    let fresh = prop_oneof![5 => Just(None), 1 => any::<u8>().prop_map(Some)];
    let moved = prop_oneof![12 => Just(None), 1 => any::<u8>().prop_map(Some)];
    let dress = prop_oneof![3 => Just(0u8), 1 => any::<u8>()];
    let tune = prop_oneof![4 => Just(0u16), 1 => any::<u16>()];
    let anchor = prop::bool::weighted(0.06);
    let echo = prop_oneof![3 => Just(0u8), 4 => any::<u8>()];
    ((node, fresh, moved), any::<u8>(), twists(), any::<u8>(), echo, dress, tune, any::<bool>(), anchor)
        .prop_map(|((node, fresh, moved), message, twist, at, echo, dress, tune, stream, anchor)| Wanted {
            node,
            fresh,
            moved,
            message,
            twist,
            at,
            echo,
            dress,
            tune,
            stream,
            anchor,
        })
}

/// Mostly none.
fn twists() -> impl Strategy<Value = Twist> {
    use Twist::*;
    let some = [
        EditOld,
        EditSaid,
        DropReasoning,
        DropOneReasoning,
        AddReasoning,
        MoveReasoning,
        DropText,
        DropCall,
        Reorder,
        Unanswered,
        FieldOnOld,
        FieldOnSaid,
        Cut,
        Twice,
        Swap,
    ];
    prop_oneof![2 => Just(None), 1 => proptest::sample::select(some.to_vec())]
}
