//! Pages for people, written on the server: what every service's web pages have in common.
//!
//! A page is a [`Page`] around [`maud::Markup`] that is made of the functions here: forms, fields, tables, badges. They work
//! without a script, by keyboard, with a screen reader, on a telephone, in light and in dark (WCAG 2.2, level AA).
//! Around it: the cookie that holds the account's token, the token that shows that a form is ours ([`Csrf`]), a message for
//! the next page ([`Flash`]), headers that let a browser do no more than a page needs ([`secure`]), and files whose addresses
//! change with their content ([`static_files`]).
//!
//! Left out: what the pages say, who may see them, and the server.

mod assets;
mod cookies;
mod csrf;
mod flash;
mod form;
mod headers;
mod local;
mod page;
mod parts;

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
pub use page::{NavItem, Page, Site, User, Width};
pub use parts::{Tone, badge, card, code_block, copyable, empty_state, facts, notice, pagination, qr, table};
