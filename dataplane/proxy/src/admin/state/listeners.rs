//! Listeners: bound before they are stored, so that an address that cannot be had changes nothing.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mc_core::model::{ChangedBy, Listener};
use mc_core::validate::normalize_listener;
use serde_json::json;

use super::routes::{check_owner, retire};
use super::{After, Done, Existing, Opening, State, check_room};
use crate::admin::error::ChangeError;
use crate::admin::events::Kind;
use crate::connections::ConnectionFilter;
use crate::snapshot::ListenerEntry;
use crate::store::Change;
use crate::workers::{BindError, Workers};
use mcdsl::chain;

/// Result of adding or replacing a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerPut {
    /// Revision at which it is live.
    pub revision: u64,
    /// It was not there before.
    pub created: bool,
    /// As published.
    pub listener: Listener,
}

/// Whether there is what the caller expects to be there.
fn check_existing(
    name: &str,
    existing: Existing<Listener>,
    old: Option<&ListenerEntry>,
) -> Result<(), ChangeError> {
    match (existing, old) {
        (Existing::None, Some(_)) => Err(ChangeError::ListenerExists(name.to_owned())),
        (Existing::Some(_), None) => Err(ChangeError::NoListener(name.to_owned())),
        // An operator who has listed the listeners sends back the port that the system chose.
        (Existing::Some(Some(expected)), Some(old)) if old.spec != normalize_listener(expected.clone())? => {
            Err(ChangeError::OtherListener(name.to_owned()))
        }
        _ => Ok(()),
    }
}

impl State {
    /// Puts a listener in the place of what may be there. Where the address stays, so do the sockets.
    pub(crate) fn put_listener(
        &mut self,
        listener: Listener,
        existing: Existing<Listener>,
    ) -> Result<Done<ListenerPut>, ChangeError> {
        let listener = normalize_listener(listener)?;
        let name = listener.name.clone();
        let old = self.listeners.get(&name).cloned();
        check_existing(&name, existing, old.as_deref())?;
        let is_closed = self.is_closed(&name);
        if let Some(old) = &old
            && !is_closed
            && self.configured.get(&name) == Some(&listener)
        {
            let put = ListenerPut { revision: self.revision, created: false, listener: old.spec.clone() };
            return Ok(Done::only(put));
        }
        self.check_address(&listener)?;
        let known = [self.configured.get(&name), old.as_ref().map(|old| &old.spec)];
        let same = known.into_iter().flatten().any(|before| before.address == listener.address);
        let stays = same && !is_closed;
        let mut after = After::default();
        let entry = match &old {
            Some(old) if stays => renewed(old, listener.clone()),
            Some(old) => {
                let (entry, sockets) = bind(&self.workers, &listener, old.id, accepted(old))?;
                // The new sockets queue what comes until the old ones are closed.
                after.close = Some(old.id);
                after.open = Some((Arc::clone(&entry), sockets));
                entry
            }
            None => {
                check_room("listeners", self.listeners.len() as u64 + 1, MAX_LISTENERS)?;
                let (entry, sockets) = bind(&self.workers, &listener, self.ids.next(), 0)?;
                after.open = Some((Arc::clone(&entry), sockets));
                entry
            }
        };
        let sockets = after.open.as_ref().map(|(_, bound)| bound.sockets());
        let sockets = sockets.transpose().map_err(|error| ChangeError::Bind {
            name: name.clone(),
            source: BindError::Other(listener.address, error),
        })?;
        let own = sockets.as_deref().or_else(|| self.sockets.get(&name).map(Vec::as_slice));
        let steered = self.steer(Some((&listener, own.unwrap_or_default())));
        steered.map_err(|source| ChangeError::Steer { name: name.clone(), source })?;
        if let Err(error) = self.commit(&Change::PutListener(listener.clone())) {
            // As it was before.
            self.steer(None).unwrap_or(());
            return Err(error);
        }
        if let Some(sockets) = sockets {
            self.sockets.insert(name.clone(), sockets);
        }
        self.configured.insert(name.clone(), listener);
        self.listeners.insert(name.clone(), Arc::clone(&entry));
        self.view.write().closed.remove(&name);
        self.tell_kernel();
        self.publish(self.table());
        let listener = entry.spec.clone();
        self.events.announce(Kind::ListenerAdded, name, &json!(listener));
        Ok(Done { value: ListenerPut { revision: self.revision, created: old.is_none(), listener }, after })
    }

    /// Removes a listener, its routes too where `with_routes`; `kill` closes its connections.
    pub(crate) fn remove_listener(
        &mut self,
        name: &str,
        with_routes: bool,
        kill: bool,
        by: &ChangedBy,
    ) -> Result<Done<u64>, ChangeError> {
        let Some(listener) = self.listeners.get(name).cloned() else {
            return Err(ChangeError::NoListener(name.to_owned()));
        };
        let gone: Vec<_> = self.view.read().listing.of_listener(name).cloned().collect();
        if !gone.is_empty() && !with_routes {
            return Err(ChangeError::HasRoutes { name: name.to_owned(), routes: gone.len() as u64 });
        }
        check_owner(gone.iter().map(|entry| &entry.spec), by)?;
        self.commit(&Change::RemoveListener { name: name.to_owned(), with_routes })?;
        let mut table = self.table();
        for entry in &gone {
            table.remove(listener.id, &entry.spec.name, &entry.spec.alpn);
        }
        {
            let mut view = self.view.write();
            for entry in &gone {
                view.listing.remove(&entry.spec.key());
                view.backends.release(entry);
            }
        }
        let mut after = retire(&gone, kill);
        self.listeners.remove(name);
        self.configured.remove(name);
        self.sockets.remove(name);
        self.view.write().closed.remove(name);
        // It can only become less, which there is room for.
        self.steer(None).unwrap_or(());
        self.tell_kernel();
        self.publish(table);
        after.holds = self.release(gone.iter().map(|entry| &entry.live));
        after.close = Some(listener.id);
        if kill {
            after.kill = Some(ConnectionFilter { listener: Some(name.to_owned()), ..Default::default() });
        }
        let detail = json!({ "routes": gone.len(), "kill": kill });
        self.events.announce(Kind::ListenerRemoved, name, &detail);
        Ok(Done { value: self.revision, after })
    }

    /// Whether a listener is there whose sockets could not be had.
    fn is_closed(&self, name: &str) -> bool {
        self.view.read().closed.contains_key(name)
    }

    /// Whether [`Self::retry_closed`] has work.
    pub(crate) fn has_closed(&self) -> bool {
        !self.view.read().closed.is_empty()
    }

    /// Tries again to open the listeners whose sockets could not be had; those that now can are still to be opened.
    pub(crate) fn retry_closed(&mut self) -> Vec<Opening> {
        let closed: Vec<String> = self.view.read().closed.keys().cloned().collect();
        let mut opened = Vec::new();
        for name in closed {
            let (Some(listener), Some(old)) = (self.configured.get(&name), self.listeners.get(&name)) else {
                continue;
            };
            let bound = bind(&self.workers, listener, old.id, accepted(old)).and_then(|(entry, bound)| {
                let sockets = bound.sockets().map_err(|error| ChangeError::Bind {
                    name: name.clone(),
                    source: BindError::Other(bound.address, error),
                })?;
                Ok((entry, bound, sockets))
            });
            match bound {
                Ok((entry, bound, sockets)) => {
                    tracing::info!(listener = name, address = %entry.spec.address, "listening, after it could not");
                    self.events.announce(Kind::ListenerOpened, &*name, &json!(entry.spec));
                    self.view.write().closed.remove(&name);
                    self.sockets.insert(name.clone(), sockets);
                    self.listeners.insert(name, Arc::clone(&entry));
                    opened.push((entry, bound));
                }
                Err(error) => {
                    let problem = chain(&error);
                    let mut view = self.view.write();
                    if view.closed.get(&name) != Some(&problem) {
                        tracing::error!("{problem}; it is tried again each second");
                        view.closed.insert(name, problem);
                    }
                }
            }
        }
        if !opened.is_empty() {
            if let Err(error) = self.steer(None) {
                tracing::error!("connections to steered addresses are refused: {}", chain(&error));
            }
            self.tell_kernel();
            self.publish(self.table());
        }
        opened
    }

    /// Has the kernel's half guard the listeners that are open.
    fn tell_kernel(&self) {
        let open = self.listeners.iter().filter(|(name, _)| self.sockets.contains_key(*name));
        self.kernel.set_listeners(open.map(|(_, listener)| &listener.spec));
    }

    /// Refuses an address that another listener has.
    fn check_address(&self, listener: &Listener) -> Result<(), ChangeError> {
        let taken = |other: &&Listener| other.name != listener.name && other.address == listener.address;
        match self.configured.values().find(taken) {
            Some(other) if listener.address.port() != 0 => {
                Err(ChangeError::AddressTaken { name: other.name.clone(), address: other.address })
            }
            _ => Ok(()),
        }
    }
}

/// Binds a listener's sockets; its entry has the address as the kernel chose it.
pub(super) fn bind(
    workers: &Workers,
    listener: &Listener,
    id: u32,
    accepted: u64,
) -> Result<Opening, ChangeError> {
    let bound = workers
        .bind(listener.address)
        .map_err(|source| ChangeError::Bind { name: listener.name.clone(), source })?;
    let spec = Listener { address: bound.address, ..listener.clone() };
    Ok((Arc::new(ListenerEntry { id, spec, accepted: accepted.into() }), bound))
}

/// Takes over a listener's sockets.
pub(super) fn adopt(
    workers: &Workers,
    listener: &Listener,
    id: u32,
    address: SocketAddr,
    sockets: Vec<OwnedFd>,
) -> Result<Opening, ChangeError> {
    let bound = workers
        .adopt(address, sockets)
        .map_err(|source| ChangeError::Bind { name: listener.name.clone(), source })?;
    let spec = Listener { address, ..listener.clone() };
    Ok((Arc::new(ListenerEntry { id, spec, accepted: 0.into() }), bound))
}

/// A listener's entry with another setting, on the same sockets.
fn renewed(old: &ListenerEntry, listener: Listener) -> Arc<ListenerEntry> {
    let spec = Listener { address: old.spec.address, ..listener };
    Arc::new(ListenerEntry { id: old.id, spec, accepted: accepted(old).into() })
}

fn accepted(entry: &ListenerEntry) -> u64 {
    entry.accepted.load(Ordering::Relaxed)
}

/// Listeners at the same time: each has a socket on each worker.
const MAX_LISTENERS: u64 = 1_000;
