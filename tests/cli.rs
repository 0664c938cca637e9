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
        (&["completions", "bash"], 0, ""),
        (&["man"], 0, ""),
        (&["man", "run"], 0, ""),
        (&["man", "nonsense"], 64, "`nonsense`"),
        (&["completions", "csh"], 64, "csh"),
        (&["explain", "/nowhere/a.json"], 64, "B.json"),
        (&["explain", "/nowhere/a.json", "/nowhere/b.json"], 66, "/nowhere/a.json: "),
        (&["top", "nowhere"], 69, "no address of an admin listener"),
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

#[test]
fn explain_exits_with_its_verdict() {
    let folder =
        std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cli-explain-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("a file");
        path.to_str().expect("a name of letters").to_owned()
    };
    let a = file("a.json", r#"{"model":"m","input":[{"role":"user","content":"Go"}]}"#);
    let b = file(
        "b.json",
        r#"{"model":"m","input":[{"role":"user","content":"Go"},{"role":"assistant","content":"Gone"},{"role":"user","content":"On"}]}"#,
    );
    let said = file(
        "said.json",
        r#"{"id":"r","status":"completed","output":[{"type":"message","role":"assistant","content":[{"type":"output_text","text":"Gone."}]}]}"#,
    );
    let text = file("text", "nothing");
    for (arguments, code, word) in [
        (&["explain", &a, &b][..], 0, "plan=delta; grade=exact"),
        (&["explain", &a, &b, &said], 1, "reason=echo-changed"),
        (&["explain", "--json", &b, &a], 1, r#""reason": "history-changed""#),
        (&["explain", &a, &text], 65, "text: it is not one JSON object"),
        (&["explain", &a, &b, &text], 65, "text: it is no answer"),
    ] {
        let output = tailwire(arguments);
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stdout}{stderr}");
        assert!(stdout.contains(word) || stderr.contains(word), "{arguments:?}: {stdout}{stderr}");
        assert_eq!((stdout.is_empty(), stderr.is_empty()), (code > 1, code <= 1), "{arguments:?}");
    }
    std::fs::remove_dir_all(&folder).expect("it was there");
}
