//! A pass over what is due costs the same, however much waits.

use certwright::storage::fair::OLDEST;
use certwright::storage::{Db, Statement, catalogue};
use sqlx::{
    AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _, SqliteConnection,
};

fn statements() -> Vec<Statement> {
    let found: Vec<_> = catalogue()
        .into_iter()
        .map(|(one, _)| one)
        .filter(|one| one.name.contains("::fair::"))
        .collect();
    assert_eq!(found.len(), 6);
    found
}

/// It counts no rows, but its plan says by which part of an index it seeks.
#[tokio::test]
async fn on_sqlite() {
    let (_folder, url) = crate::support::databases::sqlite_url();
    Db::connect(&url).await.unwrap().close().await;
    let mut connection = SqliteConnection::connect(&url).await.unwrap();

    for statement in statements() {
        let explain = format!("EXPLAIN QUERY PLAN {}", statement.sqlite);
        let rows = sqlx::query(AssertSqlSafe(explain)).fetch_all(&mut connection).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
        for line in &plan {
            let of_table = ["orders", "certificates", " o", " c"];
            let reads = line.starts_with("SCAN") || line.starts_with("SEARCH");
            let words = line.split_whitespace().nth(1).unwrap_or_default();
            if reads && of_table.iter().any(|table| words == table.trim()) {
                assert!(line.contains("INDEX"), "{}: {line}", statement.name);
            }
        }
        for line in plan.iter().filter(|line| line.starts_with("SEARCH o ")) {
            assert!(line.contains("(issuer_id,namespace"), "{}: {line}", statement.name);
        }
        if statement.name.contains("CLAIM") {
            let by_lane = "namespace,next_action_at)<(";
            assert!(plan.iter().any(|line| line.contains(by_lane)), "{}: {plan:?}", statement.name);
        }
    }
}

/// On twenty thousand rows that are all due, flow after flow: none of the statements looks at more
/// than a few, not even for the flow that is behind all the others.
#[tokio::test]
async fn on_postgres() {
    let url = crate::support::postgres::fresh_database().await;
    Db::connect(&url).await.unwrap().close().await;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    connection.execute(
        "INSERT INTO orders (id, certificate_id, request_id, issuer_id, namespace, names, predecessors,
            state, tries, attempts, created_at, handed_out_at, next_action_at, deadline)
         SELECT gen_random_uuid(), gen_random_uuid(), gen_random_uuid(),
            '00000000-0000-0000-0000-000000000001', 'ns-' || n / 7000, '[]', 0, 'new', 0, 0, 0, 0, n, 0
         FROM generate_series(1, 20000) n;
         INSERT INTO certificates (id, namespace, name, labels, spec, issuer_kind, issuer_name,
            generation, state, wanted_because, state_since, revision, failed_attempts, created_at,
            next_action_at)
         SELECT gen_random_uuid(), 'ns-' || n / 7000, 'c-' || n, '{}', '{}', 'Issuer', 'le', 1, 'triggered',
            'DoesNotExist', 0, 0, 0, 0, n
         FROM generate_series(1, 20000) n;
         ANALYZE",
    ).await.unwrap();

    for statement in statements() {
        let mut text = statement.postgres.to_owned();
        let limit = if statement.name.contains("OLDEST") { "256" } else { "99999999" };
        for (name, value) in [
            ("$1", "99999999"),
            ("$2", limit),
            ("$3", "'test'"),
            ("$4", "5"),
            ("$5", "'ns-2'"),
            ("$6", "'00000000-0000-0000-0000-000000000001'"),
        ] {
            text = text.replace(name, value);
        }
        let explain = format!("EXPLAIN (ANALYZE, TIMING OFF, SUMMARY OFF) {text}");
        let rows = sqlx::query(AssertSqlSafe(explain)).fetch_all(&mut connection).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        for line in &plan {
            assert!(
                !line.contains("Seq Scan on orders") && !line.contains("Seq Scan on certificates"),
                "{}: {plan:#?}",
                statement.name
            );
            for counted in ["(actual rows=", "Rows Removed by Filter: "] {
                let Some((_, seen)) = line.split_once(counted) else { continue };
                let seen: usize = seen.split(' ').next().unwrap().parse().unwrap();
                assert!(seen <= OLDEST, "{}: {line}", statement.name);
            }
        }
    }
}
