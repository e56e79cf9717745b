//! The audit log, for admins: what every service has (see `mcdsl::audit`).

use futures_util::stream::BoxStream;
use mc_api::audit as api;
use mcdsl::permit::Permit;
use mcdsl::problem::Problem;

use super::Mcias;

impl Mcias {
    /// Lists entries, newest first.
    ///
    /// # Errors
    /// See [`Problem`].
    pub(crate) async fn list_audit(
        &self,
        permit: Permit,
        request: api::ListAuditRequest,
    ) -> Result<api::ListAuditResponse, Problem> {
        self.db.list(permit, request).await
    }

    /// Exports entries, oldest first.
    ///
    /// # Errors
    /// See [`Problem`].
    pub(crate) async fn export_audit(
        &self,
        permit: Permit,
        request: api::ExportAuditRequest,
    ) -> Result<BoxStream<'static, Result<api::AuditEntry, Problem>>, Problem> {
        self.db.export(permit, request)
    }

    /// Verifies a slice of the chain.
    ///
    /// # Errors
    /// See [`Problem`].
    pub(crate) async fn verify_audit(
        &self,
        permit: Permit,
        request: api::VerifyAuditRequest,
    ) -> Result<api::VerifyAuditResponse, Problem> {
        self.db.verify(permit, request).await
    }
}
