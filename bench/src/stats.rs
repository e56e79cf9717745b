//! The few statistics that the reports use.

/// Middle and extent of some samples.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Summary {
    /// The middle one, or the mean of the middle two.
    pub(crate) median: f64,
    /// Median of the distances from the median.
    pub(crate) mad: f64,
    /// Smallest.
    pub(crate) min: f64,
    /// Largest.
    pub(crate) max: f64,
}

impl Summary {
    /// `None` where there are no samples.
    pub(crate) fn of(samples: &[f64]) -> Option<Self> {
        let sorted = sorted(samples);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let median = middle(&sorted);
        let distances: Vec<f64> = sorted.iter().map(|sample| (sample - median).abs()).collect();
        Some(Self { median, mad: middle(&self::sorted(&distances)), min, max })
    }
}

/// The smallest sample that at least `percent` of all do not exceed; 0 where there are none.
pub(crate) fn percentile(samples: &[u64], percent: usize) -> u64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

fn sorted(samples: &[f64]) -> Vec<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// Of sorted samples, at least one.
fn middle(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[half] } else { f64::midpoint(sorted[half - 1], sorted[half]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(samples: &[f64], median: f64, mad: f64) {
        let summary = Summary::of(samples).unwrap();
        assert_eq!((summary.median, summary.mad), (median, mad), "{samples:?}");
    }

    #[test]
    fn medians() {
        check(&[3.0], 3.0, 0.0);
        check(&[5.0, 1.0, 3.0], 3.0, 2.0);
        check(&[4.0, 1.0, 3.0, 2.0], 2.5, 1.0);
        check(&[1.0, 1.0, 1.0, 1.0, 100.0], 1.0, 0.0);
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn extremes() {
        let summary = Summary::of(&[2.0, 9.0, -1.0]).unwrap();
        assert_eq!((summary.min, summary.max), (-1.0, 9.0));
    }

    #[test]
    fn percentiles() {
        let hundred: Vec<u64> = (1..=100).rev().collect();
        assert_eq!(
            (percentile(&hundred, 50), percentile(&hundred, 99), percentile(&hundred, 100)),
            (50, 99, 100)
        );
        assert_eq!((percentile(&[7], 50), percentile(&[], 50)), (7, 0));
    }
}
