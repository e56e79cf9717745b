//! An error with its causes as one line.

/// An error with its causes, as one line. A cause that only repeats what was said before it is left out.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = String::new();
    let mut last = error.to_string();
    for cause in std::iter::successors(error.source(), |cause| cause.source()) {
        let cause = cause.to_string();
        if last.ends_with(&cause) {
            continue;
        }
        // One that begins with what was said says the same and more.
        if !cause.starts_with(&last) {
            text.push_str(&last);
            text.push_str(": ");
        }
        last = cause;
    }
    text + &last
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    #[derive(Debug)]
    struct Link(&'static str, Option<Box<Self>>);

    impl fmt::Display for Link {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl std::error::Error for Link {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            self.1.as_deref().map(|cause| cause as _)
        }
    }

    #[test]
    fn a_cause_that_repeats_the_error_is_left_out() {
        let check = |links: &[&'static str], expect: &str| {
            let link = |cause, text: &&'static str| Some(Box::new(Link(text, cause)));
            let error = links.iter().rev().fold(None, link).unwrap();
            assert_eq!(chain(&*error), expect);
        };
        check(&["cannot read a", "no such file"], "cannot read a: no such file");
        check(&["connect error", "connect error", "refused"], "connect error: refused");
        check(&["transport error: refused", "refused"], "transport error: refused");
        check(&["connect error", "connect error: refused", "refused"], "connect error: refused");
        check(&["a", "", "b"], "a: b");
    }
}
