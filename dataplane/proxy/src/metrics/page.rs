//! A page in Prometheus' text exposition format, version 0.0.4.

use std::fmt::Write as _;

use crate::stats::Histogram;

/// Microseconds as seconds, exactly.
pub(super) fn seconds(us: u64) -> Seconds {
    Seconds(us)
}

pub(super) struct Seconds(u64);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// A page of metrics.
#[derive(Default)]
pub(super) struct Page {
    pub(super) text: String,
}

impl Page {
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    pub(super) fn one(&mut self, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
        self.family(name, kind, help);
        self.line(format_args!("{name} {value}"));
    }

    pub(super) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        self.text.push_str(name);
        for (index, (label, value)) in labels.iter().enumerate() {
            self.text.push(if index == 0 { '{' } else { ',' });
            self.text.push_str(label);
            self.text.push_str("=\"");
            for c in value.chars() {
                match c {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    c => self.text.push(c),
                }
            }
            self.text.push('"');
        }
        self.line(format_args!("}} {value}"));
    }

    pub(super) fn histogram<'a>(
        &mut self,
        name: &str,
        help: &str,
        parts: impl Iterator<Item = &'a Histogram> + Clone,
    ) {
        self.family(name, "histogram", help);
        let mut count = 0;
        for index in 0..Histogram::BUCKETS {
            count += parts.clone().map(|part| part.buckets[index].get()).sum::<u64>();
            match Histogram::bound_us(index) {
                Some(bound) => {
                    self.line(format_args!("{name}_bucket{{le=\"{}\"}} {count}", seconds(bound)));
                }
                None => self.line(format_args!("{name}_bucket{{le=\"+Inf\"}} {count}")),
            }
        }
        let sum = seconds(parts.map(|part| part.sum_us.get()).sum());
        self.line(format_args!("{name}_sum {sum}\n{name}_count {count}"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        self.text.write_fmt(line).expect("writing to a String cannot fail");
        self.text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_cannot_end_their_string() {
        let mut page = Page::default();
        page.sample("m", &[("a", "x\"y\\z\n"), ("b", "")], 7);
        assert_eq!(page.text, "m{a=\"x\\\"y\\\\z\\n\",b=\"\"} 7\n");
    }

    #[test]
    fn histograms_are_cumulative_and_end_with_all() {
        let parts = [Histogram::default(), Histogram::default()];
        parts[0].record_us(10);
        parts[0].record_us(64);
        parts[1].record_us(u64::MAX / 2);
        let mut page = Page::default();
        page.histogram("h", "help", parts.iter());
        let value = |line: &str| page.text.lines().find_map(|l| l.strip_prefix(line)).unwrap().to_owned();
        assert_eq!(value("h_bucket{le=\"0.000064\"} "), "1");
        assert_eq!(value("h_bucket{le=\"0.000128\"} "), "2");
        assert_eq!(value("h_bucket{le=\"67.108864\"} "), "2");
        assert_eq!(value("h_bucket{le=\"+Inf\"} "), "3");
        assert_eq!(value("h_count "), "3");
    }
}
