//! One connection, from its first byte to its last.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use super::Limits;
use super::activity::Activity;
use super::body::Answer;
use super::peer::Peer;
use super::stream::Watched;
use super::tls::{self, RefusedCertificate, Tls};
use super::waiting::Waiting;

const MOST_HEADERS: usize = 100;

/// Buffer for a request's head and for reading ahead.
const MOST_BYTES_OF_HEAD: usize = 32 * 1024;

/// Requests at once on one connection.
const MOST_STREAMS: u32 = 64;

/// Buffer for a request's unread body and for an unsent answer.
const WINDOW: u32 = 64 * 1024;

/// Buffer for all requests of a connection together.
const WINDOW_OF_ALL: u32 = 256 * 1024;

/// Time that a closing connection gets once nothing is under way on it.
const LEAVE_WITHIN: Duration = Duration::from_secs(1);

/// Time that a closing connection gets if another one waits for its place.
const MAKE_ROOM_WITHIN: Duration = Duration::from_millis(100);

/// The HTTP/1 and HTTP/2 settings of a listener.
pub(super) struct Protocol {
    builder: Builder<TokioExecutor>,
    limits: Limits,
}

impl Protocol {
    pub(super) fn new(limits: Limits) -> Self {
        let mut builder = Builder::new(TokioExecutor::new());
        // Heads and silences are timed by `Activity`, for both versions and what comes before them.
        builder.http1().header_read_timeout(None).max_headers(MOST_HEADERS);
        builder.http1().max_buf_size(MOST_BYTES_OF_HEAD);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(limits.head)
            .keep_alive_timeout(limits.head)
            .max_concurrent_streams(MOST_STREAMS)
            .max_header_list_size(u32::try_from(MOST_BYTES_OF_HEAD).unwrap_or(u32::MAX))
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW_OF_ALL)
            .max_send_buf_size(WINDOW as usize);
        Self { builder, limits }
    }
}

/// Serves one connection, of `peer`, until it is over: by its client, its deadline, or `stop`. An error says why it never
/// came to a request.
pub(super) async fn attend<I>(
    protocol: &Protocol,
    (stream, peer): (I, Peer),
    tls: Option<&Tls>,
    router: Router,
    waiting: Arc<Waiting>,
    stop: &CancellationToken,
) -> Result<(), RefusedCertificate>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = Activity::new(protocol.limits, waiting);
    let Some(tls) = tls else {
        serve(protocol, (stream, peer), router, &activity, stop).await;
        return Ok(());
    };
    let handshake = pin!(tls.accept(stream));
    // It has the time of a head, as it has to come before the first one.
    let secured = tokio::select! {
        secured = until_late(handshake, || activity.deadline()) => secured,
        () = activity.dismissed() => return Ok(()),
        () = stop.cancelled() => return Ok(()),
    };
    match secured {
        Some(Ok((stream, certificate))) => {
            let peer = Peer { certificate, ..peer };
            serve(protocol, (stream, peer), router, &activity, stop).await;
        }
        Some(Err(error)) if tls::is_about_a_certificate(&error) => {
            return Err(RefusedCertificate { from: peer.address, error });
        }
        // Other errors are the client's or the network's.
        Some(Err(_)) | None => {}
    }
    Ok(())
}

async fn serve<I>(
    protocol: &Protocol,
    (stream, peer): (I, Peer),
    router: Router,
    activity: &Arc<Activity>,
    stop: &CancellationToken,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn({
        let (activity, peer) = (Arc::clone(activity), peer.clone());
        move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer.address));
            if let Some(certificate) = &peer.certificate {
                request.extensions_mut().insert(certificate.clone());
            }
            answer(router.clone(), request, &activity)
        }
    });
    let io = TokioIo::new(Watched::new(stream, Arc::clone(activity)));
    let mut connection = pin!(protocol.builder.serve_connection(io, service));
    let ended = tokio::select! {
        ended = until_late(connection.as_mut(), || activity.deadline()) => match ended {
            // Errors are the client's or the network's.
            Some(_) => return,
            None => Ended::Late,
        },
        () = activity.dismissed() => Ended::Dismissed,
        () = stop.cancelled() => Ended::Stopped,
        () = peer.outdated() => Ended::Stopped,
    };
    let leave_within = match ended {
        // A client that owes a head, or does not read its answer, gets no orderly close.
        Ended::Late | Ended::Dismissed if !activity.is_idle() => return,
        Ended::Late | Ended::Stopped => LEAVE_WITHIN,
        Ended::Dismissed => MAKE_ROOM_WITHIN,
    };
    connection.as_mut().graceful_shutdown();
    let now = Instant::now();
    let deadline = || match activity.quiet_since() {
        Some(since) => Some(since.max(now) + leave_within),
        None => activity.deadline(),
    };
    until_late(connection, deadline).await;
}

/// The end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Late,
    Dismissed,
    Stopped,
}

/// Lets something go on until it ends, or until a deadline that moves with what happens on the connection.
async fn until_late<C: Future>(
    mut work: Pin<&mut C>,
    deadline: impl Fn() -> Option<Instant>,
) -> Option<C::Output> {
    let mut timer: Pin<Box<Sleep>> = Box::pin(sleep_until(Instant::now()));
    poll_fn(|context| {
        if let Poll::Ready(end) = work.as_mut().poll(context) {
            return Poll::Ready(Some(end));
        }
        let Some(deadline) = deadline() else { return Poll::Pending };
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(context).map(|()| None)
    })
    .await
}

/// Has a request answered; until the answer was handed out, its connection waits for us.
fn answer(
    mut router: Router,
    request: Request<Incoming>,
    activity: &Arc<Activity>,
) -> impl Future<Output = Result<Response<Answer>, Infallible>> + use<> {
    let mut exchange = activity.begin(request.version() == Version::HTTP_2);
    async move {
        let response = router.call(request).await?;
        // Its head, to begin with: a client of HTTP/2 need not let anything else through.
        exchange.handed_out();
        Ok(response.map(|body: Body| Answer::new(body, exchange)))
    }
}
