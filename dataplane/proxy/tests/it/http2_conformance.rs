//! RFC 9113 frame by frame.

use super::http2::site;

#[test]
fn probe() {
    for part in ["frames", "streams", "flow", "messages"] {
        let results = site("").part("http2_protocol.py", part);
        println!("{part}: {results:#}");
    }
}
