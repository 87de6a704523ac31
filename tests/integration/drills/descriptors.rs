//! The process may open no more files: whoever is connected is served, and nobody else.

use tokio::net::TcpStream;

use super::warnings;
use super::watched::blocks;
use crate::support::installation::{Database, Installation};
use crate::support::patience::until;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn descriptors_that_are_used_up() {
    let site = Installation::on(Database::Sqlite).await;
    let program = site.start().await;
    // Whose connection stays open.
    let look = async || site.get(&program, "/readyz").await.unwrap();
    assert_eq!(look().await.status, 200);

    // Fewer than it has open.
    program.limit_descriptors(8);
    let waiting = TcpStream::connect(&program.api).await.unwrap();

    until("the listener's trouble", async || blocks(&look().await.body, "listeners")).await;
    let ready = look().await;
    let words = "No connection can be accepted on http.listen. Raise the limit of open files";
    assert_eq!(ready.status, 503, "{ready:?}");
    assert!(ready.body["detail"].as_str().unwrap().starts_with(words), "{ready:?}");
    program.limit_descriptors(1024);
    until("readiness", async || look().await.status == 200).await;
    drop(waiting);
    let told = warnings(&program);
    let about_it = |line: &&String| line.contains("no connection can be accepted");
    assert_eq!(
        told.iter().filter(about_it).count(),
        1,
        "one line, and none for each try: {told:#?}"
    );
}
