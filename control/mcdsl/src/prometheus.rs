//! A page in Prometheus' text exposition format, version 0.0.4.

use std::fmt::Write as _;

/// Microseconds as seconds, exactly.
#[must_use]
pub fn seconds(us: u64) -> Seconds {
    Seconds(us)
}

/// See [`seconds`].
#[derive(Clone, Copy, Debug)]
pub struct Seconds(u64);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// A page of metrics.
#[derive(Debug, Default)]
pub struct Page {
    /// The text so far.
    pub text: String,
}

impl Page {
    /// Begins a family of samples.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    /// A family with one sample and no labels.
    pub fn one(&mut self, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
        self.family(name, kind, help);
        self.line(format_args!("{name} {value}"));
    }

    /// A sample of the current family.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
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

    /// A histogram of times: each bucket's upper bound in microseconds (none for the last) and its count.
    pub fn histogram(
        &mut self,
        name: &str,
        help: &str,
        buckets: impl Iterator<Item = (Option<u64>, u64)>,
        sum_us: u64,
    ) {
        self.family(name, "histogram", help);
        let mut count = 0;
        for (bound, counted) in buckets {
            count += counted;
            match bound {
                Some(bound) => {
                    self.line(format_args!("{name}_bucket{{le=\"{}\"}} {count}", seconds(bound)));
                }
                None => self.line(format_args!("{name}_bucket{{le=\"+Inf\"}} {count}")),
            }
        }
        self.line(format_args!("{name}_sum {}\n{name}_count {count}", seconds(sum_us)));
    }

    /// Memory, descriptors and processor time of this process, from `/proc`; nothing where that is missing.
    pub fn process(&mut self) {
        let pages = |text: String| text.split_whitespace().nth(1)?.parse::<u64>().ok();
        let page_size = rustix::param::page_size() as u64;
        if let Some(resident) = std::fs::read_to_string("/proc/self/statm").ok().and_then(pages) {
            let help = "Resident memory.";
            self.one("process_resident_memory_bytes", "gauge", help, resident * page_size);
        }
        if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
            self.one("process_open_fds", "gauge", "Open descriptors.", open.count() as u64);
        }
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        self.one("process_max_fds", "gauge", "Limit of open descriptors.", limit.unwrap_or(u64::MAX));
        let ticks = |text: String| {
            // The fields after the name, which may hold anything, in parentheses: utime and stime are 14 and 15.
            let after = text.rsplit_once(')')?.1.to_owned();
            let mut fields = after.split_whitespace().skip(11);
            Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
        };
        if let Some(ticks) = std::fs::read_to_string("/proc/self/stat").ok().and_then(ticks) {
            let us = ticks * 1_000_000 / rustix::param::clock_ticks_per_second();
            self.one("process_cpu_seconds_total", "counter", "Processor time.", seconds(us));
        }
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
    fn label_values_are_escaped() {
        let mut page = Page::default();
        page.sample("m", &[("a", "x\"y\\z\n"), ("b", "")], 7);
        assert_eq!(page.text, "m{a=\"x\\\"y\\\\z\\n\",b=\"\"} 7\n");
    }

    #[test]
    fn histograms_are_cumulative_and_end_with_all() {
        let mut page = Page::default();
        page.histogram("h", "help", [(Some(64), 2), (Some(67_108_864), 0), (None, 1)].into_iter(), 1_500_000);
        let text = "# HELP h help\n# TYPE h histogram\nh_bucket{le=\"0.000064\"} 2\nh_bucket{le=\"67.108864\"} 2\n\
                    h_bucket{le=\"+Inf\"} 3\nh_sum 1.500000\nh_count 3\n";
        assert_eq!(page.text, text);
    }

    #[test]
    fn process_metrics_are_on_the_page() {
        let mut page = Page::default();
        page.process();
        for name in ["process_resident_memory_bytes", "process_open_fds", "process_cpu_seconds_total"] {
            assert!(page.text.contains(&format!("\n{name} ")), "{name}: {}", page.text);
        }
    }
}
