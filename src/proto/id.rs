//! Identities. Numbers are handed out once and never reused, so that a late message about a closed socket or an ended
//! turn can never be taken for one about its successor.

use std::fmt;

/// One client request and its response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TurnId(pub u64);

/// One upstream WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// One head of the index; larger is newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HeadId(pub u64);

/// A lane of one connection: the unnamed default one, or a named one (`stream_id`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LaneId {
    /// No `stream_id` on the wire; all there is where the provider does not multiplex.
    Default,
    /// The n-th name used on this connection.
    Named(u32),
}

impl LaneId {
    /// The `stream_id` of this lane (1–256 characters of `[A-Za-z0-9_.-]`, OpenAI's WebSocket guide, 2026-08).
    pub fn name(self) -> Option<String> {
        match self {
            Self::Default => None,
            Self::Named(n) => Some(format!("tw{n}")),
        }
    }

    /// The lane a server event's `stream_id` names; `None` for a name we never gave.
    pub fn parse(name: Option<&str>) -> Option<Self> {
        let Some(name) = name else { return Some(Self::Default) };
        let digits = name.strip_prefix("tw")?;
        let n: u32 = digits.parse().ok()?;
        (digits.len() == n.to_string().len()).then_some(Self::Named(n))
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}", self.0)
    }
}

impl fmt::Display for TurnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_name_comes_back_as_its_lane_and_nothing_else_does() {
        for lane in [LaneId::Default, LaneId::Named(0), LaneId::Named(31)] {
            assert_eq!(LaneId::parse(lane.name().as_deref()), Some(lane));
        }
        for foreign in ["", "main", "tw", "tw01", "tw-1", "xtw1"] {
            assert_eq!(LaneId::parse(Some(foreign)), None, "{foreign}");
        }
    }
}
