//! The frame of a page: navigation, the page's head, and its content.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};

use super::assets::{MARK_HREF, SCRIPT_HREF, STYLE_HREF};
use super::flash::Flash;
use super::form::{self, FieldError, error_summary};
use super::icon::{Icon, mark, rings};
use super::parts::note;

/// The service whose pages they are.
#[derive(Clone, Debug)]
pub struct Site {
    /// The service's name, as shown.
    pub service: &'static str,
    /// The name of the site that it belongs to: `example.net`.
    pub name: String,
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

/// Links of the navigation that belong together.
#[derive(Clone, Debug)]
pub struct NavGroup<'a> {
    /// The caption above them; empty: none.
    pub label: &'a str,
    /// The links.
    pub items: Vec<NavItem<'a>>,
}

/// A link of the navigation.
#[derive(Clone, Copy, Debug)]
pub struct NavItem<'a> {
    /// Its text.
    pub label: &'a str,
    /// Its icon.
    pub icon: Icon,
    /// Its path.
    pub href: &'a str,
    /// Whether the page belongs to it.
    pub current: bool,
}

/// The layout of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// All the room there is: lists, and pages of two columns ([`super::split`]).
    Wide,
    /// A column of a comfortable width: forms and text.
    Text,
    /// A small centred column without navigation: login.
    Gate,
}

/// A page. Take the rest from [`Page::new`]: `Page { user, nav, ..Page::new(&site, "Accounts", body) }`.
#[derive(Debug)]
pub struct Page<'a> {
    /// The service.
    pub site: &'a Site,
    /// The pages above this one: texts and paths.
    pub crumbs: &'a [(&'a str, &'a str)],
    /// The page's heading and title.
    pub title: &'a str,
    /// Whether the title is an account's name: its first letter is shown in a circle.
    pub is_account: bool,
    /// A sentence below the heading, for a list.
    pub lead: Option<&'a str>,
    /// What is to be known at first sight, below the heading of a thing: its state, then two to four facts.
    pub meta: Vec<Markup>,
    /// The visitor who is logged in.
    pub user: Option<User<'a>>,
    /// The navigation.
    pub nav: &'a [NavGroup<'a>],
    /// The result of the form before this page.
    pub flash: Option<&'a Flash>,
    /// The errors of the form that this page shows again.
    pub errors: &'a [FieldError],
    /// The token for the form that logs out: [`super::Csrf::token`].
    pub csrf: &'a str,
    /// Addresses of scripts, from [`super::Asset::href`]. The page must be of use without them.
    pub scripts: &'a [&'a str],
    /// At most one secondary and one primary button beside the heading, the primary one last.
    pub actions: Markup,
    /// The layout.
    pub layout: Layout,
    /// The page itself.
    pub body: Markup,
}

impl<'a> Page<'a> {
    /// A wide page without a visitor.
    #[must_use]
    pub fn new(site: &'a Site, title: &'a str, body: Markup) -> Self {
        Self {
            site,
            crumbs: &[],
            title,
            is_account: false,
            lead: None,
            meta: Vec::new(),
            user: None,
            nav: &[],
            flash: None,
            errors: &[],
            csrf: "",
            scripts: &[],
            actions: html! {},
            layout: Layout::Wide,
            body,
        }
    }

    /// The page as HTML.
    #[must_use]
    pub fn render(&self) -> Markup {
        html! {
            (DOCTYPE)
            html lang="en" {
                (self.html_head())
                body {
                    a.skip href="#main" { "Skip to the content" }
                    @if self.layout == Layout::Gate {
                        div.gate { (rings()) (self.main()) }
                    } @else if self.nav.is_empty() && self.user.is_none() {
                        header.bar { (self.brand()) }
                        (self.main())
                    } @else {
                        // The navigation is there twice, and one of them is not displayed: no script chooses.
                        div.app {
                            header.rail { (self.brand()) (self.navigation()) (self.user_menu()) }
                            header.bar { (self.brand()) (self.small_menu()) }
                            (self.main())
                        }
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

    fn html_head(&self) -> Markup {
        let Site { service, name, .. } = self.site;
        html! {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                // A screen reader reads the title first.
                title {
                    @if !self.errors.is_empty() { "Error: " }
                    (self.title) " · " (service) " · " (name)
                }
                link rel="icon" type="image/svg+xml" href=(*MARK_HREF);
                link rel="stylesheet" href=(*STYLE_HREF);
                script src=(*SCRIPT_HREF) type="module" {}
                @for script in self.scripts { script src=(script) type="module" {} }
            }
        }
    }

    fn brand(&self) -> Markup {
        html! {
            a.brand href=(self.site.home) {
                (mark(26))
                span { b { (self.site.service) } small { (self.site.name) } }
            }
        }
    }

    fn navigation(&self) -> Markup {
        html! {
            nav aria-label="Main" {
                @for group in self.nav {
                    @if !group.label.is_empty() { h2 { (group.label) } }
                    ul {
                        @for item in &group.items {
                            li {
                                a.go href=(item.href) aria-current=[item.current.then_some("page")] {
                                    (item.icon.svg()) (item.label)
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    /// A menu at the foot of the rail. It opens without a script.
    fn user_menu(&self) -> Markup {
        html! {
            @if let Some(user) = self.user {
                details.me data-menu {
                    summary {
                        (initial(user.name))
                        span { b { (user.name) } @if !user.about.is_empty() { small { (user.about) } } }
                        (Icon::DOWN.svg())
                    }
                    div.sheet { (self.own_links()) }
                }
            }
        }
    }

    fn small_menu(&self) -> Markup {
        html! {
            details.menu data-menu {
                summary { (Icon::MENU.svg()) "Menu" }
                div.sheet {
                    (self.navigation())
                    @if let Some(user) = self.user {
                        div.own { p.hint.who { "Logged in as " (user.name) } (self.own_links()) }
                    }
                }
            }
        }
    }

    fn own_links(&self) -> Markup {
        html! {
            @if let Some(account) = self.site.account { a href=(account) { "Your account" } }
            (form::form(self.site.logout, self.csrf, html! { button type="submit" { "Log out" } }))
        }
    }

    fn main(&self) -> Markup {
        html! {
            main #main tabindex="-1" class=[(self.layout == Layout::Text).then_some("text")] {
                (self.head())
                @if let Some(flash) = self.flash {
                    div role="status" { (note(flash.tone, html! { p { (flash.text) } })) }
                }
                (error_summary(self.errors))
                (self.body)
            }
        }
    }

    fn head(&self) -> Markup {
        html! {
            div.head {
                @if !self.crumbs.is_empty() {
                    nav.crumbs aria-label="Parents" {
                        @for (at, (label, href)) in self.crumbs.iter().enumerate() {
                            @if at > 0 { " / " }
                            a href=(href) { (label) }
                        }
                    }
                }
                @if self.is_account { (initial(self.title)) }
                div.title {
                    @if self.layout == Layout::Gate { (mark(44)) }
                    h1 { (self.title) }
                    @if let Some(lead) = self.lead { p.lead { (lead) } }
                    @if !self.meta.is_empty() {
                        div.meta { @for fact in &self.meta { span { (fact) } } }
                    }
                }
                @if !self.actions.0.is_empty() { div.actions { (self.actions) } }
            }
        }
    }
}

/// The first letter of a name, in a circle.
fn initial(name: &str) -> Markup {
    html! { span.face aria-hidden="true" { (name.chars().next().unwrap_or(' ')) } }
}

#[cfg(test)]
mod tests {
    use super::super::parts::Tone;
    use super::*;

    fn site() -> Site {
        let name = "example.net".to_owned();
        Site { service: "MC <IAS>", name, home: "/", account: Some("/account"), logout: "/logout" }
    }

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
        let site = site();
        let page = Page::new(&site, "A & B", html! { p { "Hello" } });
        let parts = [
            "<!DOCTYPE html><html lang=\"en\">",
            "<title>A &amp; B · MC &lt;IAS&gt; · example.net</title>",
            "<small>example.net</small>",
            "<h1>A &amp; B</h1>",
            "<a class=\"skip\" href=\"#main\">",
            "<main id=\"main\"",
            "<p>Hello</p>",
        ];
        check(&page, &parts, &["<nav", "<details", "<form", "style=", "role=\"status\""]);
        let gate = Page { layout: Layout::Gate, ..Page::new(&site, "Log in", html! {}) };
        check(&gate, &["<div class=\"gate\">", "<h1>Log in</h1>"], &["<header", "style="]);
    }

    #[test]
    fn a_visitor_can_log_out() {
        let site = site();
        let user = Some(User { name: "<ada>", about: "Administrator" });
        let page = Page { user, csrf: "tok", ..Page::new(&site, "A", html! {}) };
        let logout =
            "<form method=\"post\" action=\"/logout\"><input type=\"hidden\" name=\"csrf\" value=\"tok\">";
        check(&page, &["&lt;ada&gt;", "<a href=\"/account\">", logout], &["<ada>", "style="]);
        // At the foot of the rail, and in the menu of a small window.
        assert_eq!(page.render().0.matches(logout).count(), 2);
    }

    #[test]
    fn the_current_page_is_marked() {
        let site = site();
        let item = |label, href, current| NavItem { label, icon: Icon::HOME, href, current };
        let nav = [
            NavGroup { label: "", items: vec![item("A", "/a", true)] },
            NavGroup { label: "More", items: vec![item("B", "/b", false)] },
        ];
        let page = Page { nav: &nav, scripts: &["/static/0/a.js"], ..Page::new(&site, "A", html! {}) };
        let parts = [
            "<a class=\"go\" href=\"/a\" aria-current=\"page\">",
            "<a class=\"go\" href=\"/b\">",
            "<h2>More</h2>",
            "<script src=\"/static/0/a.js\" type=\"module\"></script>",
        ];
        check(&page, &parts, &["<h2></h2>", "style="]);
    }

    #[test]
    fn the_head_says_what_and_where() {
        let site = site();
        let page = Page {
            crumbs: &[("Accounts", "/accounts")],
            is_account: true,
            meta: vec![html! { "Active" }, html! { "Person" }],
            ..Page::new(&site, "ada", html! {})
        };
        let parts = [
            "<nav class=\"crumbs\" aria-label=\"Parents\"><a href=\"/accounts\">Accounts</a></nav>",
            "<span class=\"face\" aria-hidden=\"true\">a</span>",
            "<span>Active</span><span>Person</span>",
        ];
        check(&page, &parts, &[]);
    }

    #[test]
    fn errors_come_first() {
        let site = site();
        let errors = [FieldError { field: "name", text: "Name: too long".to_owned() }];
        let page = Page { errors: &errors, ..Page::new(&site, "A", html! {}) };
        check(&page, &["<title>Error: A · ", "href=\"#name\">Name: too long</a>"], &[]);
    }

    #[test]
    fn a_message_is_shown_as_text_and_once() {
        let site = site();
        let flash = Flash::new(Tone::Good, "<b>Saved</b>");
        let page = Page { flash: Some(&flash), ..Page::new(&site, "A", html! {}) };
        check(&page, &["<div role=\"status\"><div class=\"note good\"><p>&lt;b&gt;Saved"], &["<b>Saved"]);
        assert_eq!(page.respond(StatusCode::OK).headers()["set-cookie"], Flash::clear());
        let without = Page::new(&site, "A", html! {}).respond(StatusCode::NOT_FOUND);
        assert_eq!((without.status(), without.headers().get("set-cookie")), (StatusCode::NOT_FOUND, None));
    }
}
