use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlSslMode};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{
    ColumnIndex, ConnectOptions as _, Connection as _, Database, Decode, Executor as _, Type,
};

use super::passage::Passage;
use super::row::{Row, Server};
use super::url::{DatabaseUrl, Dialect, TlsMode};
use crate::model::{TokenHash, UnixTime};

/// A connection to a cell's database.
#[derive(Debug)]
pub(super) enum Wire {
    MySql(MySqlConnection),
    Postgres(PgConnection),
}

/// A token, its instance, and whether a later token has its address for another instance. All
/// columns of the table are taken, since releases differ in them (`access_url_base` since 17.0,
/// `tls_port` since 31.0). The two texts differ in their placeholders.
macro_rules! find {
    ($hash:literal, $now:literal) => {
        concat!(
            "SELECT t.*, i.uuid AS server, i.project_id, i.user_id, i.hostname, i.display_name, \
             i.vm_state, i.task_state, CASE WHEN EXISTS (SELECT 1 FROM console_auth_tokens o \
             WHERE o.host = t.host AND o.port = t.port AND o.id > t.id \
             AND o.instance_uuid <> t.instance_uuid AND COALESCE(o.internal_access_path, '') = \
             COALESCE(t.internal_access_path, '')) THEN 1 ELSE 0 END AS taken \
             FROM console_auth_tokens t LEFT JOIN instances i ON i.uuid = t.instance_uuid \
             AND i.deleted = 0 WHERE t.token_hash = ",
            $hash,
            " AND t.expires > ",
            $now,
        )
    };
}

const FIND_MYSQL: &str = find!("?", "?");
const FIND_POSTGRES: &str = find!("$1", "$2");

/// Fails where a look-up would, too.
const PROBE: &str = "SELECT t.id FROM console_auth_tokens t \
                     LEFT JOIN instances i ON i.uuid = t.instance_uuid WHERE t.id = 0";

impl Wire {
    /// Connects through `passage`.
    pub(super) async fn connect(url: &DatabaseUrl, passage: &Passage) -> Result<Self, sqlx::Error> {
        match url.dialect {
            Dialect::MySql => {
                let options = mysql(url, passage).disable_statement_logging();
                let mut wire = MySqlConnection::connect_with(&options).await?;
                // without it every look-up would see what the first one saw
                let _done = wire.execute("SET autocommit = 1").await?;
                Ok(Self::MySql(wire))
            }
            Dialect::Postgres => {
                let options = postgres(url, passage).disable_statement_logging();
                Ok(Self::Postgres(PgConnection::connect_with(&options).await?))
            }
        }
    }

    /// The row of a token that is valid at `now`. No statement is kept in the server: what stands
    /// between may hand the next question to another one.
    pub(super) async fn find(
        &mut self,
        hash: &TokenHash,
        now: UnixTime,
    ) -> Result<Option<Row>, sqlx::Error> {
        let (hash, now) = (hash.to_string(), i64::try_from(now.0).unwrap_or(i64::MAX));
        match self {
            Self::MySql(wire) => {
                let query = sqlx::query(FIND_MYSQL).persistent(false);
                let row = query.bind(hash).bind(now).fetch_optional(wire).await?;
                row.map(|row| read(&row)).transpose()
            }
            Self::Postgres(wire) => {
                let query = sqlx::query(FIND_POSTGRES).persistent(false);
                let row = query.bind(hash).bind(now).fetch_optional(wire).await?;
                row.map(|row| read(&row)).transpose()
            }
        }
    }

    /// Whether it can be asked.
    pub(super) async fn probe(&mut self) -> Result<(), sqlx::Error> {
        match self {
            Self::MySql(wire) => wire.execute(PROBE).await.map(|_| ()),
            Self::Postgres(wire) => wire.execute(PROBE).await.map(|_| ()),
        }
    }
}

fn mysql(url: &DatabaseUrl, passage: &Passage) -> MySqlConnectOptions {
    let mode = match url.tls.mode {
        TlsMode::Off => MySqlSslMode::Disabled,
        TlsMode::Prefer => MySqlSslMode::Preferred,
        TlsMode::Require => MySqlSslMode::Required,
        TlsMode::Authority => MySqlSslMode::VerifyCa,
        TlsMode::Identity => MySqlSslMode::VerifyIdentity,
    };
    let mut options = MySqlConnectOptions::new()
        .host(&url.door.host())
        .socket(passage.path(&url.door))
        .username(&url.user)
        .database(&url.database)
        .ssl_mode(mode)
        .pipes_as_concat(false)
        .no_engine_substitution(false)
        .timezone(None);
    if !url.password.is_empty() {
        options = options.password(&url.password);
    }
    if let Some(ca) = &url.tls.ca {
        options = options.ssl_ca(ca);
    }
    if let Some(certificate) = &url.tls.certificate {
        options = options.ssl_client_cert(certificate);
    }
    match &url.tls.key {
        Some(key) => options.ssl_client_key(key),
        None => options,
    }
}

fn postgres(url: &DatabaseUrl, passage: &Passage) -> PgConnectOptions {
    let mode = match url.tls.mode {
        TlsMode::Off => PgSslMode::Disable,
        TlsMode::Prefer => PgSslMode::Prefer,
        TlsMode::Require => PgSslMode::Require,
        TlsMode::Authority => PgSslMode::VerifyCa,
        TlsMode::Identity => PgSslMode::VerifyFull,
    };
    let mut options = PgConnectOptions::new_without_pgpass()
        .host(&url.door.host())
        .port(url.door.port())
        .socket(passage.directory())
        .username(&url.user)
        .password(&url.password)
        .database(&url.database)
        .ssl_mode(mode)
        .extra_float_digits(None)
        .application_name("vncgate");
    if let Some(ca) = &url.tls.ca {
        options = options.ssl_root_cert(ca);
    }
    if let Some(certificate) = &url.tls.certificate {
        options = options.ssl_client_cert(certificate);
    }
    match &url.tls.key {
        Some(key) => options.ssl_client_key(key),
        None => options,
    }
}

/// What may be read from a row of either database.
trait Column<DB: Database>: for<'r> Decode<'r, DB> + Type<DB> {}

impl<DB: Database, T: for<'r> Decode<'r, DB> + Type<DB>> Column<DB> for T {}

fn read<R>(row: &R) -> Result<Row, sqlx::Error>
where
    R: sqlx::Row,
    for<'c> &'c str: ColumnIndex<R>,
    String: Column<R::Database>,
    i32: Column<R::Database>,
    i64: Column<R::Database>,
{
    let text = |name: &str| maybe_text(row, name).map(Option::unwrap_or_default);
    let number = |name: &str| maybe_number(row, name).map(Option::unwrap_or_default);
    let here = maybe_text(row, "server")?.is_some();
    Ok(Row {
        console_type: text("console_type")?,
        host: text("host")?,
        port: number("port")?,
        tls_port: maybe_number(row, "tls_port")?,
        internal_access_path: maybe_text(row, "internal_access_path")?,
        instance: text("instance_uuid")?,
        expires: number("expires")?,
        base: maybe_text(row, "access_url_base")?,
        server: here.then(|| server(row)).transpose()?,
        taken: number("taken")? != 0,
    })
}

fn server<R>(row: &R) -> Result<Server, sqlx::Error>
where
    R: sqlx::Row,
    for<'c> &'c str: ColumnIndex<R>,
    String: Column<R::Database>,
{
    Ok(Server {
        project: maybe_text(row, "project_id")?,
        user: maybe_text(row, "user_id")?,
        hostname: maybe_text(row, "hostname")?,
        display_name: maybe_text(row, "display_name")?,
        vm_state: maybe_text(row, "vm_state")?,
        task_state: maybe_text(row, "task_state")?,
    })
}

/// None for NULL, and where this release of Nova has no such column.
fn maybe_text<R>(row: &R, name: &str) -> Result<Option<String>, sqlx::Error>
where
    R: sqlx::Row,
    for<'c> &'c str: ColumnIndex<R>,
    String: Column<R::Database>,
{
    match row.try_get::<Option<String>, _>(name) {
        Err(sqlx::Error::ColumnNotFound(_)) => Ok(None),
        other => other,
    }
}

/// The same for a number of either size.
fn maybe_number<R>(row: &R, name: &str) -> Result<Option<i64>, sqlx::Error>
where
    R: sqlx::Row,
    for<'c> &'c str: ColumnIndex<R>,
    i32: Column<R::Database>,
    i64: Column<R::Database>,
{
    match row.try_get::<Option<i32>, _>(name) {
        Err(sqlx::Error::ColumnNotFound(_)) => Ok(None),
        Err(sqlx::Error::ColumnDecode { .. }) => row.try_get(name),
        other => Ok(other?.map(i64::from)),
    }
}
