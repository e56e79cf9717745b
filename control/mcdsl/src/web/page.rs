//! The frame of a page: header, navigation and content.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};

use super::assets::{MARK_HREF, STYLE_HREF};
use super::flash::Flash;
use super::form::{self, FieldError, error_summary};
use super::parts::notice;

/// The service whose pages they are.
#[derive(Clone, Copy, Debug)]
pub struct Site {
    /// Its name, as shown.
    pub service: &'static str,
    /// The start page: its name links to it.
    pub home: &'static str,
    /// The page of the visitor's own account, if the service has one.
    pub account: Option<&'static str>,
    /// The path that the logout form is posted to.
    pub logout: &'static str,
}

/// The visitor who is logged in.
#[derive(Clone, Copy, Debug)]
pub struct User<'a> {
    /// The account's name.
    pub name: &'a str,
    /// Its roles, in a word.
    pub about: &'a str,
}

/// A link of the navigation.
#[derive(Clone, Copy, Debug)]
pub struct NavItem<'a> {
    /// Its text.
    pub label: &'a str,
    /// Its path.
    pub href: &'a str,
    /// Whether the page belongs to it.
    pub current: bool,
}

/// The width of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// The window's: lists and tables.
    Wide,
    /// A column of a comfortable width: forms and text.
    Text,
    /// A small centred column: login.
    Narrow,
}

/// A page. Take the rest from [`Page::new`]: `Page { user, nav, ..Page::new(&SITE, "Accounts", body) }`.
#[derive(Debug)]
pub struct Page<'a> {
    /// The service.
    pub site: &'a Site,
    /// The page's heading and title.
    pub title: &'a str,
    /// A sentence below the heading.
    pub lead: Option<&'a str>,
    /// The visitor who is logged in.
    pub user: Option<User<'a>>,
    /// The navigation.
    pub nav: &'a [NavItem<'a>],
    /// The result of the form before this page.
    pub flash: Option<&'a Flash>,
    /// The errors of the form that this page shows again.
    pub errors: &'a [FieldError],
    /// The token for the form that logs out: [`super::Csrf::token`].
    pub csrf: &'a str,
    /// Addresses of scripts, from [`super::Asset::href`]. The page must be of use without them.
    pub scripts: &'a [&'a str],
    /// Links beside the heading that look like buttons.
    pub actions: Markup,
    /// The width of the body.
    pub width: Width,
    /// The page itself.
    pub body: Markup,
}

impl<'a> Page<'a> {
    /// A wide page without a visitor.
    #[must_use]
    pub fn new(site: &'a Site, title: &'a str, body: Markup) -> Self {
        Self {
            site,
            title,
            lead: None,
            user: None,
            nav: &[],
            flash: None,
            errors: &[],
            csrf: "",
            scripts: &[],
            actions: html! {},
            width: Width::Wide,
            body,
        }
    }

    /// The page as HTML.
    #[must_use]
    pub fn render(&self) -> Markup {
        html! {
            (DOCTYPE)
            html lang="en" {
                (self.head())
                body {
                    a.skip href="#main" { "Skip to the content" }
                    (self.top())
                    div.frame.with-nav[!self.nav.is_empty()] {
                        (self.navigation())
                        main #main tabindex="-1" class=(self.width.class()) { (self.content()) }
                    }
                }
            }
        }
    }

    /// The page as a response. It clears the flash message that it shows.
    #[must_use]
    pub fn respond(&self, status: StatusCode) -> Response {
        let mut response = (status, self.render()).into_response();
        if self.flash.is_some() {
            response.headers_mut().append(header::SET_COOKIE, Flash::clear());
        }
        response
    }

    fn head(&self) -> Markup {
        html! {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                // A screen reader reads the title first.
                title {
                    @if !self.errors.is_empty() { "Error: " }
                    (self.title) " · " (self.site.service)
                }
                link rel="icon" type="image/svg+xml" href=(*MARK_HREF);
                link rel="stylesheet" href=(*STYLE_HREF);
                @for script in self.scripts { script src=(script) type="module" {} }
            }
        }
    }

    fn top(&self) -> Markup {
        html! {
            header.top {
                a.brand href=(self.site.home) {
                    img src=(*MARK_HREF) alt="" width="28" height="28";
                    span { (self.site.service) }
                }
                @if let Some(user) = self.user { (self.user_menu(user)) }
            }
        }
    }

    /// A menu that opens without a script.
    fn user_menu(&self, user: User<'_>) -> Markup {
        html! {
            details.user {
                summary { span.hidden { "Account: " } (user.name) }
                div.menu {
                    @if !user.about.is_empty() { p.about { (user.about) } }
                    @if let Some(account) = self.site.account { a href=(account) { "Your account" } }
                    (form::form(self.site.logout, self.csrf, html! { button type="submit" { "Log out" } }))
                }
            }
        }
    }

    fn navigation(&self) -> Markup {
        html! {
            @if !self.nav.is_empty() {
                nav.side aria-label="Main" {
                    ul {
                        @for item in self.nav {
                            li { a href=(item.href) aria-current=[item.current.then_some("page")] { (item.label) } }
                        }
                    }
                }
            }
        }
    }

    fn content(&self) -> Markup {
        html! {
            @if let Some(flash) = self.flash {
                div role="status" { (notice(flash.tone, html! { p { (flash.text) } })) }
            }
            (error_summary(self.errors))
            div.heading {
                div {
                    h1 { (self.title) }
                    @if let Some(lead) = self.lead { p.lead { (lead) } }
                }
                @if !self.actions.0.is_empty() { div.actions { (self.actions) } }
            }
            (self.body)
        }
    }
}

impl Width {
    const fn class(self) -> &'static str {
        match self {
            Self::Wide => "wide",
            Self::Text => "text",
            Self::Narrow => "narrow",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::parts::Tone;
    use super::*;

    const SITE: Site = Site { service: "MC <IAS>", home: "/", account: Some("/account"), logout: "/logout" };

    fn check(page: &Page<'_>, parts: &[&str], absent: &[&str]) {
        let html = page.render().0;
        for part in parts {
            assert!(html.contains(part), "{part} is not in {html}");
        }
        for part in absent {
            assert!(!html.contains(part), "{part} is in {html}");
        }
    }

    #[test]
    fn a_page_without_a_visitor_has_no_menu() {
        let page = Page::new(&SITE, "A & B", html! { p { "Hello" } });
        let parts = [
            "<!DOCTYPE html><html lang=\"en\">",
            "<title>A &amp; B · MC &lt;IAS&gt;</title>",
            "<h1>A &amp; B</h1>",
            "<a class=\"skip\" href=\"#main\">",
            "<main id=\"main\"",
            "<p>Hello</p>",
        ];
        check(&page, &parts, &["<nav", "<details", "<form", "<script", "style=", "role=\"status\""]);
    }

    #[test]
    fn a_visitor_can_log_out() {
        let user = Some(User { name: "<ada>", about: "admin" });
        let page = Page { user, csrf: "tok", ..Page::new(&SITE, "A", html! {}) };
        let logout =
            "<form method=\"post\" action=\"/logout\"><input type=\"hidden\" name=\"csrf\" value=\"tok\">";
        check(&page, &["&lt;ada&gt;", "<a href=\"/account\">", logout], &["<ada>"]);
    }

    #[test]
    fn the_current_page_is_marked() {
        let nav = [
            NavItem { label: "A", href: "/a", current: true },
            NavItem { label: "B", href: "/b", current: false },
        ];
        let page = Page { nav: &nav, scripts: &["/static/0/a.js"], ..Page::new(&SITE, "A", html! {}) };
        let parts = [
            "<a href=\"/a\" aria-current=\"page\">A</a>",
            "<a href=\"/b\">B</a>",
            "<script src=\"/static/0/a.js\" type=\"module\"></script>",
        ];
        check(&page, &parts, &[]);
    }

    #[test]
    fn errors_come_first() {
        let errors = [FieldError { field: "name", text: "Name: too long".to_owned() }];
        let page = Page { errors: &errors, ..Page::new(&SITE, "A", html! {}) };
        check(&page, &["<title>Error: A · ", "href=\"#name\">Name: too long</a>"], &[]);
    }

    #[test]
    fn a_message_is_shown_as_text_and_once() {
        let flash = Flash::new(Tone::Good, "<b>Saved</b>");
        let page = Page { flash: Some(&flash), ..Page::new(&SITE, "A", html! {}) };
        check(&page, &["<div role=\"status\"><div class=\"notice good\"><p>&lt;b&gt;Saved"], &["<b>"]);
        assert_eq!(page.respond(StatusCode::OK).headers()["set-cookie"], Flash::clear());
        let without = Page::new(&SITE, "A", html! {}).respond(StatusCode::NOT_FOUND);
        assert_eq!((without.status(), without.headers().get("set-cookie")), (StatusCode::NOT_FOUND, None));
    }
}
