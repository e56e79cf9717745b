//! Login and logout, and the pages behind them: the same in every service.
//!
//! A service gives [`Pages`] a [`LoginBackend`] and adds them and its own pages to its table of routes. Its page
//! handlers take a [`Visitor`] (logged in) or a [`Browser`] (perhaps not), and forms as [`Posted`] or [`Submission`];
//! they return `Result<Response, Problem>`. A problem reaches a browser as a page: no session leads to the login page
//! and back, and so does a login that is not recent enough.
//!
//! Left out: what a service's own pages show, and how a backend decides.

mod backend;
mod browser;
mod form;
mod login;
mod passkey;
mod pending;
mod problems;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::http::{HeaderMap, Method, header};
use axum::middleware::from_fn;
use axum::routing::MethodRouter;

pub use backend::{LoggedIn, LoginBackend, PasskeyAnswer, PasskeyChallenge, PasswordLogin};
pub use browser::{Browser, Visitor, with_cookie};
pub use form::{NoFields, Posted, Sender, Shown, Submission};
pub use passkey::{GoTo, PASSKEY_SCRIPT, passkey_form};

use mc_api::operation::Need;

use super::csrf::Csrf;
use super::icon::Icon;
use super::page::{NavGroup, NavItem, Site, User};
use crate::clock::Clock;
use crate::http::Dialect;
use crate::identity::{Identity, Role};
use crate::operation::RouteTable;
use crate::permit::{Access, Authority};
use crate::problem::Problem;
use crate::secret::Secret;

/// What a service's pages share. Copies share it too.
#[derive(Clone, Debug)]
pub struct Pages(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    site: Site,
    origin: String,
    navigation: &'static [NavEntry],
    csrf: Csrf,
    backend: Box<dyn LoginBackend>,
    clock: Clock,
    pending: pending::PendingLogins,
}

/// An entry of the navigation.
#[derive(Clone, Copy, Debug)]
pub struct NavEntry {
    /// The caption above it, which entries one after the other share; empty: none.
    pub group: &'static str,
    /// Its text.
    pub label: &'static str,
    /// Its icon.
    pub icon: Icon,
    /// Where it leads.
    pub href: &'static str,
    /// Beginnings of other paths that belong to it.
    pub prefixes: &'static [&'static str],
    /// Whether only administrators see it.
    pub for_admins: bool,
}

impl Pages {
    /// Pages at `origin`, as browsers see it: `https://mcias.example.org`, with the port where it is not 443.
    ///
    /// The key of forms' tokens is random: forms that are open over a restart have expired, which [`Submission`] handles. So there is no
    /// secret to store.
    ///
    /// # Panics
    /// The system has no randomness.
    #[must_use]
    pub fn new(
        site: Site,
        origin: String,
        navigation: &'static [NavEntry],
        backend: impl LoginBackend,
        clock: Clock,
    ) -> Self {
        let mut key = [0; 32];
        aws_lc_rs::rand::fill(&mut key).expect("the system has randomness");
        let (csrf, backend, pending) = (Csrf::new(key), Box::new(backend), pending::PendingLogins::default());
        Self(Arc::new(Shared { site, origin, navigation, csrf, backend, clock, pending }))
    }

    /// Adds login, logout, static files and the form of errors to a service's table. Below the paths of `api`, errors are problem
    /// documents for browsers too.
    pub fn add_to<S: Authority>(&self, table: &mut RouteTable<S>, api: &[&'static str]) {
        for (method, path, need, handler) in login::routes(self) {
            self.add_page(table, method, path, need, handler);
        }
        let script = self.0.backend.offers_passkeys().then_some(PASSKEY_SCRIPT);
        table.files(super::static_files(script.as_slice()));
        let pages = self.clone();
        table.dialect(Dialect::new("/", move |problem, request| problems::write(&pages, problem, request)));
        for path in api {
            table.dialect(Dialect::new(path, |_problem, _request| None));
        }
    }

    /// Adds a page to a service's table.
    pub fn add_page<S: Authority>(
        &self,
        table: &mut RouteTable<S>,
        method: Method,
        path: &str,
        need: Need,
        handler: MethodRouter,
    ) {
        // What a page shows and does is authorised by the operations that it calls.
        let access = Access { action: "page", need, fresh: false };
        table.page(method, path, access, credentials, handler.layer(from_fn(super::secure)));
    }

    /// The key that signs forms' tokens and flash messages.
    fn csrf(&self) -> &Csrf {
        &self.0.csrf
    }

    /// The path of a page of ours that a `Referer` names.
    fn local_referer(&self, headers: &HeaderMap) -> Option<String> {
        let referer = headers.get(header::REFERER)?.to_str().ok()?;
        super::local_path(referer.strip_prefix(self.0.origin.as_str())?).map(str::to_owned)
    }

    /// The navigation of a person at `path`.
    fn navigation(&self, identity: &Identity, path: &str) -> Vec<NavGroup<'static>> {
        let is_admin = identity.account.roles().has(Role::Admin);
        let shown: Vec<_> = self.0.navigation.iter().filter(|entry| is_admin || !entry.for_admins).collect();
        let item = |entry: &&NavEntry| NavItem {
            label: entry.label,
            icon: entry.icon,
            href: entry.href,
            current: path == entry.href || entry.prefixes.iter().any(|prefix| path.starts_with(prefix)),
        };
        let groups = shown.chunk_by(|one, next| one.group == next.group);
        groups
            .map(|group| NavGroup { label: group[0].group, items: group.iter().map(item).collect() })
            .collect()
    }
}

/// A person who is logged in, with the role that allows most.
fn user(identity: &Identity) -> User<'_> {
    let roles = identity.account.roles();
    let role = Role::ALL.into_iter().find(|role| roles.has(*role));
    User { name: identity.account.name().as_str(), about: role.map_or("", Role::title) }
}

/// Pages read the token from a cookie.
fn credentials(headers: &HeaderMap) -> Result<Option<Secret>, Problem> {
    Ok(super::session_of(headers))
}

/// The login page, for a browser that is to come back to `path`.
fn login_path(path: &str) -> String {
    format!("{LOGIN}?next={}", data_encoding::BASE64URL_NOPAD.encode(path.as_bytes()))
}

const LOGIN: &str = "/login";
