//! What a cell of Nova knows: its consoles and its instances, as rows of its database.
//!
//! Two tables, with Nova's columns, types and indexes as far as a proxy can see them. The servers
//! that hold them are `mariadb` and `postgres`.

use std::time::{SystemTime, UNIX_EPOCH};

use super::seed::digest;

/// The account that may read the two tables and nothing else.
pub(crate) const READER: &str = "vncgate";

/// Its password.
pub(crate) const PASSWORD: &str = "reads-only-7";

/// Seconds that a new console is good for, as Nova has it by default.
const LIFE: i64 = 600;

/// A row of `console_auth_tokens`, with the token that Nova itself never stores.
#[derive(Clone, Debug)]
pub(crate) struct Console {
    pub(crate) token: String,
    pub(crate) kind: String,
    pub(crate) host: String,
    pub(crate) port: i32,
    pub(crate) tls_port: Option<i32>,
    pub(crate) path: Option<String>,
    pub(crate) instance: String,
    pub(crate) expires: i64,
    pub(crate) base: Option<String>,
}

/// A row of `instances`.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) project: String,
    pub(crate) user: String,
    pub(crate) host: String,
    pub(crate) state: String,
    pub(crate) task: Option<String>,
    pub(crate) deleted: bool,
}

impl Console {
    /// A noVNC console of that instance at `host:port`, fresh.
    pub(crate) fn novnc(instance: &Instance, address: &str) -> Self {
        let (host, port) = address.rsplit_once(':').unwrap();
        Self {
            token: uuid::Uuid::new_v4().to_string(),
            kind: "novnc".to_owned(),
            host: host.to_owned(),
            port: port.parse().unwrap(),
            tls_port: None,
            path: None,
            instance: instance.id.clone(),
            expires: now() + LIFE,
            base: Some("http://127.0.0.1:6080/vnc_auto.html".to_owned()),
        }
    }

    fn row(&self) -> String {
        format!(
            "('{}', {}, {}, {}, {}, {}, {}, {}, {})",
            digest(&self.token),
            quoted(&self.kind),
            quoted(&self.host),
            self.port,
            optional(self.tls_port),
            optional(self.path.as_deref().map(quoted)),
            quoted(&self.instance),
            self.expires,
            optional(self.base.as_deref().map(quoted)),
        )
    }
}

impl Instance {
    /// One that runs.
    pub(crate) fn running(name: &str) -> Self {
        Self {
            id: uuid::Uuid::new_v4().to_string(),
            name: name.to_owned(),
            project: uuid::Uuid::new_v4().simple().to_string(),
            user: uuid::Uuid::new_v4().simple().to_string(),
            host: "compute-1".to_owned(),
            state: "active".to_owned(),
            task: None,
            deleted: false,
        }
    }

    fn row(&self, number: usize) -> String {
        // Nova marks a deleted row with the row's own number.
        let deleted = if self.deleted { number + 1 } else { 0 };
        format!(
            "({}, {}, {}, {}, {}, {}, {}, {}, {deleted})",
            quoted(&self.id),
            quoted(&self.name),
            quoted(&self.project),
            quoted(&self.user),
            quoted(&self.host),
            quoted(&self.host),
            quoted(&self.state),
            optional(self.task.as_deref().map(quoted)),
        )
    }
}

/// A database server with the tables of a cell.
pub(crate) trait Database {
    /// Runs statements as the owner of the tables; what they print, columns parted by tabs.
    fn sql(&self, statements: &str) -> String;

    /// Adds rows to `instances`.
    fn add_instances(&self, instances: &[Instance]) {
        let rows = instances.iter().enumerate();
        let rows = rows.map(|(number, instance)| instance.row(number));
        self.insert(
            "instances (uuid, display_name, project_id, user_id, host, node, vm_state, \
             task_state, deleted)",
            rows.collect(),
        );
    }

    /// Adds rows to `console_auth_tokens`.
    fn add_consoles(&self, consoles: &[Console]) {
        self.insert(
            "console_auth_tokens (token_hash, console_type, host, port, tls_port, \
             internal_access_path, instance_uuid, expires, access_url_base)",
            consoles.iter().map(Console::row).collect(),
        );
    }

    /// Adds that many consoles and instances of other people, half of the consoles expired.
    fn crowd(&self, count: usize) {
        let name = |number| format!("crowd-{number}");
        let instances: Vec<_> = (0..count).map(|n| Instance::running(&name(n))).collect();
        let consoles = instances.iter().enumerate().map(|(number, instance)| {
            let mut console = Console::novnc(instance, "127.0.0.1:9");
            if number % 2 == 0 {
                console.expires = now() - LIFE;
            }
            console
        });
        self.add_consoles(&consoles.collect::<Vec<_>>());
        self.add_instances(&instances);
    }

    /// The number of rows in a table.
    fn count(&self, table: &str) -> usize {
        let printed = self.sql(&format!("SELECT COUNT(*) FROM {table};"));
        printed.trim().parse().unwrap()
    }

    #[doc(hidden)]
    fn insert(&self, into: &str, rows: Vec<String>) {
        if !rows.is_empty() {
            self.sql(&format!("INSERT INTO {into} VALUES {};", rows.join(",\n")));
        }
    }
}

/// The statements that make the two tables; the arguments are what the servers call differently.
pub(crate) fn tables(id: &str, moment: &str, end: &str) -> String {
    format!(
        "CREATE TABLE console_auth_tokens (
            created_at {moment}, updated_at {moment}, id {id},
            token_hash VARCHAR(255) NOT NULL, console_type VARCHAR(255) NOT NULL,
            host VARCHAR(255) NOT NULL, port INTEGER NOT NULL, tls_port INTEGER,
            internal_access_path VARCHAR(255), instance_uuid VARCHAR(36) NOT NULL,
            expires INTEGER NOT NULL, access_url_base VARCHAR(255), PRIMARY KEY (id),
            CONSTRAINT uniq_console_auth_tokens0token_hash UNIQUE (token_hash)){end};
         CREATE INDEX console_auth_tokens_instance_uuid_idx
            ON console_auth_tokens (instance_uuid);
         CREATE INDEX console_auth_tokens_host_expires_idx
            ON console_auth_tokens (host, expires);
         CREATE INDEX console_auth_tokens_token_hash_instance_uuid_idx
            ON console_auth_tokens (token_hash, instance_uuid);
         CREATE TABLE instances (
            created_at {moment}, updated_at {moment}, deleted_at {moment}, id {id},
            user_id VARCHAR(255), project_id VARCHAR(255), hostname VARCHAR(255),
            power_state INTEGER, vm_state VARCHAR(255), task_state VARCHAR(255),
            host VARCHAR(255), node VARCHAR(255), launched_at {moment}, terminated_at {moment},
            display_name VARCHAR(255), uuid VARCHAR(36) NOT NULL, deleted INTEGER,
            PRIMARY KEY (id), CONSTRAINT uniq_instances0uuid UNIQUE (uuid)){end};
         CREATE INDEX instances_uuid_deleted_idx ON instances (uuid, deleted);
         CREATE INDEX instances_project_id_deleted_idx ON instances (project_id, deleted);\n"
    )
}

/// Now, in Unix seconds.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_secs().try_into().unwrap()
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn optional(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "NULL".to_owned(), |value| value.to_string())
}
