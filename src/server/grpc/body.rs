//! The bodies of a call: the request's, whose bytes and end are watched, and the response's, which
//! holds what the call occupies until its last byte is sent.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Buf;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::Notify;

use super::capacity::ByteBudget;

/// What has arrived of a request's message.
pub(super) struct MessageMeter {
    /// `None`: the number of calls bounds the bytes.
    budget: Option<Arc<ByteBudget>>,
    received: AtomicUsize,
    is_complete: AtomicBool,
    over_budget: Notify,
}

impl MessageMeter {
    pub(super) fn new(budget: Option<Arc<ByteBudget>>) -> Self {
        Self {
            budget,
            received: AtomicUsize::new(0),
            is_complete: AtomicBool::new(false),
            over_budget: Notify::new(),
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.is_complete.load(Ordering::Acquire)
    }

    /// Until the open calls hold more bytes than allowed.
    pub(super) async fn over_budget(&self) {
        self.over_budget.notified().await;
    }

    fn add(&self, bytes: usize) {
        self.received.fetch_add(bytes, Ordering::AcqRel);
        if self.budget.as_ref().is_some_and(|budget| !budget.take(bytes)) {
            self.over_budget.notify_one();
        }
    }
}

impl Drop for MessageMeter {
    fn drop(&mut self) {
        if let Some(budget) = &self.budget {
            budget.release(*self.received.get_mut());
        }
    }
}

/// A request's body.
pub(super) struct RequestBody<B> {
    inner: B,
    meter: Arc<MessageMeter>,
}

impl<B: Body> RequestBody<B> {
    pub(super) fn new(inner: B, meter: Arc<MessageMeter>) -> Self {
        let body = Self { inner, meter };
        if body.inner.is_end_stream() {
            body.meter.is_complete.store(true, Ordering::Release);
        }
        body
    }
}

impl<B: Body + Unpin> Body for RequestBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if let Poll::Ready(frame) = &polled {
            if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
                self.meter.add(data.remaining());
            }
            if frame.is_none() || self.inner.is_end_stream() {
                self.meter.is_complete.store(true, Ordering::Release);
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A response's body. It holds `held` until its end.
#[derive(Default)]
pub(in crate::server) struct ResponseBody<B, H> {
    inner: B,
    held: H,
}

impl<B, H> ResponseBody<B, H> {
    pub(super) fn new(inner: B, held: H) -> Self {
        Self { inner, held }
    }
}

impl<B: Body + Unpin, H: Default + Unpin> Body for ResponseBody<B, H> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.held = H::default();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
