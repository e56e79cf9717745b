//! `Debug` for messages that hold secrets: their names, and nothing of what is in them.

use std::fmt;

use super::generated::{
    ChangePasswordRequest, ConfirmTotpRequest, GetLinkRequest, IntrospectRequest, IssuedLink, IssuedToken,
    LoginReply, LoginRequest, RecoveryCodes, RedeemLinkRequest, TotpEnrolment,
};

macro_rules! redacted {
    ($($message:ident),* $(,)?) => {$(
        impl fmt::Debug for $message {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($message), "(redacted)"))
            }
        }
    )*};
}

redacted!(
    ChangePasswordRequest,
    ConfirmTotpRequest,
    GetLinkRequest,
    IntrospectRequest,
    IssuedLink,
    IssuedToken,
    LoginReply,
    LoginRequest,
    RecoveryCodes,
    RedeemLinkRequest,
    TotpEnrolment,
);
