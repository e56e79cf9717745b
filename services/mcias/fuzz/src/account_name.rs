//! Names from strangers: what is accepted has the form that is promised, and a refusal is one line.

use mcdsl::identity::{InvalidName, Name};

/// Checks one input: a text.
pub fn check(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let good = (1..=63).contains(&bytes.len())
        && bytes.iter().all(|byte| word(*byte) || b"-_.@".contains(byte))
        && word(bytes[0])
        && word(bytes[bytes.len() - 1]);
    match under_test(text) {
        Ok(name) => {
            assert!(good && name.as_str() == text, "{text:?}");
            let json = serde_json::to_string(&name).expect("a name is a text");
            assert_eq!(serde_json::from_str::<Name>(&json).expect("it is read back"), name);
        }
        Err(problem) => {
            assert!(!good, "{text:?}");
            let problem = problem.to_string();
            assert!(!problem.is_empty() && !problem.contains(char::is_control), "{problem}");
        }
    }
}

fn under_test(text: &str) -> Result<Name, InvalidName> {
    // The planted bug: upper case is made small.
    #[cfg(feature = "planted")]
    return Name::parse(&text.to_ascii_lowercase());
    #[cfg(not(feature = "planted"))]
    Name::parse(text)
}
