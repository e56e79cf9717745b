//! The program itself: what the verifier makes of it, and its maps.

use mc_testkit::requires;
use mc_xdp::Firewall;

/// The verifier gives up at a million, and older kernels go further into the same program: this one must stay far below.
const MOST_INSTRUCTIONS: u32 = 150_000;

#[test]
fn the_verifier_has_little_to_do() {
    requires!(root);
    let firewall = Firewall::load(1).unwrap();
    let count = firewall.instructions().unwrap();
    println!("mc_firewall: {count} instructions verified, at most {MOST_INSTRUCTIONS} wanted");
    assert!(count < MOST_INSTRUCTIONS, "{count}: look for what made the paths multiply");
}
