//! Heads of a route's requests and responses as they pass.

use std::fmt::Write as _;

use mc_api::mcproxy::client::Client;
use mc_api::mcproxy::{TapRequest, TappedHead};
use mcdsl::ctl::Printer;
use serde_json::json;
use tokio_stream::StreamExt as _;

use super::route::{message_key, text_key};
use super::say;
use crate::cli::Key;
use crate::error::Error;

pub(super) async fn run(key: &Key, client: &mut Client, printer: &mut Printer<'_>) -> Result<(), Error> {
    let mut heads = client.tap(TapRequest { key: Some(message_key(key)) }).await?.into_inner();
    say(&format!("watching {}", text_key(key)));
    while let Some(head) = heads.next().await {
        let head = head?;
        printer.line(|| json!(head), || text(&head))?;
    }
    say("the route was removed");
    Ok(())
}

/// A request's first line and fields, or a response's.
fn text(head: &TappedHead) -> String {
    let mut out = String::new();
    if head.lost > 0 {
        out.push_str(&format!("... {} heads were lost\n", head.lost));
    }
    // Writing to a string cannot fail.
    if head.response {
        write!(out, "< {} {} after {} us", head.request_id, head.status, head.duration_us).unwrap_or(());
    } else {
        let TappedHead { request_id, client, method, target, host, protocol, .. } = head;
        write!(out, "> {request_id} {client} {method} {target} {protocol} to {host}").unwrap_or(());
    }
    for field in &head.fields {
        write!(out, "\n    {}: {}", field.name, field.value).unwrap_or(());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use mc_api::mcproxy::TappedField;

    #[test]
    fn heads_are_readable() {
        let fields = vec![TappedField { name: "accept".to_owned(), value: "*/*".to_owned() }];
        let request = TappedHead {
            request_id: "a-1".into(),
            method: "GET".into(),
            target: "/x".into(),
            fields,
            ..TappedHead::default()
        };
        assert_eq!(text(&request), "> a-1  GET /x  to \n    accept: */*");
        let response =
            TappedHead { response: true, status: 200, duration_us: 5, lost: 3, ..TappedHead::default() };
        assert_eq!(text(&response), "... 3 heads were lost\n<  200 after 5 us");
    }
}
