//! A TCP link that can delay, cut and fall silent.
//!
//! In: connections from a client. Out: the same bytes to a server, later, or not at all.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the link does to what goes over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Everything passes, each piece this much later.
    Delayed(Duration),
    /// Nothing passes, and nobody is told: as with a cable that is pulled out.
    Silent,
    /// Every connection is broken, and no new one lasts.
    Cut,
}

/// A link in front of a server.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    condition: Arc<watch::Sender<Condition>>,
    accepting: JoinHandle<()>,
}

impl Link {
    /// A link to `server` over which everything passes at once.
    ///
    /// # Errors
    /// No port is free.
    pub async fn to(server: String) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (condition, watched) = watch::channel(Condition::Delayed(Duration::ZERO));
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *watched.borrow() != Condition::Cut {
                    tokio::spawn(connect(client, server.clone(), watched.clone()));
                }
            }
        });
        Ok(Self {
            address,
            condition: Arc::new(condition),
            accepting,
        })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the condition, for connections that stand as well.
    pub fn set(&self, condition: Condition) {
        self.condition.send_replace(condition);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.accepting.abort();
        self.set(Condition::Cut);
    }
}

async fn connect(client: TcpStream, server: String, condition: watch::Receiver<Condition>) {
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    let (_, _) = (client.set_nodelay(true), server.set_nodelay(true));
    let (client_in, client_out) = client.into_split();
    let (server_in, server_out) = server.into_split();
    let mut cut = condition.clone();
    tokio::select! {
        () = carry(client_in, server_out, condition.clone()) => {}
        () = carry(server_in, client_out, condition) => {}
        _ = cut.wait_for(|condition| *condition == Condition::Cut) => {}
    }
}

async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut condition: watch::Receiver<Condition>,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let Ok(passing) = condition
            .wait_for(|condition| *condition != Condition::Silent)
            .await
            .map(|now| *now)
        else {
            return;
        };
        match passing {
            // What was held back while the link was silent is lost with it.
            Condition::Cut => return,
            Condition::Delayed(delay) if !delay.is_zero() => tokio::time::sleep(delay).await,
            _ => {}
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
