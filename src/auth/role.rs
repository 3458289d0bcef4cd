//! The role itself: what becomes of each request.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::RwLock;

use super::redis::{self, Redis};
use super::registry::{self, Registry};
use super::session::{BEAT, Cause, Limits, Order, SessionRecord};
use super::store::{Attempt, BadFile, File, Memory, Store};
use super::{AuthError, Entry, NewGrant, Reply, Request, Source};
use crate::drain::Watch;
use crate::live::Live;
use crate::model::{Binding, Grant, Rights, SessionId, Terms, Token, TokenId, UnixTime};
use crate::rpc::{Client, Feed, HOLD, Role};

/// How often dead tokens are swept. They are refused from their last second on, swept or not.
const SWEEP: Duration = Duration::from_secs(30);

/// The role.
#[derive(Debug)]
pub struct Auth(Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    /// Locked to be changed only while this process hands over.
    pub(super) tokens: Arc<RwLock<Tokens>>,
    pub(super) kept: Kept,
    pub(super) registry: Arc<dyn Registry>,
    pub(super) orders: Arc<Feed<Order>>,
    /// Rights of tokens that somebody else made, where they were changed here.
    pub(super) overruled: Mutex<HashMap<TokenId, Rights>>,
    rules: Rules,
}

/// Whose tokens are good here.
#[derive(Debug)]
pub(super) enum Tokens {
    /// Those made here.
    Own(Arc<dyn Store>),
    /// Those that somebody else makes.
    Foreign(Box<dyn Source>),
    /// Those made here, whose file was let go.
    Released,
    /// Those that this process's successor knows.
    Moved(Client<Auth>),
}

/// Where tokens and sessions are kept.
#[derive(Debug)]
pub(super) enum Kept {
    /// In this process.
    Here,
    /// Tokens in a file, for so many of them.
    File(PathBuf, usize),
    /// Where others find both.
    Shared,
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
    pub(super) fn inner(&self) -> Arc<Inner> {
        Arc::clone(&self.0)
    }

    /// Its settings, to be changed while it runs.
    pub fn rules(&self) -> Rules {
        self.0.rules.clone()
    }

    /// A role that keeps everything in memory, swept until `watch` closes.
    pub fn in_memory(settings: Settings, watch: &Watch) -> Self {
        let store = Arc::new(Memory::new(settings.max_tokens));
        Self::with_sessions_here(Tokens::Own(store), Kept::Here, settings, watch)
    }

    /// A role that keeps its tokens in the file at `path`, and sessions in memory. Errors: the file
    /// cannot be used.
    pub fn in_file(path: &Path, settings: Settings, watch: &Watch) -> Result<Self, BadFile> {
        let store = Arc::new(File::open(path, settings.max_tokens)?);
        Ok(Self::with_sessions_here(
            Tokens::Own(store),
            Kept::File(path.to_owned(), settings.max_tokens),
            settings,
            watch,
        ))
    }

    /// A role that knows the tokens of `source` and makes none.
    pub fn foreign(source: Box<dyn Source>, settings: Settings, watch: &Watch) -> Self {
        Self::with_sessions_here(Tokens::Foreign(source), Kept::Here, settings, watch)
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
            tokens: Arc::new(RwLock::new(Tokens::Own(shared))),
            kept: Kept::Shared,
            registry: redis,
            orders,
            overruled: Mutex::default(),
            rules,
        };
        Self::start(inner, watch)
    }

    fn with_sessions_here(tokens: Tokens, kept: Kept, settings: Settings, watch: &Watch) -> Self {
        let rules = Rules::new(settings);
        let inner = Inner {
            tokens: Arc::new(RwLock::new(tokens)),
            kept,
            registry: Arc::new(registry::Memory::new(rules.limits.clone())),
            orders: Arc::default(),
            overruled: Mutex::default(),
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
            | Request::Kill(_)
            | Request::SetRights(..) => &["api"],
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
        let tokens = inner.tokens.read().await;
        if let Tokens::Moved(heir) = &*tokens {
            let heir = heir.clone();
            drop(tokens);
            return heir.call(request).await;
        }
        if let Request::Orders(cursor) = request {
            // Held for long, and nothing to wait for.
            drop(tokens);
            return Ok(Reply::Orders(inner.orders.after(cursor, HOLD).await));
        }
        inner.answer(request, &tokens).await
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

/// A session of a single-use token is over.
async fn release(
    tokens: &Tokens,
    record: &SessionRecord,
    opened: bool,
    now: UnixTime,
) -> Result<(), AuthError> {
    match tokens {
        Tokens::Own(store) if record.terms.single_use => {
            store.leave(record.token, opened, now).await
        }
        _ => Ok(()),
    }
}

/// While a process that could not hand over takes its file back.
fn let_go() -> AuthError {
    AuthError::Store("the file of tokens is not open".to_owned())
}

fn one(entry: Option<Entry>) -> Result<Reply, AuthError> {
    let entry = entry.ok_or(AuthError::Unknown)?;
    Ok(Reply::One(Box::new(entry)))
}

impl Tokens {
    /// Errors: `Elsewhere`, if there is none.
    fn store(&self) -> Result<&dyn Store, AuthError> {
        match self {
            Self::Own(store) => Ok(&**store),
            Self::Foreign(source) => Err(AuthError::Elsewhere(source.name().to_owned())),
            Self::Released | Self::Moved(_) => Err(let_go()),
        }
    }

    async fn authorize(&self, new: NewGrant) -> Result<Reply, AuthError> {
        let issued = UnixTime::now();
        let grant = Arc::new(Grant {
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
        });
        let token = Token::generate();
        let stored = self
            .store()?
            .insert(token.hash(), Arc::clone(&grant), issued);
        stored.await?;
        Ok(Reply::Authorized(token, grant))
    }

    async fn ready(&self) -> Result<Reply, AuthError> {
        match self {
            Self::Own(store) => store.ready().await?,
            Self::Foreign(source) => source.ready().await?,
            Self::Released | Self::Moved(_) => return Err(let_go()),
        }
        Ok(Reply::Done)
    }
}

impl Inner {
    async fn answer(&self, request: Request, tokens: &Tokens) -> Result<Reply, AuthError> {
        let now = UnixTime::now();
        match request {
            Request::Authorize(new) => tokens.authorize(*new).await,
            Request::Redeem(token) => self.redeem(tokens, &token, now).await,
            Request::List(instance) => {
                let entries = tokens.store()?.list(instance, now).await?;
                Ok(Reply::Listed(entries))
            }
            Request::Show(id) => one(tokens.store()?.find(id, now).await?),
            Request::Revoke(id) => self.revoke(tokens, id, now).await,
            Request::Ready => tokens.ready().await,
            Request::Begin(record) => self.begin(tokens, record, now).await,
            Request::Beat(beats) => self.registry.beat(beats, now).await.map(Reply::Pulse),
            Request::Restore(sessions) => {
                self.registry.restore(sessions, now).await?;
                Ok(Reply::Done)
            }
            Request::End(id, opened) => self.end(tokens, id, opened, now).await,
            Request::Orders(cursor) => Ok(Reply::Orders(self.orders.after(cursor, HOLD).await)),
            Request::Sessions(instance) => self.registry.list(instance).await.map(Reply::Sessions),
            Request::Session(id) => self.session(id).await,
            Request::Kill(id) => self.kill(id).await,
            Request::SetRights(id, rights) => self.set_rights(tokens, id, rights, now).await,
        }
    }

    async fn redeem(
        &self,
        tokens: &Tokens,
        token: &Token,
        now: UnixTime,
    ) -> Result<Reply, AuthError> {
        let grant = match tokens {
            Tokens::Released | Tokens::Moved(_) => return Err(let_go()),
            Tokens::Own(store) => store.get(token.hash(), now).await?,
            Tokens::Foreign(source) => {
                let grant = source.redeem(token, now).await?;
                let overruled = self.overruled().get(&token.hash().id()).copied();
                Some(Arc::new(Grant {
                    terms: Terms {
                        single_use: false,
                        ..self.rules.settings.now().terms
                    },
                    rights: overruled.unwrap_or(grant.rights),
                    ..grant
                }))
            }
        };
        let grant = grant.ok_or(AuthError::Unknown)?;
        Ok(Reply::Redeemed(grant))
    }

    /// Nothing opens with the token from here on, and what was opened ends.
    async fn revoke(
        &self,
        tokens: &Tokens,
        id: TokenId,
        now: UnixTime,
    ) -> Result<Reply, AuthError> {
        let entry = tokens.store()?.remove(id, now).await?;
        for order in self.registry.order_all(id, Cause::Revoked).await? {
            self.orders.tell(order);
        }
        one(entry)
    }

    async fn begin(
        &self,
        tokens: &Tokens,
        record: Arc<SessionRecord>,
        now: UnixTime,
    ) -> Result<Reply, AuthError> {
        let Tokens::Own(store) = tokens else {
            self.register(record, now).await?;
            return Ok(Reply::Done);
        };
        if record.terms.single_use {
            self.claim(&**store, &record, now).await?;
        }
        let (token, id) = (record.token, record.id);
        if let Err(error) = self.register(Arc::clone(&record), now).await {
            release(tokens, &record, false, now).await?;
            return Err(error);
        }
        // Whoever revokes the token from now on finds the session; who did before took the token.
        if store.find(token, now).await?.is_none() {
            let _record = self.registry.end(id).await?;
            return Err(AuthError::Unknown);
        }
        Ok(Reply::Done)
    }

    async fn register(&self, record: Arc<SessionRecord>, now: UnixTime) -> Result<(), AuthError> {
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
        let (token, browser) = (record.token, record.browser);
        let attempt = Attempt {
            lives: self.registry.lives(token, browser).await?,
            browser,
            window: self.rules.settings.now().reconnect_window,
        };
        match store.claim(token, attempt, now).await? {
            None => Err(AuthError::Unknown),
            Some(false) => Err(AuthError::Used),
            Some(true) => Ok(()),
        }
    }

    async fn end(
        &self,
        tokens: &Tokens,
        id: SessionId,
        opened: bool,
        now: UnixTime,
    ) -> Result<Reply, AuthError> {
        if let Some(record) = self.registry.end(id).await? {
            release(tokens, &record, opened, now).await?;
        }
        Ok(Reply::Done)
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

    /// The token first, so that nobody gets the old rights back by loading the page anew.
    async fn set_rights(
        &self,
        tokens: &Tokens,
        id: SessionId,
        rights: Rights,
        now: UnixTime,
    ) -> Result<Reply, AuthError> {
        let live = self.registry.find(id).await?;
        let token = live.ok_or(AuthError::NoSession(id))?.record.token;
        match tokens {
            Tokens::Own(store) => store.set_rights(token, rights, now).await?,
            Tokens::Foreign(_) => self.overrule(token, rights)?,
            Tokens::Released | Tokens::Moved(_) => return Err(let_go()),
        }
        if let Some(order) = self.registry.set_rights(id, rights).await? {
            self.orders.tell(order);
        }
        self.session(id).await
    }

    /// Remembers what somebody else's token opens with from now on.
    fn overrule(&self, token: TokenId, rights: Rights) -> Result<(), AuthError> {
        let mut overruled = self.overruled();
        let most = self.rules.settings.now().max_tokens;
        if overruled.len() >= most && !overruled.contains_key(&token) {
            return Err(AuthError::Full(most));
        }
        let _before = overruled.insert(token, rights);
        Ok(())
    }

    pub(super) fn overruled(&self) -> MutexGuard<'_, HashMap<TokenId, Rights>> {
        let locked = self.overruled.lock();
        locked.unwrap_or_else(PoisonError::into_inner)
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
        match &*self.tokens.read().await {
            Tokens::Own(store) => store.sweep(UnixTime::now()).await,
            _ => Ok(()),
        }
    }

    async fn sweep_sessions(&self) -> Result<(), AuthError> {
        let now = UnixTime::now();
        let tokens = self.tokens.read().await;
        if matches!(*tokens, Tokens::Moved(_)) {
            // Nobody renews leases here any more.
            return Ok(());
        }
        for record in self.registry.sweep(now).await? {
            let (session, proxy) = (record.id, &*record.proxy);
            tracing::warn!(%session, proxy, "a session's proxy has gone silent");
            release(&tokens, &record, true, now).await?;
        }
        Ok(())
    }
}
