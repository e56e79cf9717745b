//! Passkeys in pages: the script that runs WebAuthn's ceremonies, and the part of a page that it works on.

use maud::{Markup, html};
use serde::Serialize;

use super::super::assets::Asset;
use super::super::form::Action;
use super::super::icon::Icon;

/// The script: a service that offers passkeys serves it with [`super::super::static_files`].
pub const PASSKEY_SCRIPT: Asset = Asset {
    name: "passkey.js",
    content_type: "text/javascript; charset=utf-8",
    bytes: include_bytes!("passkey.js"),
};

/// What the script is told where a ceremony has succeeded: the page to open.
#[derive(Clone, Debug, Serialize)]
pub struct GoTo {
    /// Its path.
    pub to: String,
}

/// A button that runs a ceremony, with fields that are sent along. `ceremony` is `get` to log in and `create` to add a passkey; the
/// script posts to `begin` and `finish` below `root`. It is not a `form`, which the Enter key would send without a ceremony. Without a script
/// it is not displayed.
#[must_use]
pub fn passkey_form(
    ceremony: &str,
    root: &str,
    csrf: &str,
    fields: Markup,
    button: (&str, Action),
) -> Markup {
    let (label, action) = button;
    html! {
        div.passkey.js.stack data-passkey=(ceremony) data-root=(root) {
            input type="hidden" name=(super::super::csrf::CSRF_FIELD) value=(csrf);
            (fields)
            button class=(action.class()) type="button" disabled { (Icon::PASSKEY.svg()) (label) }
            p.hint role="status" aria-live="polite" {}
        }
    }
}
