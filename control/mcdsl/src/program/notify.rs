//! Notification of systemd (`sd_notify(3)`): nothing where `NOTIFY_SOCKET` is not set.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::server::Stop;

/// The service serves; also after a reload.
pub(super) fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// A reload begins. [`ready`] must follow.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "the monotonic clock cannot be read"),
    }
}

/// The service stops.
pub(super) fn stopping() {
    send(&[NotifyState::Stopping, NotifyState::Status("finishing requests")]);
}

/// What `systemctl status` shows.
pub(super) fn status(text: &str) {
    send(&[NotifyState::Status(text)]);
}

/// Tells systemd that this process is alive, twice as often as it asks for, until the service stops. What is shown is that the
/// runtime still schedules tasks.
pub(super) async fn watchdog(mut stop: Stop) {
    let Some(interval) = sd_notify::watchdog_enabled().map(|limit| limit / 2) else { return };
    let mut ticks = tokio::time::interval(interval.max(Duration::from_millis(1)));
    loop {
        tokio::select! {
            _ = ticks.tick() => send(&[NotifyState::Watchdog]),
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd cannot be notified");
    }
}
