//! `kill -9` at every place where something has been done and not yet been remembered.
//!
//! One row for each place: the real program dies there ([`certwright`]'s failpoints), is started
//! again, and may have cost what the row allows, by the CA's and the DNS provider's own count. A new
//! place is a `failpoint!` in the source and a row here.

use std::ops::RangeInclusive;
use std::time::Duration;

use certwright::secret::Sealer;
use serde_json::json;

use crate::issuance::assert_key_signs_for;
use crate::support::former_schema;
use crate::support::installation::{Database, Installation, Program, is_ready, items, pass};

/// What the program is doing when it dies.
enum When {
    /// Registering the account of a new issuer.
    Registering,
    /// Issuing a certificate for the first time.
    Issuing,
    /// Issuing the successor of one that is served.
    Renewing,
    /// Issuing, and records take a while to be seen.
    Waiting,
}

/// A place to die at, and what that may cost.
struct Kill {
    at: &'static str,
    when: When,
    /// Orders that the CA may have seen for one certificate.
    orders: RangeInclusive<usize>,
}

const fn kill(at: &'static str, when: When) -> Kill {
    Kill { at, when, orders: 1..=1 }
}

/// The program dies at `at`, comes back, and finishes what it had begun.
macro_rules! survives {
    ($($name:ident: $kill:expr;)*) => {
        mod sqlite {
            use super::*;
            $(#[tokio::test] async fn $name() { survive(Database::Sqlite, $kill).await; })*
        }
        mod postgres {
            use super::*;
            $(#[tokio::test] async fn $name() { survive(Database::Postgres, $kill).await; })*
        }
    };
}

survives! {
    k1_death_between_commit_and_answer_makes_no_second_certificate: kill("after_create", When::Issuing);
    k2_death_after_new_account_makes_no_second_account: kill("after_new_account", When::Registering);
    // The order's URL is in the answer that nobody has read: there is no way to find it.
    k3_death_after_new_order_costs_one_order_at_most: Kill { orders: 1..=2, ..kill("after_new_order", When::Issuing) };
    k4_death_after_the_authorizations_makes_no_new_order: kill("after_authorizations", When::Issuing);
    k5_death_after_the_record_was_written_finds_it_again: kill("after_present", When::Issuing);
    k6_death_while_waiting_for_the_dns_goes_on_waiting: kill("before_check", When::Waiting);
    k7_death_after_the_ca_was_told_makes_no_new_order: kill("after_accept", When::Issuing);
    k8_death_after_finalize_keeps_order_key_and_certificate: kill("after_finalize", When::Issuing);
    k9_death_before_the_download_downloads: kill("before_download", When::Issuing);
    k10_death_after_the_download_downloads_again: kill("after_download", When::Issuing);
    k13_death_after_the_record_was_deleted_leaves_none: kill("after_clean_up", When::Issuing);
    k18_death_during_a_renewal_serves_the_former_certificate: kill("after_finalize", When::Renewing);
}

async fn survive(database: Database, kill: Kill) {
    let Kill { at, when, orders } = kill;
    let site = Installation::on(database).await;
    if matches!(when, When::Waiting) {
        site.cloudflare.hide_records();
    }
    let dies = format!("{at}=return");
    let (before, program) = match when {
        When::Registering | When::Issuing | When::Waiting => {
            let program = site.start_with(&dies).await;
            site.set_up(&program).await;
            site.ask_for(&program, "a").await.ok();
            (0, program)
        }
        When::Renewing => {
            let mut program = site.start().await;
            site.set_up(&program).await;
            site.ask_for(&program, "a").await.unwrap();
            site.until_all_ready(&mut program, 1).await;
            program.kill();
            (1, site.start_with(&dies).await)
        }
    };
    if before > 0 {
        renew(&site, &program).await;
    }
    program.die().await;

    // What is served meanwhile is looked at before the CA lets it go on.
    if before > 0 {
        site.pebble.pause();
    }
    let mut program = site.start().await;
    match when {
        When::Renewing => {
            assert_served(&site, &program, 1).await;
            site.pebble.go_on();
        }
        When::Registering => {
            site.until(&mut program, "/issuers", |found| {
                items(found).iter().all(|one| one["status"]["conditions"][0]["status"] == "True")
            })
            .await;
            // Whether the first one came through depends on which was faster.
            site.ask_for(&program, "a").await.unwrap();
        }
        // The client repeats what it had no answer to; where it had one, nothing happens.
        When::Issuing | When::Waiting => {
            let again = site.ask_for(&program, "a").await.unwrap();
            assert_eq!((again.status, again.replayed), (202, true), "{again:?}");
            site.cloudflare.show_records();
        }
    }
    let count = before + 1;
    site.until(&mut program, "/certificates", |found| {
        items(found).iter().all(|one| is_ready(one) && one["status"]["revision"] == count)
    })
    .await;
    let ready = site.until_all_ready(&mut program, 1).await;

    assert_eq!(ready[0]["status"]["failedIssuanceAttempts"], 0, "{ready:#?}");
    let (chain, key) = site.download(&program, &ready[0]).await;
    assert_key_signs_for(&key, &chain);
    assert_eq!(site.pebble.certificates_issued(), count, "the CA's own count");
    assert!(
        orders.contains(&(site.pebble.orders_created() - before)),
        "{}",
        site.pebble.orders_created()
    );
    assert_eq!(site.pebble.accounts_created(), 1);
    // Pebble 2.10 uses an authorization again once in a hundred times even when told never to: its order says
    // whether the CA wanted a proof.
    let order = ready[0]["status"]["order"].as_str().unwrap();
    let order = site.get(&program, order).await.unwrap().body;
    let proofs = order["challenges"].as_array().unwrap().len();
    assert!(proofs == 1 || before > 0, "{order:#}");
    let written = site.cloudflare.written() as usize;
    assert_eq!(written, before + proofs, "one record for each proof that was wanted");
    assert_eq!(site.left_in_dns(), [""; 0]);
}

async fn renew(site: &Installation, program: &Program) {
    let found = site.get(program, "/certificates").await.unwrap().body;
    let path = format!("/certificates/{}/renew", items(&found)[0]["id"].as_str().unwrap());
    site.post(program, &path, &json!({})).await.ok();
}

/// That this revision is served, while its successor is under way.
async fn assert_served(site: &Installation, program: &Program, revision: u32) {
    let found = site.get(program, "/certificates").await.unwrap().body;
    let one = &items(&found)[0];
    let (chain, key) = site.download(program, one).await;
    assert_key_signs_for(&key, &chain);
    assert_eq!(one["status"]["revision"], revision, "{one:#}");
}

/// K14: half of the secrets under one master key, half under the other.
async fn rotation_survives(database: Database) {
    let mut site = Installation::on(database).await;
    let program = site.start().await;
    site.set_up(&program).await;
    site.ask_for(&program, "a").await.unwrap();
    let mut program = program;
    let one = site.until_all_ready(&mut program, 1).await.remove(0);
    let (chain, key) = site.download(&program, &one).await;
    program.kill();
    let old = site.setting("MASTER_KEY");
    let new = Sealer::generate().unwrap().expose().clone();

    site.set("MASTER_KEY", &format!("{new},{old}"));
    site.launch(&["secrets", "rotate"], "between_reseals=1*off->return").die().await;
    let mut program = site.start().await;
    assert_eq!(
        site.download(&program, &one).await,
        (chain.clone(), key.clone()),
        "all can be read"
    );
    // Beside a service at work.
    site.ask_for(&program, "b").await.unwrap();
    let mut rotation = site.launch(&["secrets", "rotate"], "");
    assert!(rotation.end().await.success(), "{}", rotation.log());
    site.until_all_ready(&mut program, 2).await;
    program.stop().await;
    let mut rotation = site.launch(&["secrets", "rotate"], "");
    assert!(rotation.end().await.success(), "{}", rotation.log());

    site.set("MASTER_KEY", &new);
    let mut program = site.start().await;
    assert_eq!(site.download(&program, &one).await, (chain, key));
    site.ask_for(&program, "c").await.unwrap();
    for ready in site.until_all_ready(&mut program, 3).await {
        let (chain, key) = site.download(&program, &ready).await;
        assert_key_signs_for(&key, &chain);
    }
    let mut rotation = site.launch(&["secrets", "rotate"], "");
    assert!(rotation.end().await.success(), "{}", rotation.log());
    assert!(rotation.out().contains("sealed 0 of "), "{}", rotation.out());

    let mut verified = site.launch(&["secrets", "verify"], "");
    assert!(verified.end().await.success(), "{}", verified.log());
    assert!(verified.out().contains("are whole"), "{}", verified.out());
    former_schema::execute(&site.database_url, &["UPDATE api_keys SET role = 'reader'"]).await;
    let mut verified = site.launch(&["secrets", "verify"], "");
    assert!(!verified.end().await.success(), "{}", verified.out());
    assert!(verified.out().contains("API key "), "{}", verified.out());
    assert!(verified.log().contains("are broken"), "{}", verified.log());
}

#[tokio::test]
async fn k14_a_rotation_that_is_cut_off_leaves_all_readable_and_is_finished_on_sqlite() {
    rotation_survives(Database::Sqlite).await;
}

#[tokio::test]
async fn k14_a_rotation_that_is_cut_off_leaves_all_readable_and_is_finished_on_postgres() {
    rotation_survives(Database::Postgres).await;
}

/// K16: a migration that is cut off, before a step or anywhere; of a new database, and of one of before the
/// migrations were squashed.
async fn migrations_survive(database: Database) {
    let mut site = Installation::on(database).await;
    for is_former in [false, true] {
        site.change_database().await;
        if is_former {
            former_schema::make(&site.database_url, former_schema::LAST).await;
        }
        site.launch(&["migrate"], "between_migrations=return").die().await;
        let mut again = site.launch(&["migrate"], "");
        assert!(again.end().await.success(), "{}", again.log());
        let taken_over =
            format!("of former version 14 (its version is {} now)", former_schema::newest());
        let done = if is_former { &taken_over } else { "made the schema" };
        assert!(again.out().contains(done), "{}", again.out());
    }

    for delay in 0..16 {
        site.change_database().await;
        if delay % 2 == 1 {
            former_schema::make(&site.database_url, former_schema::LAST).await;
        }
        let program = site.launch(&["migrate"], "");
        pass(Duration::from_millis(delay * 6)).await;
        program.kill();
        let mut again = site.launch(&["migrate"], "");
        assert!(again.end().await.success(), "{delay}: {}", again.log());
    }
    let mut program = site.start().await;
    assert!(program.is_running());
    assert_eq!(site.get(&program, "/readyz").await.unwrap().status, 200);
}

#[tokio::test]
async fn k16_a_half_applied_migration_is_finished_on_sqlite() {
    migrations_survive(Database::Sqlite).await;
}

#[tokio::test]
async fn k16_a_half_applied_migration_is_finished_on_postgres() {
    migrations_survive(Database::Postgres).await;
}
