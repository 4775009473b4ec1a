//! HTTP/1.1 connections to servers without TLS.

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, ToSocketAddrs};

/// Opens a TCP connection that sends without delay.
pub(crate) async fn open(address: impl ToSocketAddrs) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Opens an HTTP connection. It closes when the sender of requests is dropped.
pub(crate) async fn connect(
    address: impl ToSocketAddrs,
) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let stream = TokioIo::new(open(address).await?);
    let (sender, connection) = Builder::new().writev(false).handshake(stream).await?;
    // The request that an error concerns reports it.
    tokio::spawn(connection);
    Ok(sender)
}
