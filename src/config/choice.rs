//! The settings that are one word out of a few. Says what the words are, not what the program does about them.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

/// Where health, metrics and the dashboard are served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AdminListen {
    /// At [`Self::USUAL`] if that is free; else nowhere.
    #[default]
    Auto,
    /// There, or the program does not start.
    At(SocketAddr),
    /// Nowhere.
    Off,
}

impl AdminListen {
    /// Where people look for it.
    pub const USUAL: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8485));
}

/// An enum, and the word each variant is written as.
macro_rules! choice {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])+ $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$doc])+ $variant,)+
        }

        impl $name {
            pub(super) const WORDS: &[(&'static str, Self)] = &[$(($word, Self::$variant),)+];

            /// The word it is written as.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }
    };
}

choice! {
    /// Which provider's rules hold upstream.
    ProfileName {
        /// Chosen by the upstream's host name.
        Auto = "auto",
        /// `OpenAI`: lanes, 60 minutes of age.
        Openai = "openai",
        /// Azure's `OpenAI` service.
        Azure = "azure",
        /// xAI: 25 minutes of age.
        Xai = "xai",
        /// Any other server of the Open Responses specification.
        OpenResponses = "open-responses",
        /// The `ChatGPT` backend that Codex uses: one response in flight, `store: false` only.
        Chatgpt = "chatgpt",
    }
}

choice! {
    /// How turns travel upstream.
    Mode {
        /// Over the WebSocket where possible, else plain HTTP.
        Auto = "auto",
        /// Always plain HTTP: a pass-through proxy.
        Http = "http",
    }
}

choice! {
    /// What becomes of `POST /v1/chat/completions`.
    Chat {
        /// It travels as a turn where nothing is lost by it, else untouched.
        Translate = "translate",
        /// It passes through untouched.
        Passthrough = "passthrough",
    }
}

choice! {
    /// What a client that leaves out old reasoning items gets.
    Reasoning {
        /// The turn continues; the provider bills the kept reasoning as input.
        Keep = "keep",
        /// The turn is sent in full.
        Strict = "strict",
    }
}

choice! {
    /// What is offered to the upstream as permessage-deflate.
    Compression {
        /// Takeover on both sides while sockets are few, pooled beyond.
        Auto = "auto",
        /// No offer.
        Off = "off",
        /// A window kept on both sides: fewest bytes, about 375 KB of memory a socket.
        Takeover = "takeover",
        /// Our window starts anew with each message and is shared: about 60 KB a socket.
        Pooled = "pooled",
    }
}

choice! {
    /// How a log line looks.
    LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}
