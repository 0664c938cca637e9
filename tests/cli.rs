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

#[test]
fn files_that_cannot_be_used_are_bad_configuration() {
    let folder =
        std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cli-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("nothing.pem");
    std::fs::write(&file, "sk-planted").expect("a file");
    for (variables, complaint) in [
        (&["TAILWIRE_TLS_CERTIFICATE", "TAILWIRE_TLS_KEY"][..], "nothing.pem: it holds no certificate"),
        (&["TAILWIRE_TLS_KEY"], "TAILWIRE_TLS_KEY: tls_key: its certificate is missing"),
        (&["TAILWIRE_CLIENT_KEYS_FILE"], "nothing.pem line 1: a key must be 16 to 512"),
        (&["TAILWIRE_EXTRA_CA_FILES"], "nothing.pem: it holds no certificate"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tailwire"));
        command.env_clear().envs(variables.iter().map(|name| (name, &file)));
        let output = command.output().expect("cargo has built the binary");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{stderr}");
        assert!(stderr.contains(complaint) && !stderr.contains("sk-planted"), "{stderr}");
        assert!(output.stdout.is_empty());
    }
    std::fs::remove_dir_all(&folder).expect("it was there");
}
