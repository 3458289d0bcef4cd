//! The role itself: what becomes of each request.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::redis::{self, Redis};
use super::registry::{self, Registry};
use super::session::{BEAT, Cause, Limits, Order, SessionRecord};
use super::store::{Attempt, BadFile, File, Memory, Store};
use super::{AuthError, Entry, NewGrant, Reply, Request, Source};
use crate::drain::Watch;
use crate::live::Live;
use crate::model::{Binding, Grant, SessionId, Terms, Token, TokenId, UnixTime};
use crate::rpc::{Feed, HOLD, Role};

/// How often dead tokens are swept. They are refused from their last second on, swept or not.
const SWEEP: Duration = Duration::from_secs(30);

/// The role.
#[derive(Debug)]
pub struct Auth(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    tokens: Tokens,
    registry: Arc<dyn Registry>,
    orders: Arc<Feed<Order>>,
    rules: Rules,
}

/// Whose tokens are good here.
#[derive(Debug)]
enum Tokens {
    /// Those made here.
    Own(Arc<dyn Store>),
    /// Those that somebody else makes.
    Foreign(Box<dyn Source>),
}

/// What auth goes by.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Tokens at one time.
    pub max_tokens: usize,
    /// Sessions at one time.
    pub limits: Limits,
    /// How long a browser that lost its session may come back with a single-use token.
    pub reconnect_window: Duration,
    /// On what terms tokens open that somebody else made. They open as often as they like.
    pub terms: Terms,
}

/// The settings in force, of a role that runs. Cheap to clone: all clones are one.
#[derive(Clone, Debug)]
pub struct Rules {
    settings: Live<Settings>,
    limits: Live<Limits>,
}

impl Rules {
    fn new(settings: Settings) -> Self {
        Self {
            settings: Live::new(settings),
            limits: Live::new(settings.limits),
        }
    }

    /// Puts other settings in force, for what is asked from now on. The number of tokens stays as
    /// it was at the start.
    pub fn adopt(&self, settings: Settings) {
        self.limits.exchange(settings.limits);
        self.settings.exchange(settings);
    }
}

impl Auth {
    /// Its settings, to be changed while it runs.
    pub fn rules(&self) -> Rules {
        self.0.rules.clone()
    }

    /// A role that keeps everything in memory, swept until `watch` closes.
    pub fn in_memory(settings: Settings, watch: &Watch) -> Self {
        let store = Arc::new(Memory::new(settings.max_tokens));
        Self::with_sessions_here(Tokens::Own(store), settings, watch)
    }

    /// A role that keeps its tokens in the file at `path`, and sessions in memory. Errors: the file
    /// cannot be used.
    pub fn in_file(path: &Path, settings: Settings, watch: &Watch) -> Result<Self, BadFile> {
        let store = Arc::new(File::open(path, settings.max_tokens)?);
        Ok(Self::with_sessions_here(
            Tokens::Own(store),
            settings,
            watch,
        ))
    }

    /// A role that knows the tokens of `source` and makes none.
    pub fn foreign(source: Box<dyn Source>, settings: Settings, watch: &Watch) -> Self {
        Self::with_sessions_here(Tokens::Foreign(source), settings, watch)
    }

    /// A role that shares tokens and sessions with all who use the same Redis.
    pub fn in_redis(redis: redis::Settings, settings: Settings, watch: &Watch) -> Self {
        let orders = Arc::<Feed<Order>>::default();
        let rules = Rules::new(settings);
        let (tokens, limits) = (settings.max_tokens, rules.limits.clone());
        let redis = Arc::new(Redis::new(redis, tokens, limits, Arc::clone(&orders)));
        let listening = Arc::clone(&redis);
        until_closing(watch, async move { listening.listen().await });
        let shared: Arc<dyn Store> = Arc::<Redis>::clone(&redis);
        let inner = Inner {
            tokens: Tokens::Own(shared),
            registry: redis,
            orders,
            rules,
        };
        Self::start(inner, watch)
    }

    fn with_sessions_here(tokens: Tokens, settings: Settings, watch: &Watch) -> Self {
        let rules = Rules::new(settings);
        let inner = Inner {
            tokens,
            registry: Arc::new(registry::Memory::new(rules.limits.clone())),
            orders: Arc::default(),
            rules,
        };
        Self::start(inner, watch)
    }

    fn start(inner: Inner, watch: &Watch) -> Self {
        let inner = Arc::new(inner);
        let sweeping = Arc::clone(&inner);
        until_closing(watch, async move { sweeping.sweep().await });
        Self(inner)
    }
}

impl Role for Auth {
    const NAME: &'static str = "auth";
    type Request = Request;
    type Reply = Reply;
    type Error = AuthError;

    fn callers(request: &Request) -> &'static [&'static str] {
        match request {
            Request::Authorize(_)
            | Request::List(_)
            | Request::Show(_)
            | Request::Revoke(_)
            | Request::Sessions(_)
            | Request::Session(_)
            | Request::Kill(_) => &["api"],
            Request::Redeem(_)
            | Request::Begin(_)
            | Request::Beat(_)
            | Request::Restore(_)
            | Request::End(..)
            | Request::Orders(_) => &["proxy"],
            Request::Ready => &["api", "proxy"],
        }
    }

    async fn call(&self, request: Request) -> Result<Reply, AuthError> {
        let inner = &self.0;
        let now = UnixTime::now();
        match request {
            Request::Authorize(new) => inner.authorize(*new).await,
            Request::Redeem(token) => inner.redeem(&token, now).await,
            Request::List(instance) => {
                let entries = inner.store()?.list(instance, now).await?;
                Ok(Reply::Listed(entries))
            }
            Request::Show(id) => one(inner.store()?.find(&id, now).await?),
            Request::Revoke(id) => inner.revoke(&id, now).await,
            Request::Ready => inner.ready().await,
            Request::Begin(record) => inner.begin(*record, now).await,
            Request::Beat(beats) => inner.registry.beat(beats, now).await.map(Reply::Pulse),
            Request::Restore(sessions) => {
                inner.registry.restore(sessions, now).await?;
                Ok(Reply::Done)
            }
            Request::End(id, opened) => inner.end(id, opened, now).await,
            Request::Orders(cursor) => Ok(Reply::Orders(inner.orders.after(cursor, HOLD).await)),
            Request::Sessions(instance) => inner.registry.list(instance).await.map(Reply::Sessions),
            Request::Session(id) => inner.session(id).await,
            Request::Kill(id) => inner.kill(id).await,
        }
    }
}

fn until_closing(watch: &Watch, task: impl Future<Output = ()> + Send + 'static) {
    let closing = watch.clone();
    watch.spawn_service(async move {
        tokio::select! {
            () = task => {}
            () = closing.closing() => {}
        }
    });
}

fn one(entry: Option<Entry>) -> Result<Reply, AuthError> {
    let entry = entry.ok_or(AuthError::Unknown)?;
    Ok(Reply::One(Box::new(entry)))
}

impl Inner {
    /// Errors: `Elsewhere`, if there is none.
    fn store(&self) -> Result<&dyn Store, AuthError> {
        match &self.tokens {
            Tokens::Own(store) => Ok(&**store),
            Tokens::Foreign(source) => Err(AuthError::Elsewhere(source.name().to_owned())),
        }
    }

    async fn authorize(&self, new: NewGrant) -> Result<Reply, AuthError> {
        let issued = UnixTime::now();
        let grant = Grant {
            instance: new.instance,
            instance_name: new.instance_name,
            console_type: new.console_type,
            target: new.target,
            binding: Binding::Instance,
            rights: new.rights,
            base: new.base,
            project: new.project,
            caller: new.caller,
            terms: new.terms,
            issued,
            expires: issued.plus(new.ttl),
        };
        let token = Token::generate();
        let stored = self.store()?.insert(token.hash(), grant.clone(), issued);
        stored.await?;
        Ok(Reply::Authorized(token, Box::new(grant)))
    }

    async fn redeem(&self, token: &Token, now: UnixTime) -> Result<Reply, AuthError> {
        let grant = match &self.tokens {
            Tokens::Own(store) => store.get(&token.hash(), now).await?,
            Tokens::Foreign(source) => Some(Grant {
                terms: Terms {
                    single_use: false,
                    ..self.rules.settings.now().terms
                },
                ..source.redeem(token, now).await?
            }),
        };
        let grant = grant.ok_or(AuthError::Unknown)?;
        Ok(Reply::Redeemed(Box::new(grant)))
    }

    async fn ready(&self) -> Result<Reply, AuthError> {
        match &self.tokens {
            Tokens::Own(store) => store.ready().await?,
            Tokens::Foreign(source) => source.ready().await?,
        }
        Ok(Reply::Done)
    }

    /// Nothing opens with the token from here on, and what was opened ends.
    async fn revoke(&self, id: &TokenId, now: UnixTime) -> Result<Reply, AuthError> {
        let entry = self.store()?.remove(id, now).await?;
        for order in self.registry.order_all(id, Cause::Revoked).await? {
            self.orders.tell(order);
        }
        one(entry)
    }

    async fn begin(&self, record: SessionRecord, now: UnixTime) -> Result<Reply, AuthError> {
        let Tokens::Own(store) = &self.tokens else {
            self.register(record, now).await?;
            return Ok(Reply::Done);
        };
        if record.terms.single_use {
            self.claim(&**store, &record, now).await?;
        }
        let (token, id) = (record.token.clone(), record.id);
        if let Err(error) = self.register(record.clone(), now).await {
            self.release(&record, false, now).await?;
            return Err(error);
        }
        // Whoever revokes the token from now on finds the session; who did before took the token.
        if store.find(&token, now).await?.is_none() {
            let _record = self.registry.end(id).await?;
            return Err(AuthError::Unknown);
        }
        Ok(Reply::Done)
    }

    async fn register(&self, record: SessionRecord, now: UnixTime) -> Result<(), AuthError> {
        for order in self.registry.begin(record, now).await? {
            self.orders.tell(order);
        }
        Ok(())
    }

    async fn claim(
        &self,
        store: &dyn Store,
        record: &SessionRecord,
        now: UnixTime,
    ) -> Result<(), AuthError> {
        let (token, browser) = (&record.token, record.browser.clone());
        let attempt = Attempt {
            lives: self.registry.lives(token, &browser).await?,
            browser,
            window: self.rules.settings.now().reconnect_window,
        };
        match store.claim(token, attempt, now).await? {
            None => Err(AuthError::Unknown),
            Some(false) => Err(AuthError::Used),
            Some(true) => Ok(()),
        }
    }

    async fn end(&self, id: SessionId, opened: bool, now: UnixTime) -> Result<Reply, AuthError> {
        if let Some(record) = self.registry.end(id).await? {
            self.release(&record, opened, now).await?;
        }
        Ok(Reply::Done)
    }

    async fn release(
        &self,
        record: &SessionRecord,
        opened: bool,
        now: UnixTime,
    ) -> Result<(), AuthError> {
        match &self.tokens {
            Tokens::Own(store) if record.terms.single_use => {
                store.leave(&record.token, opened, now).await
            }
            _ => Ok(()),
        }
    }

    async fn session(&self, id: SessionId) -> Result<Reply, AuthError> {
        let live = self.registry.find(id).await?;
        let live = live.ok_or(AuthError::NoSession(id))?;
        Ok(Reply::Session(Box::new(live)))
    }

    async fn kill(&self, id: SessionId) -> Result<Reply, AuthError> {
        let session = self.session(id).await?;
        if let Some(order) = self.registry.order(id, Cause::Operator).await? {
            self.orders.tell(order);
        }
        Ok(session)
    }

    async fn sweep(&self) {
        let mut leases = tokio::time::interval(BEAT);
        let mut tokens = tokio::time::interval(SWEEP);
        loop {
            let swept = tokio::select! {
                _ = tokens.tick() => self.sweep_tokens().await,
                _ = leases.tick() => self.sweep_sessions().await,
            };
            if let Err(error) = swept {
                tracing::debug!(%error, "what is dead could not be swept");
            }
        }
    }

    async fn sweep_tokens(&self) -> Result<(), AuthError> {
        match &self.tokens {
            Tokens::Own(store) => store.sweep(UnixTime::now()).await,
            Tokens::Foreign(_) => Ok(()),
        }
    }

    async fn sweep_sessions(&self) -> Result<(), AuthError> {
        let now = UnixTime::now();
        for record in self.registry.sweep(now).await? {
            let (session, proxy) = (record.id, &record.proxy);
            tracing::warn!(%session, proxy, "a session's proxy has gone silent");
            self.release(&record, true, now).await?;
        }
        Ok(())
    }
}
