//! A TCP proxy that delays, stalls or breaks the connections that pass through it.
//!
//! In: connections from clients. Out: the same bytes to one server and back. While the proxy is
//! stalled no bytes pass; a disconnected proxy closes every connection. When the server cannot be
//! reached, the proxy closes the client's connection.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the proxy does with the bytes it receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Every chunk is forwarded, this much later.
    Delayed(Duration),
    /// Nothing is forwarded and no connection is closed, as with an unplugged cable.
    Stalled,
    /// Every connection is closed, and new ones are closed at once.
    Disconnected,
}

impl Condition {
    /// Every chunk is forwarded at once.
    pub const HEALTHY: Self = Self::Delayed(Duration::ZERO);
}

/// A proxy in front of one server.
#[derive(Debug)]
pub struct FaultyProxy {
    address: SocketAddr,
    condition: watch::Sender<Condition>,
    accept_loop: JoinHandle<()>,
}

impl FaultyProxy {
    /// Starts a proxy to `server` (`host:port`) in the condition [`Condition::HEALTHY`].
    ///
    /// # Errors
    /// No port is free on loopback.
    pub async fn start(server: String) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (condition, watched) = watch::channel(Condition::HEALTHY);
        let accept_loop = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *watched.borrow() != Condition::Disconnected {
                    tokio::spawn(connect(client, server.clone(), watched.clone()));
                }
            }
        });
        Ok(Self {
            address,
            condition,
            accept_loop,
        })
    }

    /// The address that clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the condition, also of established connections.
    pub fn set(&self, condition: Condition) {
        self.condition.send_replace(condition);
    }
}

impl Drop for FaultyProxy {
    fn drop(&mut self) {
        self.accept_loop.abort();
        self.set(Condition::Disconnected);
    }
}

async fn connect(client: TcpStream, server: String, condition: watch::Receiver<Condition>) {
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    let (_, _) = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut disconnected = condition.clone();
    tokio::select! {
        () = forward(from_client, to_server, condition.clone()) => {}
        () = forward(from_server, to_client, condition) => {}
        _ = disconnected.wait_for(|condition| *condition == Condition::Disconnected) => {}
    }
}

async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut condition: watch::Receiver<Condition>,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let Ok(current) = condition
            .wait_for(|condition| *condition != Condition::Stalled)
            .await
            .map(|condition| *condition)
        else {
            return;
        };
        match current {
            // Bytes that were held back while the proxy was stalled are lost with the connection.
            Condition::Disconnected => return,
            Condition::Delayed(delay) if !delay.is_zero() => tokio::time::sleep(delay).await,
            _ => {}
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
