//! What MCIAS's actions are called in sentences of the audit log.

use mcdsl::web::audit::Words;

/// MCIAS's own actions.
pub(super) const WORDS: [Words; 42] = [
    Words::new("login", "Logged in to", "Login to"),
    Words::new("login.begin", "Began login", "Begin login"),
    Words::new("logout", "Logged out", "Log out"),
    Words::new("link.get", "Opened setup link", "Open setup link"),
    Words::new("link.issue", "Created setup link for", "Create setup link for"),
    Words::new("link.redeem", "Set password by setup link", "Set password by setup link"),
    Words::new("introspect", "Looked up token", "Look up token"),
    Words::new("key-set.get", "Fetched public keys", "Fetch public keys"),
    Words::new("self.get", "Read own account", "Read own account"),
    Words::new("password.change", "Changed password", "Change password"),
    Words::new("totp.begin", "Began to set up authenticator app", "Begin to set up authenticator app"),
    Words::new("totp.confirm", "Set up authenticator app", "Set up authenticator app"),
    Words::new("totp.remove", "Removed authenticator app", "Remove authenticator app"),
    Words::new("recovery-codes.replace", "Created recovery codes", "Create recovery codes"),
    Words::new("passkey.list", "Listed passkeys", "List passkeys"),
    Words::new("passkey.begin", "Began to add passkey", "Begin to add passkey"),
    Words::new("passkey.add", "Added passkey", "Add passkey"),
    Words::new("passkey.rename", "Renamed passkey", "Rename passkey"),
    Words::new("passkey.remove", "Removed passkey", "Remove passkey"),
    Words::new("session.list", "Listed sessions", "List sessions"),
    Words::new("session.end", "Ended session", "End session"),
    Words::new("session.end-others", "Ended other sessions", "End other sessions"),
    Words::new("session.end-all", "Ended all sessions of", "End all sessions of"),
    Words::new("account.create", "Created account", "Create account"),
    Words::new("account.get", "Read account", "Read account"),
    Words::new("account.list", "Listed accounts", "List accounts"),
    Words::where_detail("account.update", "was_enabled=true ", "Disabled account"),
    Words::where_detail("account.update", "was_enabled=false ", "Enabled account"),
    Words::new("account.update", "Changed account", "Change account"),
    Words::new("account.delete", "Deleted account", "Delete account"),
    Words::new("account.list-deleted", "Listed deleted accounts", "List deleted accounts"),
    Words::new("account.release-name", "Released the name", "Release the name"),
    Words::new("factors.reset", "Reset sign-in methods of", "Reset sign-in methods of"),
    Words::new("token.issue", "Created token for", "Create token for"),
    Words::new("token.list", "Listed tokens of", "List tokens of"),
    Words::new("token.revoke", "Revoked token of", "Revoke token of"),
    Words::new("key.list", "Listed signing keys", "List signing keys"),
    Words::new("key.rotate", "Rotated signing key", "Rotate signing key"),
    Words::new("key.withdraw", "Withdrew signing key", "Withdraw signing key"),
    Words::new("login.test", "Tested a login to", "Test a login to"),
    Words::new("policy.test", "Tested a draft of the login policy", "Test a draft of the login policy"),
    Words::new("admin.make", "Created administrator", "Create administrator"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_has_words() {
        let known = |action: &str| WORDS.iter().any(|words| words.action == action);
        let missing: Vec<_> = mc_api::mcias::operations::ALL
            .iter()
            .map(|operation| operation.action)
            .filter(|action| !known(action))
            .collect();
        assert_eq!(missing, Vec::<&str>::new());
    }
}
