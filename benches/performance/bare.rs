//! For comparison: handlers that do the one query that an answer needs, and nothing else.

use std::str::FromStr as _;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use certwright::clock::{Clock as _, SystemClock};
use certwright::domain::id::CertificateId;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{FromRow, PgPool, SqlitePool};
use uuid::Uuid;

/// The same pools as certwright's.
enum Pool {
    Sqlite { read: SqlitePool, write: SqlitePool },
    Postgres(PgPool),
}

#[derive(Debug, FromRow, Serialize)]
struct Certificate {
    id: Uuid,
    namespace: String,
    name: String,
    labels: String,
    spec: String,
    generation: i64,
    state: String,
    wanted_because: String,
    state_since: i64,
    revision: i64,
    serial: Option<String>,
    not_before: Option<i64>,
    not_after: Option<i64>,
    renewal_time: Option<i64>,
    failed_attempts: i64,
    last_error: Option<String>,
    order_id: Option<Uuid>,
    created_at: i64,
    next_action_at: i64,
}

macro_rules! certificate {
    ($rest:literal) => {
        concat!(
            "SELECT id, namespace, name, labels, spec, generation, state, wanted_because, state_since,
             revision, serial, not_before, not_after, renewal_time, failed_attempts, last_error,
             order_id, created_at, next_action_at FROM certificates ",
            $rest
        )
    };
}

const TABLE: &str = "CREATE TABLE IF NOT EXISTS bare (
    id TEXT NOT NULL PRIMARY KEY, namespace TEXT NOT NULL, name TEXT NOT NULL, spec TEXT NOT NULL,
    UNIQUE (namespace, name))";
const INSERT: &str = "INSERT INTO bare (id, namespace, name, spec) VALUES ($1, 'default', $2, $3)";
const FIND: &str = certificate!("WHERE id = $1");
const LIST: &str = certificate!("ORDER BY id LIMIT 51");
const CHAIN: &str = "SELECT chain FROM revisions WHERE certificate_id = $1 AND revision = 1";

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Wanted {
    issuer_ref: serde_json::Value,
    dns_names: Vec<String>,
}

/// Serves on a port of its own, which it prints, until it is killed.
pub async fn serve(url: &str) -> anyhow::Result<()> {
    let pool = if url.starts_with("postgres") {
        let pool = PgPoolOptions::new().max_connections(16).connect(url).await?;
        sqlx::query(TABLE).execute(&pool).await?;
        Pool::Postgres(pool)
    } else {
        let options = SqliteConnectOptions::from_str(url)?
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let write = SqlitePoolOptions::new().max_connections(1);
        let write = write.connect_with(options.clone()).await?;
        sqlx::query(TABLE).execute(&write).await?;
        let read = SqlitePoolOptions::new().max_connections(4).connect_with(options).await?;
        Pool::Sqlite { read, write }
    };
    let router = Router::new()
        .route("/certificates", post(create).get(list))
        .route("/certificates/{id}", get(show))
        .route("/certificates/{id}/fullchain.pem", get(fullchain))
        .with_state(Arc::new(pool));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, router).await?;
    Ok(())
}

macro_rules! query {
    ($pool:expr, $as:ident, $text:expr, $how:ident $(, $bind:expr)*) => {
        match &*$pool {
            Pool::Sqlite { read, .. } => sqlx::$as($text)$(.bind($bind))*.$how(read).await,
            Pool::Postgres(pool) => sqlx::$as($text)$(.bind($bind))*.$how(pool).await,
        }
    };
}

type Bare = State<Arc<Pool>>;

async fn show(State(pool): Bare, Path(id): Path<Uuid>) -> Json<Certificate> {
    Json(query!(pool, query_as, FIND, fetch_one, id).unwrap())
}

async fn list(State(pool): Bare) -> Json<Vec<Certificate>> {
    Json(query!(pool, query_as, LIST, fetch_all).unwrap())
}

async fn fullchain(State(pool): Bare, Path(id): Path<Uuid>, headers: HeaderMap) -> Response {
    let chain: String = query!(pool, query_scalar, CHAIN, fetch_one, id).unwrap();
    if headers.contains_key(header::IF_NONE_MATCH) {
        return StatusCode::NOT_MODIFIED.into_response();
    }
    chain.into_response()
}

/// Answers 409 when the name is taken, as the load generator may repeat itself.
async fn create(State(pool): Bare, Json(wanted): Json<Wanted>) -> StatusCode {
    let (id, spec) = (
        CertificateId::generate(SystemClock.now()).to_string(),
        serde_json::to_string(&wanted).unwrap(),
    );
    let name = &wanted.dns_names[0];
    let done = match &*pool {
        Pool::Sqlite { write, .. } => {
            let query = sqlx::query(INSERT).bind(id).bind(name).bind(spec);
            query.execute(write).await.map(drop)
        }
        Pool::Postgres(pool) => {
            let query = sqlx::query(INSERT).bind(id).bind(name).bind(spec);
            query.execute(pool).await.map(drop)
        }
    };
    if done.is_ok() { StatusCode::ACCEPTED } else { StatusCode::CONFLICT }
}
