//! What the world gives a node, brought in from outside so that the simulation can own it: clocks, randomness,
//! the network, storage engines. The only file of the node that reads a clock.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{Stream, TryStreamExt as _};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket};
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint};

use crate::storage::{LogEngine, Rocks, RocksLog, StateEngine};

/// Two clocks: one that only ever goes forward, and the wall's.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Milliseconds since the machine booted, time asleep included (`CLOCK_BOOTTIME`).
    fn boot_ms(&self) -> u64;
    /// Milliseconds since the Unix epoch. Enters only where no member remembers the cluster's time.
    fn wall_ms(&self) -> u64;
}

pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Connections between members, and from clients.
pub trait Net: fmt::Debug + Send + Sync {
    /// Takes an address; port 0 takes any free one. Connections are refused until the first is waited for.
    fn listen(&self, address: SocketAddr) -> BoxFuture<io::Result<Listener>>;
    /// A channel to `host:port` that connects when it is first used, and again when it broke.
    fn connect(&self, address: &str) -> Channel;
}

/// Storage engines of one data directory.
pub trait Engines: fmt::Debug + Send + Sync {
    /// # Errors
    /// When the engine cannot be opened or finds damage.
    fn open_log(&self, directory: &Path) -> io::Result<Box<dyn LogEngine>>;
    /// `memory`: the bytes that the whole node aims to stay below.
    ///
    /// # Errors
    /// When the engine cannot be opened or finds damage.
    fn open_state(&self, directory: &Path, memory: u64) -> io::Result<Arc<dyn StateEngine>>;
    /// Whether directories are real: they are locked and carry identity files.
    fn is_durable(&self) -> bool;
}

/// The world of one node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Env {
    pub clock: Arc<dyn Clock>,
    pub net: Arc<dyn Net>,
    pub engines: Arc<dyn Engines>,
    /// The log writer and checksums have threads of their own; the simulation has none.
    pub threads: bool,
    /// A fault ends the process; in the simulation it ends the node only.
    pub abort_on_fault: bool,
    /// Where every entry that is applied is kept too, for tests; none: nowhere.
    pub log_archive: Option<PathBuf>,
    rng: Arc<Mutex<StdRng>>,
}

impl Env {
    /// The real world.
    #[must_use]
    pub fn real() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            net: Arc::new(Tcp),
            engines: Arc::new(RocksEngines),
            threads: true,
            abort_on_fault: true,
            log_archive: None,
            rng: Arc::new(Mutex::new(rand::make_rng::<StdRng>())),
        }
    }

    /// A world that the caller owns; everything random follows from `seed`.
    #[must_use]
    pub fn simulated(
        clock: Arc<dyn Clock>,
        net: Arc<dyn Net>,
        engines: Arc<dyn Engines>,
        seed: u64,
    ) -> Self {
        let rng = Arc::new(Mutex::new(StdRng::seed_from_u64(seed)));
        Self { clock, net, engines, threads: false, abort_on_fault: false, log_archive: None, rng }
    }

    #[must_use]
    pub fn random_u64(&self) -> u64 {
        self.rng.lock().next_u64()
    }

    #[must_use]
    pub fn random_u128(&self) -> u128 {
        u128::from(self.random_u64()) << 64 | u128::from(self.random_u64())
    }

    /// Runs work that may block for long on a thread of its own, where there are threads.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        if !self.threads {
            return work();
        }
        match tokio::task::spawn_blocking(work).await {
            Ok(done) => done,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

#[derive(Debug)]
struct SystemClock;

impl Clock for SystemClock {
    fn boot_ms(&self) -> u64 {
        millis(rustix::time::clock_gettime(rustix::time::ClockId::Boottime))
    }

    fn wall_ms(&self) -> u64 {
        millis(rustix::time::clock_gettime(rustix::time::ClockId::Realtime))
    }
}

fn millis(time: rustix::time::Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds * 1_000 + nanos / 1_000_000
}

#[derive(Debug)]
struct RocksEngines;

impl Engines for RocksEngines {
    fn open_log(&self, directory: &Path) -> io::Result<Box<dyn LogEngine>> {
        Ok(Box::new(RocksLog::open(&directory.join("raft"))?))
    }

    fn open_state(&self, directory: &Path, memory: u64) -> io::Result<Arc<dyn StateEngine>> {
        Ok(Arc::new(Rocks::open(directory, memory)?))
    }

    fn is_durable(&self) -> bool {
        true
    }
}

/// Anything that bytes can be read from and written to.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// One accepted connection. It takes one buffer at a time: to what takes several, h2 writes each message by itself.
pub struct Connection(Box<dyn Io>);

impl Connection {
    pub fn new(io: impl Io + 'static) -> Self {
        Self(Box::new(io))
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) -> Self::ConnectInfo {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
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

/// Accepted connections, for tonic's `serve_with_incoming`.
pub struct Listener {
    pub local_addr: SocketAddr,
    pub incoming: Pin<Box<dyn Stream<Item = io::Result<Connection>> + Send>>,
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("local_addr", &self.local_addr).finish_non_exhaustive()
    }
}

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(2);

/// Connections that the kernel holds until they are accepted.
const BACKLOG: u32 = 1_024;

fn connections(listener: TcpListener) -> impl Stream<Item = io::Result<Connection>> + Send {
    futures::stream::unfold(listener, |listener| async move {
        let accepted = listener.accept().await.map(|(stream, _)| {
            // Small messages that wait for each other cost 40 ms with Nagle's algorithm.
            let _ = stream.set_nodelay(true);
            Connection::new(stream)
        });
        Some((accepted, listener))
    })
}

#[derive(Debug)]
struct Tcp;

impl Net for Tcp {
    fn listen(&self, address: SocketAddr) -> BoxFuture<io::Result<Listener>> {
        Box::pin(async move {
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            // A server that is started again finds connections of the one before that are not quite over.
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            let local_addr = socket.local_addr()?;
            let listening = futures::stream::once(async move { socket.listen(BACKLOG) });
            let incoming = listening.map_ok(connections).try_flatten();
            Ok(Listener { local_addr, incoming: Box::pin(incoming) })
        })
    }

    fn connect(&self, address: &str) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .unwrap_or_else(|_| Endpoint::from_static("http://invalid.invalid:1"));
        endpoint
            .tcp_nodelay(true)
            .connect_timeout(CONNECT)
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20)
            .http2_keep_alive_interval(Duration::from_secs(5))
            .keep_alive_timeout(Duration::from_secs(5))
            .connect_lazy()
    }
}
