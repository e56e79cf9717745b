//! A table of configurations, each with one mistake, and what is said of it.

use super::*;

/// What is said of a configuration that is wrong.
fn check(text: &str, expect: &str) {
    match Config::parse(text, "c.toml") {
        Ok(config) => panic!("accepted: {text}\n{config:?}"),
        Err(problem) => assert_eq!(problem.to_string(), expect, "for {text}"),
    }
}

const WEB: &str = "[[listeners]]\nname = \"web\"\naddress = \"127.0.0.1:443\"\n";

#[test]
fn explore() {
    for text in [
        "[server]\nworkers = \"a\"",
        "[sever]\n",
        "[server]\nworkrs = 3",
        "[[listeners]]\nname = \"web\"\nadress = \"127.0.0.1:443\"",
        "[[listeners]]\nname = \"web\"\n",
        "[[listeners]]\nname = \"web\"\naddress = \"127.0.0.1\"\n",
        "[[listeners]]\nname = \"web\"\naddress = 5\n",
        "[listeners]\nname = \"web\"\naddress = \"127.0.0.1:443\"\n",
        "[[listeners]]\nname = \"web\"\naddress = \"127.0.0.1:443\"\ntrusted = [\"10.0.0.0/8\", \"10.0.0.0/40\"]",
        "[[listeners]]\nname = \"web\"\naddress = \"127.0.0.1:443\"\nproxy_protocol = \"requird\"",
        "[[firewall.rules]]\naction = \"deny\"\n",
        "[[firewall.rules]]\naction = \"deny\"\ncidr = \"x\"\n",
        "[[firewall.rules]]\naction = \"deny\"\ncidr = \"10.0.0.0/8\"\nasn = 4",
        "[[firewall.rules]]\naction = \"deny\"\ncidr = \"10.0.0.0/8\"\ncoment = 'x'",
        "[[firewall.rules]]\naction = \"deny\"\ncidrr = \"10.0.0.0/8\"\n",
        "[[firewall.rules]]\naction = \"den\"\ncidr = \"10.0.0.0/8\"\n",
        "[[firewall.rules]]\naction = \"deny\"\nasn = \"10\"\n",
        "[firewall]\nrate = { per_address = -1 }",
        "[metrics]\nlisten_addr = \"x\"",
        "[metrics]\nlisten_addr = 1",
        "[admin.tcp]\nlisten_addr = \"127.0.0.1:1\"",
        "x = [",
        "x = 1\nx = 2",
        "[server]\nroot = 1\n",
        "[server]\nroot = \"a\nb\"\n",
        "[[routes]]\nlistener = \"web\"\nname=\"a\"\nbackends = [{ address = \"1.2.3.4:5\", weight = 1.5 }]",
        "[[routes]]\nlistener = \"web\"\nname=\"a\"\nbackends = [{ address = \"1.2.3.4:5\", wieght = 1 }]",
        "[[routes]]\nlistener = \"web\"\nname=\"a\"\nbackends = [{ address = \"1.2.3.4:5\", tlvs = { custom = [{type = 300, value=\"\"}]} }]",
        "[[routes]]\nlistener = \"web\"\nname=\"a\"\nbackends = {}",
        "[[routes]]\nlistener = \"wbe\"\nname=\"a\"\nbackends = []\n[[listeners]]\nname = \"web\"\naddress = \"127.0.0.1:443\"\n",
    ] {
        match Config::parse(text, "c.toml") {
            Ok(_) => println!("ACCEPTED {text}"),
            Err(e) => println!("{e}"),
        }
    }
    panic!();
}
