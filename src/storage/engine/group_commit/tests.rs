//! What is committed together, and what is not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// Adds these numbers.
fn batch(
    numbers: &[i64],
) -> (Pipeline<Sqlite>, Reply, oneshot::Receiver<Result<(), StorageError>>) {
    let mut writes = Pipeline::default();
    for number in numbers {
        writes.add("INSERT INTO numbers VALUES ($1)", &[], None);
        writes.bind(number).unwrap();
    }
    let (reply, done) = oneshot::channel();
    (writes, reply, done)
}

/// What comes of batches that wait together: the replies, the numbers, and how often all was undone.
async fn together(batches: &[&[i64]]) -> (Vec<bool>, Vec<i64>, usize) {
    let options = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1);
    let pool = options.connect("sqlite::memory:").await.unwrap();
    let mut connection = pool.acquire().await.unwrap();
    sqlx::query("CREATE TABLE numbers (number INTEGER PRIMARY KEY)")
        .execute(&mut *connection)
        .await
        .unwrap();
    let undone = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&undone);
    let mut handle = connection.lock_handle().await.unwrap();
    handle.set_rollback_hook(move || {
        count.fetch_add(1, Ordering::Relaxed);
    });
    drop(handle);
    let there = tempfile::NamedTempFile::new().unwrap();
    let file = DatabaseFile::at(there.path()).unwrap();
    let (sender, incoming) = mpsc::channel(QUEUE);
    let mut replies = Vec::new();
    for numbers in batches {
        let (writes, reply, done) = batch(numbers);
        sender.try_send(Request::Batch(writes, reply)).unwrap();
        replies.push(done);
    }
    let mut queue = Queue { first: VecDeque::new(), incoming };
    while let Some(request) = queue.try_next() {
        connection = match request {
            Request::Batch(writes, reply) if queue.first.is_empty() => {
                commit_batches(connection, &file, (writes, reply), &mut queue).await
            }
            request => commit_with_savepoints(connection, &file, request, &mut queue).await,
        }
        .unwrap();
    }
    let mut committed = Vec::new();
    for reply in replies {
        committed.push(reply.await.unwrap().is_ok());
    }
    let numbers = sqlx::query_scalar("SELECT number FROM numbers ORDER BY number");
    let numbers = numbers.fetch_all(&mut *connection).await.unwrap();
    (committed, numbers, undone.load(Ordering::Relaxed))
}

#[tokio::test]
async fn who_is_refused_at_once_has_nobody_written_twice() {
    let outcome = together(&[&[1], &[2], &[1, 9], &[3]]).await;
    assert_eq!(outcome, (vec![true, true, false, true], vec![1, 2, 3], 0));
}

#[tokio::test]
async fn who_is_refused_in_the_midst_is_undone_alone() {
    let outcome = together(&[&[1], &[2], &[9, 1], &[3]]).await;
    assert_eq!(outcome, (vec![true, true, false, true], vec![1, 2, 3], 1));
}

#[tokio::test]
async fn nothing_is_committed_to_a_file_that_goes_while_a_turn_is_under_way() {
    let there = tempfile::NamedTempFile::new().unwrap();
    let file = DatabaseFile::at(there.path()).unwrap();
    drop(there);
    let (_sender, incoming) = mpsc::channel(QUEUE);
    let mut queue = Queue { first: VecDeque::new(), incoming };
    for joins_in_savepoints in [false, true] {
        let pool = SqlitePool::connect("sqlite::memory:").await.unwrap();
        let mut connection = pool.acquire().await.unwrap();
        run(&mut connection, "CREATE TABLE numbers (number INTEGER PRIMARY KEY)").await.unwrap();
        let (writes, reply, done) = batch(&[1]);

        let kept = if joins_in_savepoints {
            let request = Request::Batch(writes, reply);
            commit_with_savepoints(connection, &file, request, &mut queue).await
        } else {
            commit_batches(connection, &file, (writes, reply), &mut queue).await
        };

        assert!(kept.is_none(), "what it has not committed is undone with it");
        assert!(matches!(done.await.unwrap(), Err(StorageError::Replaced(_))));
    }
}
