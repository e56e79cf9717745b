//! Web pages, rendered on the server: what all services' pages share.
//!
//! A page is a [`Page`] around [`maud::Markup`] from the functions here: forms, fields, tables, states. Pages work
//! without a script, by keyboard, with a screen reader, on a phone, in light and in dark (WCAG 2.2, level AA). With
//! them: cookies for secrets, protection against forged forms ([`Csrf`]), a message for the next page ([`Flash`]),
//! security headers ([`secure`]), and files whose paths change with their content ([`static_files`]). Login, logout and
//! the visitor of a page are in `session`, with the feature `service`.
//!
//! Left out: the content of pages, and the server.

mod assets;
#[cfg(feature = "service")]
pub mod audit;
mod cookies;
mod csrf;
mod flash;
mod form;
mod headers;
mod icon;
mod local;
mod origin;
mod page;
mod parts;
#[cfg(feature = "service")]
pub mod policy;
#[cfg(feature = "service")]
pub mod session;
mod table;
mod when;

pub use assets::{Asset, static_files};
pub use cookies::{anonymous, anonymous_of, clear_session, session_cookie, session_of};
pub use csrf::{CSRF_FIELD, Csrf, Refused, check_form, same_origin};
pub use flash::Flash;
pub use form::{
    Action, Choice, Field, FieldError, Kind, button, error_summary, field, fieldset, filters, form,
    link_button, search_form, sentence, username_for_managers,
};
pub use headers::{secure, security_headers};
pub use icon::Icon;
pub use local::{local_path, redirect};
pub use origin::check_origin;
pub use page::{Layout, NavGroup, NavItem, Page, Site, User};
pub use parts::{
    Attention, Confirm, Danger, Once, Tone, attention, chips, code_block, confirm, copy, danger_zone,
    diff_block, empty_state, facts, item, note, nothing_matches, once, padded, pager, panel, pill,
    plain_panel, qr, split, split_wide, state, tag, tags,
};
pub use table::{Column, table};
pub use when::{ago, ago_or, clock, day, when};
