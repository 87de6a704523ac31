//! Every public function of `storage`, on both databases.

mod api_keys;
mod audit;
mod certificates;
mod copy;
mod event_tickets;
pub(crate) mod events;
mod figures;
mod history;
mod issuers;
mod leases;
mod limits;
mod orders;
mod passes;
mod policies;
mod retention;
mod revisions;
mod rows;
mod schema;
mod secrets;
mod statements;
mod traces;
mod upgrades;
mod webhooks;
mod writes;

use certwright::storage::catalogue;

use crate::support::databases::on_both_databases;

on_both_databases! {
    async fn every_statement_prepares(db: Db) {
        for (statement, _) in catalogue() {
            if let Err(error) = db.prepare(statement).await {
                panic!("{}: {error:?}", statement.name);
            }
        }
    }
}

#[test]
fn every_public_function_of_storage_is_exercised_here() {
    let tests = concat!(
        include_str!("mod.rs"),
        include_str!("api_keys.rs"),
        include_str!("audit.rs"),
        include_str!("certificates.rs"),
        include_str!("copy.rs"),
        include_str!("event_tickets.rs"),
        include_str!("figures.rs"),
        include_str!("history.rs"),
        include_str!("issuers.rs"),
        include_str!("leases.rs"),
        include_str!("limits.rs"),
        include_str!("orders.rs"),
        include_str!("policies.rs"),
        include_str!("retention.rs"),
        include_str!("revisions.rs"),
        include_str!("schema.rs"),
        include_str!("secrets.rs"),
        include_str!("webhooks.rs"),
        include_str!("events.rs"),
        include_str!("../issuance/expiry.rs"),
    );
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/storage");
    let folders = [root.clone(), root.join("engine"), root.join("queue"), root.join("tables")];
    let files = folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap().flatten());
    for file in files.map(|entry| entry.path()).filter(|path| path.is_file()) {
        let module = file.file_stem().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&file).unwrap();
        for line in text.lines().filter(|line| line.starts_with("pub async fn ")) {
            let name = line["pub async fn ".len()..].split(['(', '<']).next().unwrap();
            assert!(
                tests.contains(&format!("{module}::{name}(")),
                "{module}::{name} is not tested"
            );
        }
    }
}
