//! The rows of the stream path.

use clap::ValueEnum;

use crate::cell::{FEW_ROUTES, Row};
use crate::suite::Rows;

/// Rows of the stream path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum L4 {
    /// New connections.
    #[value(name = "new")]
    New,
    /// New connections with a post-quantum ClientHello.
    #[value(name = "pq")]
    Pq,
    /// Bulk.
    #[value(name = "bulk")]
    Bulk,
    /// Round trips.
    #[value(name = "ping")]
    Ping,
    /// Memory of idle connections.
    #[value(name = "idle")]
    Idle,
    /// 10, 100,000 and 1,000,000 routes.
    #[value(name = "routes")]
    Routes,
    /// Changes under load.
    #[value(name = "changes")]
    Changes,
}

impl Rows for L4 {
    const SUITE: &'static str = "l4";

    fn rows(&self) -> Vec<Row> {
        match self {
            Self::New => vec![Row::New],
            Self::Pq => vec![Row::PostQuantum],
            Self::Bulk => vec![Row::Bulk],
            Self::Ping => vec![Row::Ping],
            Self::Idle => vec![Row::Idle],
            Self::Routes => vec![Row::Routes(FEW_ROUTES), Row::Routes(100_000), Row::Routes(1_000_000)],
            Self::Changes => vec![Row::Changes],
        }
    }
}
