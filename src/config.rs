//! Settings: read what was written, resolve what it means.
//!
//! Defaults < `proxy.toml` < `TAILWIRE_*` variables < flags. The low form ([`file`]) is what was written and
//! where; the high form ([`Settings`]) is typed and cannot be wrong; between the two lies all validation.
//! Never watches a file, never decides what a setting does to a request.

mod choice;
mod file;
pub mod identity;
mod listen;
mod proxy;
mod secret;
mod settings;
mod values;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use self::file::Written;
pub use self::{
    choice::{AdminListen, Chat, Compression, LogFormat, Mode, ProfileName, Reasoning},
    file::Place,
    listen::Listen,
    proxy::{Proxy, ProxyChoice, ProxyKind},
    secret::{Keys, NamedKey, Secret, is_exposed},
    settings::{Limits, Log, Settings, Timeouts},
    values::{parse_duration, parse_rate, parse_size},
};

/// A setting that cannot be used: where it was written, and what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {message}")]
pub struct ConfigError {
    /// Where the offending text stands.
    pub place: Place,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// Reads and merges every source and resolves the result.
///
/// `file` is the file named on the command line; without it `TAILWIRE_CONFIG` names one, and without that
/// `tailwire/proxy.toml` in `XDG_CONFIG_HOME` (else in `.config` at home) is read if it is there. `environment` is the process's own, or a test's;
/// its proxy variables are obeyed as the setting `proxy` says, which is resolved afterwards.
/// `flags` are (key, text) pairs and win over everything.
///
/// # Errors
/// A file that cannot be read, text that is not TOML, an unknown key or variable, a value of the wrong type or
/// out of bounds, or values that contradict each other. The caller exits with 78.
pub fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    flags: &[(&'static str, String)],
) -> Result<Settings, ConfigError> {
    let mut from_environment = Written::default();
    let environment: Vec<(OsString, OsString)> = environment.into_iter().collect();
    let variable =
        |name: &str| environment.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let own = own_file(variable("HOME"), variable("XDG_CONFIG_HOME")).filter(|path| path.is_file());
    let named = from_environment.read_environment(environment.iter().cloned())?;
    let mut written = Written::default();
    if let Some(path) = file.map(Path::to_owned).or(named).or(own) {
        let text = std::fs::read_to_string(&path).map_err(|error| ConfigError {
            place: Place::File(path.clone()),
            message: format!("cannot be read: {error}"),
        })?;
        written.read_file(&path, &text)?;
    }
    written.overlay(from_environment);
    for (key, text) in flags {
        written.set(key, file::Raw::Bare(text.clone()), Place::CommandLine);
    }
    let mut settings = Settings::from_written(&written)?;
    refuse_exposed_keys(&settings, &written)?;
    if let ProxyChoice::Environment = settings.proxy {
        settings.proxy = proxy::from_environment(variable, &settings.upstream)?;
    }
    Ok(settings)
}

/// A key in a settings file that others can read is refused, as ssh refuses such a private key: what is shared by mistake
/// is noticed before it is used.
fn refuse_exposed_keys(settings: &Settings, written: &Written) -> Result<(), ConfigError> {
    let password = settings.proxy.through().is_some_and(Proxy::has_credentials);
    let keys = [
        ("client_keys", !settings.client_keys.is_empty(), "client_keys_file"),
        ("upstream_key", settings.upstream_key.is_some(), "upstream_key_file"),
        ("proxy", password, "HTTPS_PROXY in its place"),
    ];
    for (key, _, instead) in keys.into_iter().filter(|(_, is_set, _)| *is_set) {
        let place = written.place(key);
        if let Place::Line(path, _) = &place
            && is_exposed(path)
        {
            let message = format!("{key}: others can read this file; `chmod 600` it, or set {instead}");
            return Err(ConfigError { place, message });
        }
    }
    Ok(())
}

/// Checks the text of one flag by the rules of the setting `key`, so that a bad flag is bad usage (exit 64), and
/// bad configuration (78) is left for files and variables.
///
/// # Errors
/// What is wrong with the text, without the place.
pub fn check_flag(key: &'static str, text: &str) -> Result<String, String> {
    let mut written = Written::default();
    written.set(key, file::Raw::Bare(text.to_owned()), Place::CommandLine);
    Settings::resolve(&written).map(|_| text.to_owned()).map_err(|error| error.message)
}

/// Every setting with its sentence, its bounds, its variable and its default, as TOML: what `tailwire config`
/// prints and, byte for byte, the shipped `proxy.toml`.
#[must_use]
pub fn sample() -> String {
    let mut text = String::from(HEADER);
    for section in settings::sections() {
        text.push('\n');
        for line in section.doc {
            text.push_str(&comment(line));
        }
        if !section.name.is_empty() {
            text.push_str(&format!("[{}]\n", section.name));
        }
        for row in section.rows {
            text.push('\n');
            for line in row.doc {
                text.push_str(&comment(line));
            }
            text.push_str(&format!("# ({}; {})\n", (row.kind)(), row.variable()));
            text.push_str(&format!("{} = {}\n", row.name(), row.default));
        }
    }
    text
}

fn comment(doc_line: &str) -> String {
    format!("#{}\n", doc_line.trim_end())
}

/// The user's own file. Never one in the working directory: whoever wrote that could name another upstream, and would be
/// sent the keys.
fn own_file(home: Option<OsString>, config_home: Option<OsString>) -> Option<PathBuf> {
    let config = config_home.filter(|path| !path.is_empty()).map(PathBuf::from);
    let config = config.or_else(|| Some(PathBuf::from(home?).join(".config")))?;
    Some(config.join("tailwire").join("proxy.toml"))
}

const HEADER: &str = "\
# tailwire's settings: every one of them, at its default. `tailwire config` prints this file.
#
# Read from `--config FILE`, else the file TAILWIRE_CONFIG names, else `tailwire/proxy.toml` in XDG_CONFIG_HOME
# (~/.config).
# Each setting can also be given as the environment variable named beside it (lists separated by commas; an empty
# variable counts as unset). Flags win over variables, variables over this file, this file over the defaults.
# Sizes are written with B, KiB, MiB or GiB, times with ms, s, m or h.
";

#[cfg(test)]
mod tests;
