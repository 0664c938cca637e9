//! The real binary: exit codes and what goes to which stream. Does not start a proxy.

use std::process::{Command, Output};

fn tailwire(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tailwire"));
    command.args(arguments).env_clear().current_dir(env!("CARGO_TARGET_TMPDIR"));
    command.output().expect("cargo has built the binary")
}

#[test]
fn exit_codes_follow_sysexits() {
    for (arguments, code, complaint) in [
        (&["--help"][..], 0, ""),
        (&["--version"], 0, ""),
        (&["config"], 0, ""),
        (&["--lisen", "x"], 64, "--listen"),
        (&["serve", "--listen", "8484"], 64, "`8484` is not an address"),
        (&["--listen", "0.0.0.0:0"], 78, "allow_remote"),
        (&["--config", "/nowhere/proxy.toml"], 78, "/nowhere/proxy.toml: cannot be read"),
        (&["check", "--config", "/nowhere/proxy.toml"], 78, "cannot be read"),
    ] {
        let output = tailwire(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
        assert!(stderr.contains(complaint), "{arguments:?}: {stderr}");
        assert_eq!(output.stdout.is_empty(), code != 0, "{arguments:?}: stdout is for answers");
        assert_eq!(output.stderr.is_empty(), code == 0, "{arguments:?}: stderr is for complaints");
    }
}

#[test]
fn a_misspelt_variable_is_bad_configuration() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tailwire"));
    let output =
        command.env_clear().env("TAILWIRE_LISTNE", "x").output().expect("cargo has built the binary");
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("the nearest is `TAILWIRE_LISTEN`"));
}
