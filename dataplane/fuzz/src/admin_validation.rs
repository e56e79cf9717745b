//! Configuration from strangers: no text makes reading or normalizing panic, and the one form is one form.
//!
//! Input: a byte, then text. Bit 0 chooses JSON or TOML, bits 1 to 3 what it is to be: a value of the model, a
//! whole configuration, or a name alone, which is put into a route.

use mc_core::model::{FirewallRule, Listener, Rate, Route, Subject};
use mc_core::validate::{
    Invalid, check_config, normalize_firewall, normalize_listener, normalize_rate, normalize_route,
    normalize_rule,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Checks one input.
pub fn check(input: &[u8]) {
    let Some((&mode, text)) = input.split_first() else { return };
    let Ok(text) = str::from_utf8(text) else { return };
    let json = mode & 1 == 0;
    match mode >> 1 & 7 {
        0 => check_one(json, text, normalize_listener, check_listener),
        1 => check_one(json, text, route_under_test, check_route),
        2 => check_one(json, text, normalize_firewall, |firewall| firewall.rules.iter().for_each(check_rule)),
        3 => check_one(json, text, normalize_rule, check_rule),
        4 => check_one(json, text, normalize_rate, |_: &Rate| {}),
        5 => check_whole(json, text),
        _ => check_name(text),
    }
}

/// A whole configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    listeners: Vec<Listener>,
    #[serde(default)]
    routes: Vec<Route>,
}

fn read<T: DeserializeOwned>(json: bool, text: &str) -> Option<T> {
    if json { serde_json::from_str(text).ok() } else { toml::from_str(text).ok() }
}

fn check_one<T>(json: bool, text: &str, normalize: fn(T) -> Result<T, Invalid>, check: fn(&T))
where
    T: Clone + std::fmt::Debug + PartialEq + Serialize + DeserializeOwned,
{
    let Some(value) = read::<T>(json, text) else { return };
    match normalize(value) {
        Ok(normal) => {
            check(&normal);
            let stored = serde_json::to_string(&normal).expect("the model is JSON");
            let back: T = serde_json::from_str(&stored).expect("what was stored can be read");
            assert_eq!(back, normal, "stored and read");
            assert_eq!(normalize(normal.clone()), Ok(normal), "normalized twice");
        }
        Err(error) => check_error(&error),
    }
}

fn check_whole(json: bool, text: &str) {
    let Some(Config { listeners, routes }) = read::<Config>(json, text) else { return };
    let listeners: Result<Vec<_>, _> = listeners.into_iter().map(normalize_listener).collect();
    let routes: Result<Vec<_>, _> = routes.into_iter().map(normalize_route).collect();
    if let (Ok(listeners), Ok(routes)) = (listeners, routes) {
        match check_config(&listeners, &routes) {
            Err(error) => check_error(&error),
            Ok(()) => {
                let known = |route: &Route| listeners.iter().any(|listener| listener.name == route.listener);
                assert!(routes.iter().all(known));
                let mut keys: Vec<_> = routes.iter().map(Route::key).collect();
                keys.sort_unstable();
                assert!(keys.windows(2).all(|pair| pair[0] != pair[1]), "a key twice");
            }
        }
    }
}

fn check_name(name: &str) {
    let route =
        serde_json::json!({"listener": "web", "name": name, "backends": [{"address": "10.0.0.1:443"}]});
    check_one(true, &route.to_string(), route_under_test, check_route);
}

/// A refusal names a field and says something, on one line that a terminal can bear.
fn check_error(error: &Invalid) {
    assert!(!error.field.is_empty() && !error.problem.is_empty());
    assert!(!error.to_string().chars().any(char::is_control), "{error:?}");
}

fn check_listener(listener: &Listener) {
    assert!(!listener.name.is_empty());
    assert!(listener.trusted.iter().all(|network| *network == network.trunc()));
}

fn check_route(route: &Route) {
    let name = route.name.strip_prefix("*.").unwrap_or(&route.name);
    let of_a_name = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
    assert!(name == "*" || name.bytes().all(of_a_name) && !name.is_empty(), "{name}");
    assert!(!name.ends_with('.') && route.name.len() <= 253, "{name}");
    assert!((1..=256).contains(&route.backends.len()));
}

fn check_rule(rule: &FirewallRule) {
    match &rule.subject {
        Subject::Cidr(network) => assert_eq!(*network, network.trunc()),
        Subject::Country(code) => {
            assert!(code.len() == 2 && code.bytes().all(|byte| byte.is_ascii_uppercase()))
        }
        Subject::Asn(number) => assert_ne!(*number, 0),
    }
}

fn route_under_test(route: Route) -> Result<Route, Invalid> {
    #[cfg(feature = "planted")]
    return without_lower_casing(route);
    #[cfg(not(feature = "planted"))]
    normalize_route(route)
}

/// The planted bug: upper case stays.
#[cfg(feature = "planted")]
fn without_lower_casing(route: Route) -> Result<Route, Invalid> {
    let name = route.name.clone();
    let mut normal = normalize_route(route)?;
    if name.eq_ignore_ascii_case(&normal.name) {
        normal.name = name;
    }
    Ok(normal)
}
