//! Connections over TCP whose small messages go out together.
//!
//! Main type: [`Connector`]. It knows no service and nothing of the cluster.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Duration;
use tower::{BoxError, Service};

/// Opens connections. It and its future have names of their own since tonic nests them: with those of combinators some functions had
/// names of 6,659 characters, and BOLT's counting program ends at such.
#[derive(Debug, Clone)]
pub(crate) struct Connector(HttpConnector);

impl Connector {
    /// Within `timeout` all addresses of a name are tried.
    pub(crate) fn new(timeout: Duration) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(timeout));
        // Small messages that wait for each other cost 40 ms with Nagle's algorithm.
        tcp.set_nodelay(true);
        Self(tcp)
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Gathered<TcpStream>>;
    type Error = BoxError;
    type Future = Connecting;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx).map_err(BoxError::from)
    }

    fn call(&mut self, uri: Uri) -> Connecting {
        let opened = self.0.call(uri);
        Connecting(Box::pin(async move { Ok(TokioIo::new(Gathered(opened.await?.into_inner()))) }))
    }
}

/// A connection that is being opened.
pub(crate) struct Connecting(BoxFuture<'static, Result<TokioIo<Gathered<TcpStream>>, BoxError>>);

impl Future for Connecting {
    type Output = Result<TokioIo<Gathered<TcpStream>>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

/// A stream that does not take several buffers at once. To one that does, h2 writes each message of more than 256 bytes by itself; for
/// one that does not, it gathers those of up to 1 KiB (`CHAIN_THRESHOLD` in its `framed_write.rs`).
#[derive(Debug)]
pub(crate) struct Gathered<S>(S);

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;
    use parking_lot::Mutex;
    use pinrail_proto::v1;
    use pinrail_proto::v1::pin_service_client::PinServiceClient;
    use tokio::io::DuplexStream;
    use tonic::Code;
    use tonic::service::Routes;
    use tonic::transport::{Endpoint, Server};

    use super::*;

    /// One end of a pipe that takes several buffers at once, as TCP does, and counts what is written to it.
    struct Counted {
        pipe: DuplexStream,
        writes: Arc<AtomicUsize>,
    }

    impl AsyncRead for Counted {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.pipe).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Counted {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.writes.fetch_add(1, Ordering::Relaxed);
            Pin::new(&mut self.pipe).poll_write(cx, buf)
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.writes.fetch_add(1, Ordering::Relaxed);
            Pin::new(&mut self.pipe).poll_write_vectored(cx, bufs)
        }

        fn is_write_vectored(&self) -> bool {
            true
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.pipe).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.pipe).poll_shutdown(cx)
        }
    }

    const CALLS: usize = 16;

    /// How often something is written while so many calls of half a KiB begin together.
    async fn writes<S>(stream: impl FnOnce(Counted) -> S) -> usize
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (pipe, served) = tokio::io::duplex(1 << 20);
        let writes = Arc::new(AtomicUsize::new(0));
        let io = stream(Counted { pipe, writes: Arc::clone(&writes) });
        let only = Mutex::new(Some(TokioIo::new(io)));
        let dial = move |_: Uri| {
            let io = only.lock().take();
            async move { io.ok_or_else(|| io::Error::other("it has one connection")) }
        };
        let endpoint = Endpoint::from_static("http://pipe");
        let channel = endpoint.connect_with_connector_lazy(tower::service_fn(dial));
        let one = futures::stream::iter([Ok::<_, io::Error>(served)]);
        // It knows no method, and says so.
        let server = Server::builder().add_routes(Routes::default()).serve_with_incoming(one);
        let serving = tokio::spawn(server);
        let call = || async {
            let request = v1::LookupPinRequest { run_id: "r".repeat(512), ..Default::default() };
            let refused = PinServiceClient::new(channel.clone()).lookup_pin(request).await;
            assert_eq!(refused.expect_err("it knows no method").code(), Code::Unimplemented);
        };
        // The connection is made.
        call().await;
        writes.store(0, Ordering::Relaxed);
        join_all((0..CALLS).map(|_| call())).await;
        serving.abort();
        writes.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn messages_of_calls_that_begin_together_go_out_together() {
        let apart = writes(|counted| counted).await;
        assert!(apart >= CALLS, "each message is a write of its own: {apart}");
        let together = writes(Gathered).await;
        assert!(together <= CALLS / 2, "{together} writes of {CALLS} calls");
    }
}
