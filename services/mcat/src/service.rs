//! MCAT as a program: what the frame of `mcdsl` needs to run it.

use std::sync::Arc;

use mcdsl::clock::Clock;
use mcdsl::http::Limits;
use mcdsl::operation::Routes;
use mcdsl::program::{Failure, Finding, NoInit, Service};
use mcdsl::prometheus::Page;
use mcdsl::server::Stop;

use crate::app::{self, Mcat};
use crate::config::Config;
use crate::web;

impl Service for Mcat {
    const NAME: &'static str = "mcat";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ABOUT: &'static str =
        "The server of the login policy tester. `mcat --help` lists the commands for the people who ask it.";
    const STORES: bool = false;
    const DESCRIPTORS: &'static [&'static [u8]] = &[mc_api::mcat::DESCRIPTORS];
    type Config = Config;
    type Init = NoInit;

    fn inspect(config: &Config) -> Vec<Finding> {
        config.mcias.in_root(&config.server.root).problems().into_iter().map(Finding::Error).collect()
    }

    fn openapi() -> serde_json::Value {
        app::openapi()
    }

    async fn open(config: Config, clock: Clock) -> Result<Self, Failure> {
        Ok(Self::new(config, clock)?)
    }

    fn routes(self: &Arc<Self>, limits: Limits) -> Routes {
        let mut table = self.operations(limits);
        web::add_pages(&mut table, self);
        table.finish()
    }

    /// It can do nothing without MCIAS.
    async fn ready(&self) -> Result<(), String> {
        self.client().ready().await.map_err(|problem| problem.to_string())
    }

    /// Requests, connections and the certificate are the frame's.
    fn write_metrics(&self, _page: &mut Page) {}

    async fn work(&self, mut stop: Stop) {
        // An error is that nobody can stop it any more.
        stop.wait_for(|stop| *stop).await.ok();
    }
}
