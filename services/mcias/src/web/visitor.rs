//! The visitor of a page, with the use cases on the visitor's behalf.

use std::ops::Deref;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use mcdsl::Secret;
use mcdsl::problem::Problem;
use mcdsl::web::session::{self, Pages, Sender};

use super::Shared;
use crate::app::{Calls, Mcias};

/// A form that a visitor has sent.
pub(super) type Posted<T> = session::Posted<Visitor, T>;

/// The same, filled in by hand: shown again if it has expired.
pub(super) type Submission<T> = session::Submission<Visitor, T>;

/// A person who is logged in.
pub(super) struct Visitor {
    visitor: session::Visitor,
    pub(super) calls: Calls,
}

impl Visitor {
    pub(super) fn app(&self) -> &Mcias {
        self.calls.service()
    }
}

impl Deref for Visitor {
    type Target = session::Visitor;

    fn deref(&self) -> &session::Visitor {
        &self.visitor
    }
}

impl FromRequestParts<Shared> for Visitor {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Problem> {
        let visitor = session::Visitor::from_request_parts(parts, shared).await?;
        let calls = Calls::new(Arc::clone(&shared.app), visitor.context().clone());
        Ok(Self { visitor, calls })
    }
}

impl Sender for Visitor {
    fn pages(&self) -> &Pages {
        self.visitor.pages()
    }

    fn binding(&self) -> Option<&Secret> {
        self.visitor.binding()
    }
}
