//! Web pages, rendered on the server: what all services' pages share.
//!
//! A page is a [`Page`] around [`maud::Markup`] from the functions here: forms, fields, tables, badges. Pages work
//! without a script, by keyboard, with a screen reader, on a phone, in light and in dark (WCAG 2.2, level AA). With
//! them: cookies for secrets, protection against forged forms ([`Csrf`]), a message for the next page ([`Flash`]),
//! security headers ([`secure`]), and files whose paths change with their content ([`static_files`]). Login, logout and
//! the visitor of a page are in `session`, with the feature `service`.
//!
//! Left out: the content of pages, and the server.

mod assets;
mod cookies;
mod csrf;
mod flash;
mod form;
mod headers;
mod local;
mod origin;
mod page;
mod parts;
#[cfg(feature = "service")]
pub mod session;
mod when;

pub use assets::{Asset, static_files};
pub use cookies::{anonymous, anonymous_of, clear_session, session_cookie, session_of};
pub use csrf::{CSRF_FIELD, Csrf, Refused, check_form, same_origin};
pub use flash::Flash;
pub use form::{
    Action, Choice, Field, FieldError, Kind, button, confirm, error_summary, field, fieldset, form,
    link_button, search_form,
};
pub use headers::{secure, security_headers};
pub use local::{local_path, redirect};
pub use origin::check_origin;
pub use page::{NavItem, Page, Site, User, Width};
pub use parts::{Tone, badge, card, code_block, copyable, empty_state, facts, notice, pagination, qr, table};
pub use when::{when, when_or};
