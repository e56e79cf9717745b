//! Logging in: by password and second factor, and what follows from any way of logging in.

use std::net::IpAddr;
use std::time::Duration;

use mc_api::mcias::{LoginReply, LoginRequest};
use mcdsl::Secret;
use mcdsl::problem::{Kind, Problem};
use uuid::Uuid;

use super::event::Event;
use super::{Ask, Fault, Mcias, messages, named};
use crate::domain::password::Verified;
use crate::domain::policy::Service;
use crate::domain::throttle::Source;
use crate::domain::token::Claims;
use crate::domain::totp::{self, TotpRefused, TotpSecret};
use crate::domain::{Account, Name, recovery};
use crate::store;
use crate::store::accounts::{Phc, Stored};
use crate::store::tokens::{Kind as TokenKind, StoredToken};

/// The service that is logged in to, and the services that the token is for.
pub(super) struct Goal {
    pub(super) service: Service,
    pub(super) audience: Vec<Name>,
}

/// Who has shown that they are who they say, by what.
pub(super) struct Proven {
    pub(super) account: Stored,
    pub(super) goal: Goal,
    pub(super) by: By,
}

/// What somebody has logged in by, and what is used up with that.
pub(super) enum By {
    Password { phc: Phc, factor: Factor, rehashed: Option<Phc> },
    Passkey { id: String, credential: String },
}

/// A second factor.
pub(super) enum Factor {
    None,
    Totp(u64),
    Recovery([u8; 32]),
}

impl By {
    const fn word(&self) -> &'static str {
        match self {
            Self::Password { factor: Factor::None, .. } => "password",
            Self::Password { factor: Factor::Totp(_), .. } => "password+totp",
            Self::Password { factor: Factor::Recovery(_), .. } => "password+recovery",
            Self::Passkey { .. } => "passkey",
        }
    }
}

/// For how long an address at which somebody logged in is familiar, in seconds.
pub(super) const FAMILIAR_S: i64 = 90 * 24 * 3600;

impl Mcias {
    /// Logs a person in by password.
    ///
    /// # Errors
    /// The same for an unknown account and a wrong password, after the same time; others where the password was right.
    pub async fn login(&self, ask: &Ask, request: LoginRequest) -> Result<LoginReply, Problem> {
        let LoginRequest { username, password, totp, recovery_code, audience, client_address } = request;
        let (password, totp) = (Secret::from(password), totp.map(Secret::from));
        let recovery_code = recovery_code.map(Secret::from);
        let name = named("username", &username)?;
        let goal = self.goal(ask, &audience).await?;
        let ask = &at(ask, client_address.as_deref())?;
        let event = Event::new("login", name.as_str()).by(name.as_str()).through(goal.service.name.as_str());
        let ip = ask.caller.address.ip();
        let (stored, familiar) = self.with_familiarity(&name, ip).await?;
        let attempt = self.attempt(name, ip, familiar)?;
        let proven = self.proven(&event, ask, stored, goal, [Some(password), totp, recovery_code]);
        let entered = match proven.await {
            Ok(proven) => self.enter(ask, proven).await,
            Err(problem) => Err(problem),
        };
        match &entered {
            Ok(_) => attempt.succeeded(),
            // A code that comes too early is one more.
            Err(problem) if problem.kind == Kind::TooMany => attempt.failed(),
            Err(problem) if problem.kind == Kind::Unauthenticated && problem.reason != NEEDED => {
                attempt.failed()
            }
            Err(_) => attempt.released(),
        }
        entered
    }

    /// An attempt to show a password, where it is not too early for one.
    pub(super) fn attempt(&self, name: Name, ip: IpAddr, familiar: bool) -> Result<Attempt<'_>, Problem> {
        let source = Source::from(ip);
        let admitted = self.throttle().check(&name, source, familiar, self.clock.elapsed());
        admitted.map_err(|after| {
            // Counted, and not in the audit log, which would grow as fast as anybody likes: what came before is there.
            self.counters.turned_away();
            too_often(after)
        })?;
        Ok(Attempt { app: self, name, source, familiar, open: true })
    }

    /// Whether somebody who logs in by password is who they say.
    async fn proven(
        &self,
        event: &Event,
        ask: &Ask,
        stored: Option<Stored>,
        goal: Goal,
        [password, totp, recovery_code]: [Option<Secret>; 3],
    ) -> Result<Proven, Problem> {
        let password = password.unwrap_or_else(|| Secret::from(""));
        let phc = stored.as_ref().and_then(|stored| stored.password.clone());
        let verified = self.hashing.verify(password.clone(), phc.clone()).await?;
        // Whether there is such an account, whether it is a person's and whether it is enabled: all is known by now, and
        // none of it is told.
        let enabled = stored.filter(|stored| stored.enabled);
        let (Some(account), Some(phc), Verified::Right { rehash }) = (enabled, phc, verified) else {
            return Err(self.failed(ask, event, wrong_login()).await);
        };
        let factor = match self.factor(&account, totp, recovery_code).await? {
            Ok(factor) => factor,
            // No failure; but it is to be seen that somebody knows the password.
            Err(problem) if problem.reason == NEEDED => {
                return Err(self.refuse(ask, event.clone(), problem).await);
            }
            Err(problem) => return Err(self.failed(ask, event, problem).await),
        };
        let rehashed = if rehash { Some(self.hashing.hash(password).await?) } else { None };
        Ok(Proven { account, goal, by: By::Password { phc, factor, rehashed } })
    }

    /// Notes that a login failed.
    async fn failed(&self, ask: &Ask, event: &Event, problem: Problem) -> Problem {
        self.counters.login_failed();
        self.refuse(ask, event.clone(), problem).await
    }

    /// The account, and whether somebody has logged in to it from there.
    async fn with_familiarity(&self, name: &Name, ip: IpAddr) -> Result<(Option<Stored>, bool), Problem> {
        let (name, source, since) = (name.clone(), place(ip), self.now() - FAMILIAR_S);
        self.read(move |db| {
            let stored = store::accounts::by_name(db, name.as_str())?;
            let id = stored.as_ref().map(|stored| stored.id);
            let familiar = id.map(|id| store::accounts::is_familiar(db, id, &source, since)).transpose()?;
            Ok((stored, familiar.unwrap_or(false)))
        })
        .await
    }

    /// What is logged in to: the service that asks, or MCIAS itself.
    pub(super) async fn goal(&self, ask: &Ask, audience: &[String]) -> Result<Goal, Problem> {
        if !is_service(ask) {
            let audience = messages::names("audience", audience)?;
            return Ok(Goal { service: self.service.clone(), audience });
        }
        let service = self.asking_service(ask, "login").await?;
        if let Some(index) = audience.iter().position(|other| other != service.name.as_str()) {
            let detail = format!("{} can log people in to itself alone: leave it out", service.name);
            return Err(Problem::field(format!("audience[{index}]"), detail));
        }
        let audience = vec![service.name.clone()];
        Ok(Goal { service, audience })
    }

    /// The second factor, where the account has one.
    async fn factor(
        &self,
        account: &Stored,
        totp: Option<Secret>,
        recovery_code: Option<Secret>,
    ) -> Result<Result<Factor, Problem>, Problem> {
        let id = account.id;
        let Some((secret, last)) = self.read(move |db| store::factors::totp(db, id)).await? else {
            return Ok(Ok(Factor::None));
        };
        if let Some(code) = recovery_code {
            // Whether there is such a code is found out when it is taken.
            let code =
                recovery::normalise(code.expose()).map(|code| Factor::Recovery(recovery::digest(&code)));
            return Ok(code.ok_or_else(wrong_recovery_code));
        }
        let Some(code) = totp else {
            let detail = "the password is right, and the account has a second factor: send `totp` or `recovery_code` too";
            return Ok(Err(Problem::new(Kind::Unauthenticated, NEEDED, detail)));
        };
        let Some(secret) = TotpSecret::try_from_slice(&secret) else {
            return Err(Problem::new(Kind::Internal, "internal", "the second factor that is stored is none"));
        };
        let checked = totp::check(&secret, code.expose(), self.now(), last);
        if checked == Err(TotpRefused::Malformed) {
            return Ok(Err(wrong_code()));
        }
        let name = account.account.name();
        let admitted = self.throttle().code(name, checked.is_ok(), self.clock.elapsed());
        // Whoever gets here has the password: each of these is in the audit log.
        if let Err(after) = admitted {
            return Ok(Err(too_often(after)));
        }
        Ok(match checked {
            Ok(step) => Ok(Factor::Totp(step)),
            Err(TotpRefused::Replayed) => Err(replayed()),
            Err(TotpRefused::Malformed | TotpRefused::Wrong) => Err(wrong_code()),
        })
    }

    /// Lets somebody in who has shown who they are, if the policy does: writes the session, then signs its token.
    pub(super) async fn enter(&self, ask: &Ask, proven: Proven) -> Result<LoginReply, Problem> {
        let Proven { account, goal, by } = proven;
        let name = account.account.name().clone();
        let service = goal.service.name.to_string();
        let event = Event::new("login", name.as_str()).by(name.as_str()).through(service.as_str());
        let mut let_in = self.allowed(&account.account, &goal.service);
        if let_in.is_ok() {
            // A token that would be refused wherever it is shown is not given.
            let_in = self.allowed_at(&account.account, &goal.audience).await?;
        }
        if let Err(problem) = let_in {
            return Err(self.refuse(ask, event, problem).await);
        }
        let now = self.now();
        let expires_at = now + self.config.tokens.session_s;
        let mut token = StoredToken {
            id: Uuid::new_v4().to_string(),
            account: account.id,
            kind: TokenKind::Session,
            audience: goal.audience.iter().map(ToString::to_string).collect(),
            label: service.clone(),
            origin: by.word().to_owned(),
            source: ask.caller.address.ip().to_string(),
            created_at: now,
            expires_at,
            revoked_at: None,
            last_used_at: None,
            key_id: None,
        };
        let signed = self.sign(&name, &mut token, &service);
        let id = token.id.clone();
        let source = place(ask.caller.address.ip());
        let refused = event.clone();
        let detail = match token.audience.as_slice() {
            [] => by.word().to_owned(),
            services => format!("{}, for {}", by.word(), services.join(",")),
        };
        let entered = self.write(ask, event.because(detail), move |db, _event| {
            let left = by.take(db, account.id, now)?;
            add_signed(db, &token)?;
            store::accounts::logged_in(db, account.id, &source, now)?;
            Ok(left)
        });
        let left = match entered.await {
            Ok(left) => left,
            Err(problem) if problem.kind == Kind::Unauthenticated => {
                return Err(self.failed(ask, &refused, problem).await);
            }
            Err(problem) => return Err(problem),
        };
        self.counters.logged_in();
        Ok(LoginReply {
            token: signed.expose().to_owned(),
            expires_at,
            account: name.to_string(),
            roles: messages::roles_of(account.account.roles()),
            session_id: id,
            recovery_codes_left: left,
        })
    }

    /// A token, signed; by which key is noted.
    pub(super) fn sign(&self, account: &Name, token: &mut StoredToken, client: &str) -> Secret {
        let issuer = self.config.site.public_url.clone();
        let keys = self.keys.load();
        let claims = Claims {
            aud: if token.audience.is_empty() { vec![issuer.clone()] } else { token.audience.clone() },
            iss: issuer,
            sub: account.to_string(),
            client_id: client.to_owned(),
            iat: token.created_at,
            nbf: token.created_at,
            exp: token.expires_at,
            jti: token.id.clone(),
        };
        // By the signer of when it was made, which `sign` goes by as well.
        token.key_id = Some(keys.signer(claims.iat).kid.clone());
        keys.sign(&claims)
    }
}

/// Adds a token that is signed.
pub(super) fn add_signed(db: &rusqlite::Connection, token: &StoredToken) -> Result<(), Fault> {
    let key = token.key_id.as_deref().unwrap_or_default();
    if !store::keys::needed(db, key, token.expires_at)? {
        let detail = "the key that signs was withdrawn meanwhile: try again";
        return Err(Problem::new(Kind::Unavailable, "key-withdrawn", detail).into());
    }
    Ok(store::tokens::add(db, token)?)
}

/// An attempt that was let through. Where nothing is said of how it ended, it failed: whoever gives up before they hear has
/// made it all the same.
pub(super) struct Attempt<'a> {
    app: &'a Mcias,
    name: Name,
    source: Source,
    familiar: bool,
    open: bool,
}

impl Attempt<'_> {
    pub(super) fn succeeded(mut self) {
        self.open = false;
        self.app.throttle().succeeded(&self.name, self.source);
    }

    pub(super) fn failed(self) {
        drop(self);
    }

    /// Something else came between.
    pub(super) fn released(mut self) {
        self.open = false;
        self.app.throttle().released(&self.name, self.source);
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if self.open {
            self.app.throttle().failed(&self.name, self.source, self.familiar, self.app.clock.elapsed());
        }
    }
}

impl By {
    /// Uses up what is good once, if it still is what it was. How many recovery codes are left, where one was used.
    fn take(self, db: &rusqlite::Connection, account: i64, now: i64) -> Result<Option<u32>, Fault> {
        // While the password was hashed, the account may have changed.
        let current = store::accounts::by_id(db, account)?.filter(|current| current.enabled);
        let current = current.ok_or_else(wrong_login)?;
        match self {
            Self::Password { phc, factor, rehashed } => {
                if current.password.as_ref() != Some(&phc)
                    || current.has_totp == matches!(factor, Factor::None)
                {
                    return Err(wrong_login().into());
                }
                if let Some(phc) = rehashed {
                    store::factors::rehash(db, account, &phc)?;
                }
                match factor {
                    Factor::None => Ok(None),
                    Factor::Totp(step) => {
                        let taken = store::factors::take_totp(db, account, step)?;
                        taken.then_some(None).ok_or_else(|| replayed().into())
                    }
                    Factor::Recovery(digest) => {
                        if !store::factors::take_recovery_code(db, account, &digest)? {
                            return Err(wrong_recovery_code().into());
                        }
                        Ok(Some(store::accounts::counts(db, account)?.recovery_codes))
                    }
                }
            }
            Self::Passkey { id, credential } => {
                if store::factors::passkey_of(db, account, &id)?.is_none() {
                    return Err(wrong_login().into());
                }
                store::factors::passkey_used(db, &id, &credential, now)?;
                Ok(None)
            }
        }
    }
}

/// The reason by which a program knows that it must ask for a code.
const NEEDED: &str = "second-factor-required";

/// Whether a system account asks.
fn is_service(ask: &Ask) -> bool {
    ask.bearer.as_ref().is_some_and(|bearer| matches!(bearer.account, Account::System { .. }))
}

/// A login, as coming from where the service that asks says it does.
fn at(ask: &Ask, client_address: Option<&str>) -> Result<Ask, Problem> {
    let Some(told) = client_address else { return Ok(ask.clone()) };
    let wrong = |detail: String| Problem::field("client_address", detail);
    if !is_service(ask) {
        return Err(wrong("only a service says where others are: leave it out".to_owned()));
    }
    let ip: IpAddr = told.parse().map_err(|_none| wrong(format!("`{told}` is no IP address")))?;
    let mut told = ask.clone();
    told.caller.address.set_ip(ip.to_canonical());
    Ok(told)
}

/// What an address counts as: itself, or a /64.
fn place(ip: IpAddr) -> String {
    Source::from(ip).to_string()
}

pub(super) fn wrong_login() -> Problem {
    Problem::new(Kind::Unauthenticated, "wrong-login", "the account or what you showed for it is wrong")
}

fn wrong_code() -> Problem {
    Problem::new(Kind::Unauthenticated, "wrong-code", "the code is wrong: take the one that is shown now")
}

fn wrong_recovery_code() -> Problem {
    let detail = "the recovery code is wrong, or was used before";
    Problem::new(Kind::Unauthenticated, "wrong-code", detail)
}

fn replayed() -> Problem {
    Problem::new(Kind::Unauthenticated, "used-code", "this code was used before: wait for the next one")
}

pub(super) fn too_often(after: Duration) -> Problem {
    let detail = format!("too many attempts failed: try again in {} s", after.as_secs().max(1));
    Problem { retry_after: Some(after), ..Problem::new(Kind::TooMany, "too-many-attempts", detail) }
}
