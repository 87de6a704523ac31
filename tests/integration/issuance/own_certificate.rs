//! The service shows a certificate that it has issued itself, as soon as there is one.

use certwright::client::peer_chain;
use certwright::pki;

use crate::support::installation::{Database, Installation, is_ready, items};
use crate::support::patience::until;

const HTTPS_LINE: &str = "certwright: listening on https://";

async fn shows_its_own_certificate(database: Database) {
    let mut site = Installation::on(database).await;
    site.set("HTTPS_LISTEN", "127.0.0.1:0");
    site.set("HTTPS_CERTIFICATE", "default/api");
    let mut program = site.start().await;
    site.set_up(&program).await;
    let out = program.out();
    let https = out.lines().find_map(|line| line.strip_prefix(HTTPS_LINE)).unwrap().to_owned();
    let provisional = peer_chain(&https, "localhost").await.unwrap();
    assert_eq!(provisional.len(), 1, "a self-signed one, to begin with");

    site.ask_for(&program, "api").await.unwrap();
    let found =
        site.until(&mut program, "/certificates", |found| items(found).iter().all(is_ready)).await;
    let (chain, _) = site.download(&program, &items(&found)[0]).await;

    let leaf = pki::leaf(&chain).unwrap();
    until("it is shown", async || {
        peer_chain(&https, "localhost").await.is_ok_and(|shown| shown[0] == leaf)
    })
    .await;
    program.stop().await;
}

#[tokio::test]
async fn on_sqlite() {
    shows_its_own_certificate(Database::Sqlite).await;
}

#[tokio::test]
async fn on_postgres() {
    shows_its_own_certificate(Database::Postgres).await;
}
