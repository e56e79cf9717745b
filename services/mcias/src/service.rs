//! MCIAS as a program: what the frame of `mcdsl` needs to run it.

use std::sync::Arc;

use mcdsl::clock::Clock;
use mcdsl::http::Limits;
use mcdsl::operation::Routes;
use mcdsl::program::{Failure, Service};
use mcdsl::prometheus::Page;
use mcdsl::server::Stop;

use crate::app::{self, Mcias};
use crate::config::Config;

/// Creates the first admin and prints a link to set a password. The server must not be running.
///
/// For an account that exists, it is the way back in: the account becomes an admin's and is enabled, and loses its password,
/// second factor and passkeys.
#[derive(Debug, clap::Args)]
pub struct Init {
    /// The admin's account name.
    admin: String,
}

impl Service for Mcias {
    const NAME: &'static str = "mcias";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ABOUT: &'static str = "Identity and access: accounts, tokens, roles, login policy.";
    const DESCRIPTORS: &'static [&'static [u8]] = &[mc_api::mcias::DESCRIPTORS, mc_api::audit::DESCRIPTORS];
    type Config = Config;
    type Init = Init;

    fn openapi() -> serde_json::Value {
        app::openapi()
    }

    async fn open(config: Config, clock: Clock) -> Result<Self, Failure> {
        Ok(Self::open(config, clock).await?)
    }

    async fn init(&self, args: Init) -> Result<String, Failure> {
        Ok(self.make_admin(&args.admin).await?.url)
    }

    fn routes(self: &Arc<Self>, limits: Limits) -> Routes {
        self.routes(limits)
    }

    async fn ready(&self) -> Result<(), String> {
        self.probe_storage().await
    }

    fn write_metrics(&self, page: &mut Page) {
        self.write_metrics(page);
    }

    async fn work(&self, stop: Stop) {
        self.run_jobs(stop).await;
    }
}
