//! Icons: line drawings on a grid of 16, in the colour of the text beside them. They are always beside a word.

use maud::{Markup, html};

/// An icon: the data of an SVG path (SVG 2, section 9.3) on a grid of 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icon(&'static str);

impl Icon {
    /// Several people: accounts.
    pub const ACCOUNTS: Self = Self(
        "M6 8a2.5 2.5 0 100-5 2.5 2.5 0 000 5zM1.5 13c0-5 9-5 9 0M11 3.3a2.5 2.5 0 010 4.4M12 10c1.6.4 2.5 1.4 2.5 3",
    );
    /// A circle with a tick.
    pub const ALLOWED: Self = Self("M8 14A6 6 0 108 2a6 6 0 000 12zM5.2 8.2l2 2 3.6-4.2");
    /// A circle that is crossed out.
    pub const DENIED: Self = Self("M8 14A6 6 0 108 2a6 6 0 000 12zM3.8 3.8l8.4 8.4");
    /// Opens something below it.
    pub const DOWN: Self = Self("M4 6.5l4 4 4-4");
    /// A sheet with lines: the audit log.
    pub const LOG: Self = Self("M3.5 1.5h6l3 3v10h-9zM9.5 1.5v3h3M6 8h4M6 11h4");
    /// A house: the start page.
    pub const HOME: Self = Self("M2 7.5L8 2.5l6 5M3.5 6.5v7h9v-7M6.5 13.5v-4h3v4");
    /// A key: ways to log in.
    pub const KEY: Self =
        Self("M10 9.5a3.75 3.75 0 10-3.5-2.4L2 11.6V14h2.5v-1.5H6V11h1.5l1-1.2c.5-.2 1-.3 1.5-.3zM11 4.7v.1");
    /// Lines: recovery codes.
    pub const LIST: Self = Self("M6 4h8M6 8h8M6 12h8M2.5 4h.1M2.5 8h.1M2.5 12h.1");
    /// Three bars.
    pub const MENU: Self = Self("M2 4.5h12M2 8h12M2 11.5h12");
    /// A person with a key.
    pub const PASSKEY: Self = Self(
        "M6.5 7.5a2.75 2.75 0 100-5.5 2.75 2.75 0 000 5.5zM1.5 13.5c0-3.6 3-4.8 6-4M12 9a2 2 0 100-4 2 2 0 000 4zM12 9v5l1.2-1.2M12 11.5h1",
    );
    /// A phone: an authenticator app.
    pub const PHONE: Self = Self("M4.5 1.5h7v13h-7zM7.5 12.5h1");
    /// A plus: something new.
    pub const PLUS: Self = Self("M8 3v10M3 8h10");
    /// Lines with a tick and a cross: rules.
    pub const RULES: Self = Self("M2 4h6M2 8h6M2 12h6M10.5 4l1.2 1.2L14 3M10.7 9.5l3 3M13.7 9.5l-3 3");
    /// Leads to something.
    pub const RIGHT: Self = Self("M6.5 4l4 4-4 4");
    /// A screen: sessions.
    pub const SCREEN: Self = Self("M1.5 3h13v8.5h-13zM5.5 14h5");
    /// A shield: keys that sign.
    pub const SHIELD: Self = Self("M8 1.5l5.5 2v4c0 3.4-2.2 5.8-5.5 7-3.3-1.2-5.5-3.6-5.5-7v-4z");
    /// A cross: takes something away.
    pub const CROSS: Self = Self("M4 4l8 8M12 4l-8 8");

    /// As inline SVG. Screen readers pass over it.
    #[must_use]
    pub fn svg(self) -> Markup {
        html! { svg.i viewBox="0 0 16 16" aria-hidden="true" { path d=(self.0) {} } }
    }
}

/// The mark of all services: nested circles, `size` pixels wide.
#[must_use]
pub(super) fn mark(size: u8) -> Markup {
    html! {
        svg.mark viewBox="0 0 32 32" width=(size) height=(size) aria-hidden="true" {
            circle cx="16" cy="16" r="13.5" stroke-width="3" {}
            circle cx="16" cy="20.5" r="6" stroke-width="3" {}
            circle cx="16" cy="22.5" r="1.25" stroke-width="1.5" {}
        }
    }
}

/// The same circles, large: the ground of a page that stands alone.
pub(super) fn rings() -> Markup {
    html! {
        svg.rings aria-hidden="true" {
            @for radius in ["26%", "46%", "52%", "66%"] {
                circle cx="50%" cy="62%" r=(radius) {}
            }
        }
    }
}
