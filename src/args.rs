//! The flags of each command, as plain structs. What they mean is for the rooms that take them.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use crate::config::{self, Settings};
use crate::proto::session::profile::Profile;

/// Flags of `serve`.
#[derive(Clone, Debug, Default, Args)]
pub struct ServeArgs {
    /// The settings file [default: the file `TAILWIRE_CONFIG` names, else tailwire/proxy.toml in ~/.config]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where clients connect [default: 127.0.0.1:8484]
    #[arg(long, value_name = "ADDR", value_parser = flag("listen"))]
    pub listen: Option<String>,
    /// Listen where other machines can reach it
    #[arg(long)]
    pub allow_remote: bool,
    /// Where health, metrics and the dashboard are, or off [default: 127.0.0.1:8485 if that is free]
    #[arg(long, value_name = "ADDR", value_parser = flag("admin_listen"))]
    pub admin: Option<String>,
    /// Have them where other machines can reach them
    #[arg(long)]
    pub admin_allow_remote: bool,
    /// The provider's base URL [default: <https://api.openai.com/v1>]
    #[arg(long, value_name = "URL", value_parser = flag("upstream"))]
    pub upstream: Option<String>,
    /// The forward proxy to the provider: environment, off or a URL (a password in it can be seen in the list of processes)
    /// [default: environment]
    // Without a parser of its own, whose error would quote it.
    #[arg(long, value_name = "URL")]
    pub proxy: Option<String>,
    /// The provider's rules: auto, openai, azure, xai, open-responses or chatgpt [default: auto]
    #[arg(long, value_name = "NAME", value_parser = flag("profile"))]
    pub profile: Option<String>,
    /// How much to log: error, warn, info, debug, trace, or directives [default: info]
    #[arg(long, value_name = "LEVEL", value_parser = flag("log.level"))]
    pub log: Option<String>,
}

/// Flags of `check`: those of `serve`, as it checks the same settings.
pub type CheckArgs = ServeArgs;

/// Flags of `sim`.
#[derive(Clone, Debug, Args)]
pub struct SimArgs {
    /// Where the simulated provider listens; port 0 picks a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8585")]
    pub listen: SocketAddr,
    /// What the provider and the way to it are like.
    #[command(flatten)]
    pub link: LinkArgs,
    /// Answer one response at a time, as providers without lanes do
    #[arg(long)]
    pub one_in_flight: bool,
}

/// Flags of `demo`.
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// How many calls the agent makes
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub calls: u32,
    /// Size of the instructions, resent with every call
    #[arg(long, value_name = "SIZE", default_value = "8KiB", value_parser = size)]
    pub instructions: usize,
    /// Size of the tool schemas, resent with every call
    #[arg(long, value_name = "SIZE", default_value = "10KiB", value_parser = size)]
    pub tools: usize,
    /// Smallest tool result
    #[arg(long, value_name = "SIZE", default_value = "1KiB", value_parser = size)]
    pub result_min: usize,
    /// Largest tool result
    #[arg(long, value_name = "SIZE", default_value = "8KiB", value_parser = size)]
    pub result_max: usize,
    /// What the provider and the way to it are like.
    #[command(flatten)]
    pub link: LinkArgs,
    /// Which REST API the agent speaks
    #[arg(long, value_enum, default_value_t = DemoApi::Responses)]
    pub api: DemoApi,
    /// Whether the proxy's socket is compressed; `both` measures it each way
    #[arg(long, value_enum, default_value_t = DemoCompression::Both)]
    pub compression: DemoCompression,
    /// Also write the figures to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Ask for one JSON body per call instead of a stream of events
    #[arg(long)]
    pub no_stream: bool,
}

/// Flags of `run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// The settings file, as for `serve`; its address is not used
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the command connects [default: a free port on 127.0.0.1]
    #[arg(long, value_name = "ADDR", value_parser = flag("listen"))]
    pub listen: Option<String>,
    /// The provider's base URL [default: the settings', else OPENAI_BASE_URL, else <https://api.openai.com/v1>]
    #[arg(long, value_name = "URL", value_parser = flag("upstream"))]
    pub upstream: Option<String>,
    /// The provider's rules, as for `serve`
    #[arg(long, value_name = "NAME", value_parser = flag("profile"))]
    pub profile: Option<String>,
    /// Where `tailwire top` and the dashboard find it, or off [default: 127.0.0.1:8485 if that is free]
    #[arg(long, value_name = "ADDR", value_parser = flag("admin_listen"))]
    pub admin: Option<String>,
    /// Append the log to this file; without it there is none
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Write the summary to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// No summary on stderr
    #[arg(long, short)]
    pub quiet: bool,
    /// What to run, with its arguments
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true)]
    pub command: Vec<OsString>,
}

/// Flags of `top`.
#[derive(Clone, Debug, Args)]
pub struct TopArgs {
    /// The admin listener of the proxy to look at
    #[arg(value_name = "ADDR", default_value = "127.0.0.1:8485")]
    pub admin: String,
    /// Print how things stand once, as text; so it is also done where stdout is no terminal
    #[arg(long)]
    pub once: bool,
}

/// Flags of `explain`.
#[derive(Clone, Debug, Args)]
pub struct ExplainArgs {
    /// The earlier request's body: of the Responses API or of Chat Completions
    #[arg(value_name = "A.json")]
    pub a: PathBuf,
    /// The later request's body
    #[arg(value_name = "B.json")]
    pub b: PathBuf,
    /// The answer to A: its JSON body, or its stream as text. Without it, what B repeats is taken for it
    #[arg(value_name = "RESPONSE")]
    pub response: Option<PathBuf>,
    /// The provider's rules: openai, azure, xai, open-responses or chatgpt
    #[arg(long, value_name = "NAME", default_value = "openai", value_parser = profile)]
    pub profile: Profile,
    /// As with `reasoning = "strict"`: all reasoning must come back
    #[arg(long)]
    pub strict: bool,
    /// Quote a few words of what differs; without it no content is printed
    #[arg(long)]
    pub show: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// A simulated way to a simulated provider.
#[derive(Clone, Debug, Args)]
pub struct LinkArgs {
    /// Round trip between proxy and provider
    #[arg(long, value_name = "TIME", default_value = "40ms", value_parser = config::parse_duration)]
    pub rtt: Duration,
    /// Speed of the way up, in bits per second
    #[arg(long, value_name = "RATE", default_value = "20Mbit/s", value_parser = config::parse_rate)]
    pub uplink: u64,
    /// How fast the model speaks; 0 is as fast as the link carries
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub tokens_per_second: u32,
}

/// Which REST API the demo's agent speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DemoApi {
    /// The Responses API.
    Responses,
    /// Chat Completions.
    Chat,
}

/// Which compression the demo measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DemoCompression {
    /// With permessage-deflate.
    On,
    /// Without.
    Off,
    /// One run each.
    Both,
}

impl ServeArgs {
    /// Merges these flags with the file and the environment.
    ///
    /// # Errors
    /// As [`config::load`].
    pub fn settings(
        &self,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Settings, config::ConfigError> {
        let admin_allow_remote = self.admin_allow_remote.then(|| String::from("true"));
        let allow_remote = self.allow_remote.then(|| String::from("true"));
        let flags: Vec<(&'static str, String)> = [
            ("listen", &self.listen),
            ("allow_remote", &allow_remote),
            ("admin_listen", &self.admin),
            ("admin_allow_remote", &admin_allow_remote),
            ("upstream", &self.upstream),
            ("proxy", &self.proxy),
            ("profile", &self.profile),
            ("log.level", &self.log),
        ]
        .into_iter()
        .filter_map(|(key, text)| text.clone().map(|text| (key, text)))
        .collect();
        config::load(self.config.as_deref(), environment, &flags)
    }
}

/// A flag that is a setting is checked by the setting's own rules.
fn flag(key: &'static str) -> impl Fn(&str) -> Result<String, String> + Clone + Send + Sync + 'static {
    move |text| config::check_flag(key, text)
}

fn profile(name: &str) -> Result<Profile, String> {
    Profile::named(name)
        .ok_or_else(|| "it is none of openai, azure, xai, open-responses and chatgpt".to_owned())
}

fn size(text: &str) -> Result<usize, String> {
    usize::try_from(config::parse_size(text)?).map_err(|error| error.to_string())
}
