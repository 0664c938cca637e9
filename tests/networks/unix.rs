//! Clients over a unix socket: served as over a port, by a file that is the owner's alone, is made anew after a crash, never
//! taken from somebody else, and gone at the end.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tailwire::app;
use tailwire::config::{Listen, Secret, Settings};
use tailwire::downstream::listener::Listener;
use tailwire::sim::{self, Script};
use tokio::net::UnixStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::authority::Folder;
use crate::trust::program;
use crate::world::settings_for;

fn settings(upstream: &str, path: &Path) -> Settings {
    Settings { listen: Listen::Unix(path.to_owned()), ..settings_for(upstream) }
}

fn request(method: &str, target: &str, body: &Value) -> Request<Full<Bytes>> {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    Request::builder()
        .method(method)
        .uri(target)
        .header("host", "localhost")
        .header("authorization", "Bearer sk-planted-a")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))
        .unwrap()
}

async fn send(path: &Path, request: Request<Full<Bytes>>) -> (StatusCode, String, Bytes) {
    let stream = UnixStream::connect(path).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    read(sender.send_request(request).await.unwrap()).await
}

async fn read(response: Response<hyper::body::Incoming>) -> (StatusCode, String, Bytes) {
    let plan = response.headers().get("x-tailwire").map_or("", |value| value.to_str().unwrap()).to_owned();
    let status = response.status();
    (status, plan, response.into_body().collect().await.unwrap().to_bytes())
}

#[tokio::test]
async fn everything_works_over_a_unix_socket() {
    let sim = sim::Running::start(Script::default()).await.unwrap();
    let folder = Folder::new();
    let path = folder.0.join("tailwire.sock");
    let proxy = app::Running::start(settings(&sim.base_url(), &path)).await.unwrap();
    assert_eq!(proxy.base_url(), format!("unix:{}", path.display()));
    let kind = std::fs::symlink_metadata(&path).unwrap();
    assert!(kind.file_type().is_socket());
    assert_eq!(kind.permissions().mode() & 0o777, 0o600);

    let first = json!({"model": "gpt-sim", "store": false, "input": [{"role": "user", "content": "one [sim text=9]"}]});
    let (status, plan, body) = send(&path, request("POST", "/v1/responses", &first)).await;
    assert_eq!(status, 200);
    assert!(plan.starts_with("plan=full"), "{plan}");
    let answer: Value = serde_json::from_slice(&body).unwrap();
    let mut next = first.clone();
    let input = next["input"].as_array_mut().unwrap();
    input.extend(answer["output"].as_array().unwrap().iter().cloned());
    input.push(json!({"role": "user", "content": "two [sim text=9]"}));
    next["stream"] = json!(true);
    let (status, plan, body) = send(&path, request("POST", "/v1/responses", &next)).await;
    assert_eq!(status, 200);
    assert!(plan.starts_with("plan=delta"), "{plan}");
    assert!(String::from_utf8_lossy(&body).contains("event: response.completed"));
    assert_eq!(send(&path, request("GET", "/v1/models", &Value::Null)).await.0, 200);

    // HTTP/2 with prior knowledge.
    let stream = TokioIo::new(UnixStream::connect(&path).await.unwrap());
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let mut second = request("POST", "/v1/responses", &first);
    *second.uri_mut() = "http://localhost/v1/responses".parse().unwrap();
    second.headers_mut().remove("host");
    assert_eq!(read(sender.send_request(second).await.unwrap()).await.0, 200);
    drop(sender);

    // A socket of the client's own.
    let mut asked = "ws://localhost/v1/responses".into_client_request().unwrap();
    asked.headers_mut().insert("authorization", "Bearer sk-planted-a".parse().unwrap());
    let (mut socket, _) = client_async(asked, UnixStream::connect(&path).await.unwrap()).await.unwrap();
    let frame = json!({"type": "response.create", "model": "gpt-sim", "input": "hello [sim text=9]"});
    socket.send(Message::text(frame.to_string())).await.unwrap();
    let event: Value =
        serde_json::from_str(socket.next().await.unwrap().unwrap().to_text().unwrap()).unwrap();
    assert_eq!(event["type"], "response.created");
    socket.close(None).await.unwrap();
    drop(socket);

    proxy.stop().await;
    assert!(!path.exists(), "its file goes with it");
    sim.provider.ledger().read(|book| assert_eq!(book.violations, []));
}

/// As loopback is: an upstream key without client keys, behind the guard against foreign pages.
#[tokio::test]
async fn a_unix_socket_is_trusted_as_loopback_is() {
    let sim = sim::Running::start(Script::default()).await.unwrap();
    let folder = Folder::new();
    let path = folder.0.join("s");
    let mut settings = settings(&sim.base_url(), &path);
    settings.upstream_key = Some(Secret::upstream("sk-planted-upstream").unwrap());
    settings.listen_mode = 0o660;
    let proxy = app::Running::start(settings).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    assert_eq!(send(&path, request("GET", "/v1/models", &Value::Null)).await.0, 200);
    let mut foreign = request("GET", "/v1/models", &Value::Null);
    foreign.headers_mut().insert("host", "elsewhere.test".parse().unwrap());
    assert_eq!(send(&path, foreign).await.0, 403);
    proxy.stop().await;
}

#[tokio::test]
async fn a_file_left_behind_is_replaced_and_nothing_else_is() {
    let folder = Folder::new();
    let path = folder.0.join("s");
    // Left behind: std's listener does not remove its file.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let first = Listener::bind_file(&path, 0o600).await.unwrap();
    let error = Listener::bind_file(&path, 0o600).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains("somebody listens there already"), "{error}");
    UnixStream::connect(&path).await.expect("the first is unharmed");
    // What came into its place is not its to remove.
    std::fs::remove_file(&path).unwrap();
    let second = Listener::bind_file(&path, 0o600).await.unwrap();
    drop(first);
    UnixStream::connect(&path).await.expect("the second is unharmed");
    drop(second);
    assert!(!path.exists());

    let file = folder.write("file", "precious");
    let error = Listener::bind_file(&file, 0o600).await.unwrap_err();
    assert!(error.to_string().contains("is no socket"), "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    let link = folder.0.join("link");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    assert!(Listener::bind_file(&link, 0o600).await.is_err());
    assert!(link.is_symlink() && file.exists());
    assert!(Listener::bind_file(&folder.0.join("missing/s"), 0o600).await.is_err());
}

#[tokio::test]
async fn the_program_says_where_it_listens_and_takes_its_file_away() {
    let sim = sim::Running::start(Script::default()).await.unwrap();
    let folder = Folder::new();
    let path = folder.0.join("tailwire.sock");
    let listen = format!("unix:{}", path.display());
    let (mut running, line) = program(&["--listen", &listen, "--upstream", &sim.base_url()], &[]);
    assert_eq!(line, format!("tailwire listening on {listen} -> {}", sim.base_url()));
    assert_eq!(send(&path, request("GET", "/v1/models", &Value::Null)).await.0, 200);
    running.end();
    assert!(!path.exists());
}
