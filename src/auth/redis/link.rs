use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::{ClusterClientBuilder, ClusterConfig};
use redis::cluster_async::ClusterConnection;
use redis::io::AsyncDNSResolver;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, FromRedisValue,
    IntoConnectionInfo as _, Pipeline, ProtocolVersion, PushInfo, PushKind, RedisConnectionInfo,
    RedisError, RedisFuture, RedisResult, Script, TlsCertificates, Value,
};
use tokio::sync::{Mutex, broadcast};
use tokio::time::{sleep, timeout};

use super::{Settings, Topology, Trust};
use crate::auth::AuthError;
use crate::auth::session::Order;
use crate::model::{Address, Host};
use crate::resolve;
use crate::rpc::Feed;

/// How long a connection may take to come about, and a command to be answered. Two of each, for
/// the second attempt, fit well into the 15 s of a call.
const CONNECT: Duration = Duration::from_secs(2);
const ANSWER: Duration = Duration::from_secs(1);

/// How often a quiet connection is looked at, and a lost one made again.
const LOOK: Duration = Duration::from_secs(1);

/// Messages that wait to be heard; after more, all sessions are looked at.
const HEARD: usize = 256;

/// The connection, made again when it is lost.
pub(super) struct Link {
    settings: Settings,
    state: Mutex<Option<Connection>>,
    pushes: broadcast::Sender<PushInfo>,
    orders: Arc<Feed<Order>>,
}

/// A connection, by whatever name the library has for it.
#[derive(Clone)]
enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Link").field(&self.settings).finish()
    }
}

impl Link {
    pub(super) fn new(settings: Settings, orders: Arc<Feed<Order>>) -> Self {
        Self {
            settings,
            state: Mutex::default(),
            pushes: broadcast::Sender::new(HEARD),
            orders,
        }
    }

    pub(super) fn prefix(&self) -> &str {
        &self.settings.prefix
    }

    /// Runs a command that may be run twice.
    pub(super) async fn command<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, AuthError> {
        let run = |mut connection| async move { command.query_async(&mut connection).await };
        self.twice(run).await
    }

    /// Runs a script that may be run twice.
    pub(super) async fn script<T: FromRedisValue>(
        &self,
        script: &Script,
        keys: &[String],
        arguments: &[Vec<u8>],
    ) -> Result<T, AuthError> {
        let mut call = script.prepare_invoke();
        for key in keys {
            let _call = call.key(key);
        }
        for argument in arguments {
            let _call = call.arg(argument.as_slice());
        }
        let call = &call;
        let run = |mut connection| async move { call.invoke_async(&mut connection).await };
        self.twice(run).await
    }

    /// Once more on another connection, where this one is broken.
    async fn twice<T, F>(&self, run: impl Fn(Connection) -> F) -> Result<T, AuthError>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let mut may_try_again = true;
        loop {
            let connection = self.connection().await?;
            let failure = match timeout(ANSWER, run(connection)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => error,
                Err(_elapsed) => silent(),
            };
            self.judge(&failure).await;
            if !(may_try_again && is_broken(&failure)) {
                return Err(store(&failure));
            }
            may_try_again = false;
        }
    }

    /// Tells all auths, this one included.
    pub(super) async fn publish(&self, order: &Order) {
        let Ok(order) = serde_json::to_vec(order) else {
            return;
        };
        let mut command = redis::cmd("PUBLISH");
        let _command = command.arg(self.channel()).arg(order);
        // The order itself is kept; who does not hear of it now finds it with the next beat.
        if let Err(error) = self.command::<Value>(&command).await {
            tracing::debug!(%error, "an order could not be published");
        }
    }

    pub(super) async fn listen(&self) {
        let mut pushes = self.pushes.subscribe();
        let mut well = true;
        loop {
            match timeout(LOOK, pushes.recv()).await {
                Ok(Ok(push)) if push.kind == PushKind::Message => self.hear(&push),
                Ok(Ok(push)) if push.kind != PushKind::Disconnection => {}
                Ok(Err(_missed)) => self.orders.disturb(),
                Ok(Ok(_)) | Err(_) => {
                    let look = self.command::<Value>(&redis::cmd("PING")).await;
                    if well != look.is_ok() {
                        well = look.is_ok();
                        self.tell(look.err());
                    }
                    if !well {
                        sleep(LOOK).await;
                    }
                }
            }
        }
    }

    fn tell(&self, failure: Option<AuthError>) {
        let servers = &self.settings.servers;
        match failure {
            None => tracing::info!(?servers, "Redis is back"),
            Some(error) => tracing::warn!(?servers, %error, "Redis fails"),
        }
    }

    fn hear(&self, push: &PushInfo) {
        let [_channel, Value::BulkString(payload)] = push.data.as_slice() else {
            return;
        };
        match serde_json::from_slice(payload) {
            Ok(order) => self.orders.tell(order),
            Err(error) => tracing::debug!(%error, "what was published makes no sense"),
        }
    }

    fn channel(&self) -> String {
        format!("{}:orders", self.settings.prefix)
    }

    /// The connection that stands, or a new one, which hears what is published from now on.
    async fn connection(&self) -> Result<Connection, AuthError> {
        let mut state = self.state.lock().await;
        if let Some(connection) = &*state {
            return Ok(connection.clone());
        }
        let made = timeout(CONNECT, self.connect()).await;
        let made = made.unwrap_or_else(|_| Err(silent()));
        let connection = made.map_err(|error| store(&error))?;
        *state = Some(connection.clone());
        self.orders.disturb();
        Ok(connection)
    }

    /// Lets go of a connection that is of no use any more.
    async fn judge(&self, failure: &RedisError) {
        if is_broken(failure) {
            *self.state.lock().await = None;
        }
    }

    async fn connect(&self) -> RedisResult<Connection> {
        let mut connection = match &self.settings.topology {
            Topology::Cluster => Connection::Cluster(self.connect_cluster().await?),
            Topology::Single => Connection::One(self.connect_any().await?),
            Topology::Sentinel(master) => Connection::One(self.connect_master(master).await?),
        };
        match &mut connection {
            Connection::One(one) => one.subscribe(self.channel()).await?,
            Connection::Cluster(cluster) => cluster.subscribe(self.channel()).await?,
        }
        Ok(connection)
    }

    async fn connect_any(&self) -> RedisResult<MultiplexedConnection> {
        let mut failure = nobody();
        for server in &self.settings.servers {
            match self.connect_one(server).await {
                Ok(connection) => return Ok(connection),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn connect_one(&self, server: &Address) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(ANSWER))
            .set_response_timeout(Some(ANSWER))
            .set_push_sender(self.pushes.clone())
            .set_dns_resolver(Names);
        let client = match &self.settings.tls {
            Some(trust) if !matches!(server, Address::Unix(_)) => {
                Client::build_with_tls(self.info(server)?, certificates(trust)?)?
            }
            _ => Client::open(self.info(server)?)?,
        };
        client
            .get_multiplexed_async_connection_with_config(&config)
            .await
    }

    /// Asks the Sentinels in turn; believes the one whose master says that it is one.
    async fn connect_master(&self, master: &str) -> RedisResult<MultiplexedConnection> {
        let mut failure = nobody();
        for sentinel in &self.settings.servers {
            match self.master_of(sentinel, master).await {
                Ok(connection) => return Ok(connection),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn master_of(
        &self,
        sentinel: &Address,
        master: &str,
    ) -> RedisResult<MultiplexedConnection> {
        let mut sentinel = self.connect_one(sentinel).await?;
        let mut ask = redis::cmd("SENTINEL");
        let _command = ask.arg("get-master-addr-by-name").arg(master);
        let found: Option<(String, u16)> = ask.query_async(&mut sentinel).await?;
        let unknown = || RedisError::from((ErrorKind::Client, "no Sentinel knows this master"));
        let (host, port) = found.ok_or_else(unknown)?;
        let host: Host = host.parse().map_err(|_| unknown())?;
        let mut connection = self.connect_one(&Address::Tcp(host, port)).await?;
        let role: Vec<Value> = redis::cmd("ROLE").query_async(&mut connection).await?;
        match role.first() {
            Some(Value::BulkString(role)) if role == b"master" => Ok(connection),
            _ => Err((ErrorKind::Io, "a failover is under way").into()),
        }
    }

    async fn connect_cluster(&self) -> RedisResult<ClusterConnection> {
        let servers = self.settings.servers.iter();
        let servers = servers.map(|server| self.info(server));
        let servers: Vec<ConnectionInfo> = servers.collect::<RedisResult<_>>()?;
        let mut builder = ClusterClientBuilder::new(servers)
            .use_protocol(ProtocolVersion::RESP3)
            .connection_timeout(ANSWER)
            .response_timeout(ANSWER)
            .retries(2)
            .push_sender(self.pushes.clone())
            .async_dns_resolver(Names);
        if let Some(trust) = &self.settings.tls {
            builder = builder.certs(certificates(trust)?);
        }
        let client = builder.build()?;
        client
            .get_async_connection_with_config(ClusterConfig::new())
            .await
    }

    fn info(&self, server: &Address) -> RedisResult<ConnectionInfo> {
        let address = match server {
            Address::Tcp(host, port) => match &self.settings.tls {
                None => ConnectionAddr::Tcp(bare(host), *port),
                Some(_) => ConnectionAddr::TcpTls {
                    host: bare(host),
                    port: *port,
                    insecure: false,
                    tls_params: None,
                },
            },
            Address::Unix(path) => ConnectionAddr::Unix(path.clone()),
            Address::Hypervisor => return Err(nobody()),
        };
        let mut login = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3);
        if let Some(user) = &self.settings.user {
            login = login.set_username(user);
        }
        if let Some(password) = &self.settings.password {
            login = login.set_password(password.as_str());
        }
        Ok(address.into_connection_info()?.set_redis_settings(login))
    }
}

fn bare(host: &Host) -> String {
    match host {
        Host::Ip(ip) => ip.to_string(),
        Host::Name(name) => name.clone(),
    }
}

fn certificates(trust: &Trust) -> RedisResult<TlsCertificates> {
    // An error means that the process has chosen its provider before, which is the same one.
    drop(rustls::crypto::ring::default_provider().install_default());
    let root_cert = match trust {
        Trust::System => None,
        Trust::File(path) => Some(std::fs::read(path)?),
    };
    Ok(TlsCertificates {
        client_tls: None,
        root_cert,
    })
}

fn nobody() -> RedisError {
    (ErrorKind::Io, "no server is configured").into()
}

fn silent() -> RedisError {
    (ErrorKind::Io, "it does not answer").into()
}

fn store(error: &RedisError) -> AuthError {
    AuthError::Store(format!("Redis: {error}"))
}

/// Whether another connection, perhaps to another server, may do what this one does not.
fn is_broken(error: &RedisError) -> bool {
    let elsewhere = [
        "READONLY",
        "MASTERDOWN",
        "LOADING",
        "CLUSTERDOWN",
        "UNBLOCKED",
    ];
    let moved = error.code().is_some_and(|code| elsewhere.contains(&code));
    moved || error.is_io_error() || error.is_timeout() || error.is_unrecoverable_error()
}

/// Names by the hosts file and DNS, without the host's NSS.
struct Names;

impl AsyncDNSResolver for Names {
    fn resolve<'a, 'b: 'a>(
        &'a self,
        host: &'b str,
        port: u16,
    ) -> RedisFuture<'a, Box<dyn Iterator<Item = SocketAddr> + Send + 'a>> {
        Box::pin(async move {
            let bad = |why: String| RedisError::from((ErrorKind::Io, "no such host", why));
            let host: Host = host
                .parse()
                .map_err(|bad_host| bad(format!("{bad_host}")))?;
            let found = resolve::resolve(&host).await;
            let found = found.map_err(|unresolved| bad(unresolved.to_string()))?;
            let found = found.into_iter().map(move |ip| SocketAddr::new(ip, port));
            let found: Box<dyn Iterator<Item = SocketAddr> + Send> = Box::new(found);
            Ok(found)
        })
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::One(one) => one.req_packed_command(cmd),
            Self::Cluster(cluster) => cluster.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        cmd: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::One(one) => one.req_packed_commands(cmd, offset, count),
            Self::Cluster(cluster) => cluster.req_packed_commands(cmd, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::One(one) => one.get_db(),
            Self::Cluster(cluster) => cluster.get_db(),
        }
    }
}
