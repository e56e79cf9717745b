//! Forms that pages of ours sent: their token is checked before any of their fields is used.

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::super::csrf::{CSRF_FIELD, Refused, check_form};
use super::super::form::{FieldError, sentence};
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

/// A form of a page of ours that a person has filled in: [`Submission::handle`] processes it, or shows it again with what was typed.
#[derive(Debug)]
pub struct Submission<V, T> {
    sender: V,
    form: T,
    /// It came from this site, with the token of an ended session or of an earlier start: then it changes nothing.
    is_expired: bool,
}

/// How a page with a form is shown: with which status, and what is wrong with the form.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The response's status.
    pub status: StatusCode,
    /// What is wrong.
    pub errors: Vec<FieldError>,
}

impl Shown {
    /// A form that nobody has sent yet.
    #[must_use]
    pub const fn first() -> Self {
        Self { status: StatusCode::OK, errors: Vec::new() }
    }

    /// A form that has expired.
    fn expired() -> Self {
        let text = "This form has expired. Check it and send it again.".to_owned();
        Self { status: StatusCode::FORBIDDEN, errors: vec![FieldError { field: "", text }] }
    }

    /// A form with a problem, at the one of its `fields` that it is about: `rules[2].tags[0]` is about `tags`.
    #[must_use]
    pub fn again(problem: &Problem, fields: &[&'static str]) -> Self {
        let path = problem.field.as_deref().unwrap_or_default();
        let last = path.rsplit('.').next().and_then(|last| last.split('[').next());
        let field = fields.iter().find(|field| Some(**field) == last).copied().unwrap_or("");
        let text = sentence(&if field.is_empty() { problem.to_string() } else { problem.detail.clone() });
        Self { status: problem.status(), errors: vec![FieldError { field, text }] }
    }
}

impl<V, T> Submission<V, T> {
    /// Processes the form: `act` returns the response, or what is wrong, which is at one of the form's `fields` where it names one. `show`
    /// returns the page with the form again, for a form that is expired or wrong, so that nothing has to be typed twice.
    ///
    /// # Errors
    /// A new form would not help: a login is needed first, something is not there or not permitted, or something is broken.
    pub async fn handle(
        self,
        fields: &[&'static str],
        show: impl AsyncFnOnce(&V, &T, Shown) -> Result<Response, Problem>,
        act: impl AsyncFnOnce(&V, &T) -> Result<Response, Problem>,
    ) -> Result<Response, Problem> {
        let Self { sender, form, is_expired } = self;
        if is_expired {
            return show(&sender, &form, Shown::expired()).await;
        }
        match act(&sender, &form).await {
            Err(problem) if can_be_corrected(&problem) => {
                show(&sender, &form, Shown::again(&problem, fields)).await
            }
            answer => answer,
        }
    }
}

/// Whether the sender can correct the form, or send it once more.
fn can_be_corrected(problem: &Problem) -> bool {
    problem.field.is_some()
        || matches!(
            problem.kind,
            Kind::Invalid
                | Kind::Exists
                | Kind::FailedPrecondition
                | Kind::PreconditionFailed
                | Kind::Changed
                | Kind::TooMany
                | Kind::Unavailable
        )
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
        let Submission { sender, form, is_expired } = Submission::from_request(request, state).await?;
        if is_expired { Err(problems::expired()) } else { Ok(Self { sender, form }) }
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
        Ok(Self { sender, form, is_expired: checked.is_err() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_at_the_field_that_it_is_about() {
        let of = |field: &str| Shown::again(&Problem::field(field, "is empty"), &["tags", "name"]).errors;
        assert_eq!(of("rules[2].tags[0]"), [FieldError { field: "tags", text: "Is empty.".to_owned() }]);
        assert_eq!(of("name"), [FieldError { field: "name", text: "Is empty.".to_owned() }]);
        let [other] = of("rules[2].effect").try_into().expect("there is one");
        assert!(other.field.is_empty() && other.text.contains("effect"), "{other:?}");
    }
}
