//! The admin listener of a running proxy: bound, served, and ended after the proxy it looks at.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::admin::{Admin, CONNECTIONS};
use crate::config::AdminListen;
use crate::downstream::listen::{self, Limits, Stage};
use crate::proxy::{Proxy, reply};

/// How long a page may take to hear that it is over.
const GOODBYE: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(super) struct AdminListener {
    /// Where; none if there is none.
    pub(super) addr: Option<SocketAddr>,
    stage: watch::Sender<Stage>,
    serving: Option<JoinHandle<u32>>,
}

impl AdminListener {
    /// Binds what the settings say and serves; `limits` are the proxy's, `stages` how far it is on its way out.
    ///
    /// # Errors
    /// The address that was asked for cannot be bound.
    pub(super) async fn start(
        proxy: &Arc<Proxy>,
        limits: Limits,
        stages: watch::Receiver<Stage>,
    ) -> io::Result<Self> {
        let (stage, own_stages) = watch::channel(Stage::Running);
        let Some(listener) = bind(proxy.settings().admin_listen).await? else {
            return Ok(Self { addr: None, stage, serving: None });
        };
        let addr = listener.local_addr()?;
        tracing::info!(%addr, "health, metrics and the dashboard");
        let admin = Admin::new(proxy.clone(), stages, addr.ip().is_loopback());
        let limits = Limits { connections: CONNECTIONS, grace: GOODBYE, ..limits };
        let handler = move |request| reply::guarded(admin.clone().handle(request));
        let serving = tokio::spawn(listen::serve(listener, handler, limits, own_stages));
        Ok(Self { addr: Some(addr), stage, serving: Some(serving) })
    }

    /// Ends it, and waits for that.
    pub(super) async fn end(self) {
        self.stage.send_replace(Stage::Draining);
        if let Some(serving) = self.serving {
            let _cut = serving.await;
        }
    }
}

async fn bind(wanted: AdminListen) -> io::Result<Option<TcpListener>> {
    match wanted {
        AdminListen::Off => Ok(None),
        AdminListen::At(addr) => TcpListener::bind(addr)
            .await
            .map(Some)
            .map_err(|error| io::Error::new(error.kind(), format!("admin_listen {addr}: {error}"))),
        AdminListen::Auto => {
            let usual = AdminListen::USUAL;
            let bound = TcpListener::bind(usual).await;
            if let Err(error) = &bound {
                tracing::warn!(addr = %usual, %error, "no health, metrics or dashboard; set admin_listen");
            }
            Ok(bound.ok())
        }
    }
}
