//! Forms that pages of ours sent: their token is checked before any of their fields is used.

use axum::extract::{FromRequest, FromRequestParts, Request};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::super::csrf::{CSRF_FIELD, Refused, check_form};
use super::super::form::FieldError;
use super::browser::{Browser, Visitor};
use super::{Pages, problems};
use crate::http::Form;
use crate::operation::FORGED_FORM;
use crate::problem::{Kind, Problem};
use crate::secret::Secret;

/// A form of a page of ours. One that has expired is refused: for buttons, and for scripts.
#[derive(Debug)]
pub struct Posted<V, T> {
    /// Who sent it: a [`Visitor`] or a [`Browser`].
    pub sender: V,
    /// Its fields.
    pub form: T,
}

/// A form of a page of ours that a person has filled in.
#[derive(Debug)]
pub enum Submission<V, T> {
    /// It can be processed.
    Valid(V, T),
    /// It came from this site, with the token of an ended session or of an earlier start. Show it again with what was typed and with
    /// [`expired_form`], and change nothing.
    Expired(V, T),
}

/// A form of buttons alone.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct NoFields {}

/// Who can send a form.
pub trait Sender: Send + Sized {
    /// The pages that the form must be from.
    fn pages(&self) -> &Pages;

    /// What its token must be bound to.
    fn binding(&self) -> Option<&Secret>;
}

impl Sender for Browser {
    fn pages(&self) -> &Pages {
        &self.pages
    }

    fn binding(&self) -> Option<&Secret> {
        self.id_cookie.is_none().then_some(&self.id)
    }
}

impl Sender for Visitor {
    fn pages(&self) -> &Pages {
        &self.browser.pages
    }

    fn binding(&self) -> Option<&Secret> {
        Some(self.token())
    }
}

impl<S, V, T> FromRequest<S> for Posted<V, T>
where
    S: Send + Sync,
    V: Sender + Sync + FromRequestParts<S, Rejection = Problem>,
    T: DeserializeOwned,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match Submission::from_request(request, state).await? {
            Submission::Valid(sender, form) => Ok(Self { sender, form }),
            Submission::Expired(..) => Err(problems::expired()),
        }
    }
}

impl<S, V, T> FromRequest<S> for Submission<V, T>
where
    S: Send + Sync,
    V: Sender + Sync + FromRequestParts<S, Rejection = Problem>,
    T: DeserializeOwned,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let sender = V::from_request_parts(&mut parts, state).await?;
        let headers = parts.headers.clone();
        let request = Request::from_parts(parts, body);
        let Form(mut pairs) = Form::<Vec<(String, String)>>::from_request(request, &()).await?;
        let given = pairs.iter().position(|(name, _)| name == CSRF_FIELD).map(|at| pairs.swap_remove(at).1);
        let pages = sender.pages();
        let checked = check_form(&headers, pages.csrf(), sender.binding(), given.as_deref(), &pages.0.origin);
        if let Err(refused) = checked
            && refused != Refused::Expired
        {
            // The table of routes records it.
            return Err(Problem::new(Kind::Forbidden, FORGED_FORM, refused.to_string()));
        }
        let text = serde_urlencoded::to_string(&pairs).expect("pairs of texts can be written");
        let form = serde_urlencoded::from_str(&text).map_err(|error| {
            Problem::new(Kind::Invalid, "malformed", format!("The form cannot be read: {error}."))
        })?;
        Ok(if checked.is_ok() { Self::Valid(sender, form) } else { Self::Expired(sender, form) })
    }
}

/// What a page says that shows an expired form again.
#[must_use]
pub fn expired_form() -> [FieldError; 1] {
    let text = "This form has expired. Check it and send it again.".to_owned();
    [FieldError { field: "", text }]
}

/// A problem with a form, at the field that it is about: `rules[2].tags[0]` is about `tags`.
#[must_use]
pub fn field_errors(problem: &Problem, fields: &[&'static str]) -> [FieldError; 1] {
    let path = problem.field.as_deref().unwrap_or_default();
    let last = path.rsplit('.').next().and_then(|last| last.split('[').next());
    let field = fields.iter().find(|field| Some(**field) == last).copied().unwrap_or("");
    let text = if field.is_empty() { problem.to_string() } else { problem.detail.clone() };
    [FieldError { field, text }]
}
