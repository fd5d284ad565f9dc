//! A histogram of delays that goes over a pipe as it is.

use hdrhistogram::Histogram;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest delay that is told from longer ones, in microseconds: ten minutes.
pub const DELAY_US_MAX: u64 = 600_000_000;
/// Digits of a delay that count.
const DIGITS: u8 = 3;

/// Delays in microseconds, exact to three digits.
#[derive(Debug, Clone)]
pub struct Delays(Histogram<u64>);

/// What a histogram says at a glance, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// How many delays.
    pub count: u64,
    /// Half of them were at most this.
    pub p50: f64,
    /// Nine of ten were at most this.
    pub p90: f64,
    /// 99 of 100 were at most this.
    pub p99: f64,
    /// 999 of 1,000 were at most this.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

impl Default for Delays {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, DELAY_US_MAX, DIGITS);
        Self(histogram.expect("the bounds are constants that fit"))
    }
}

impl Delays {
    /// Adds one delay.
    pub fn record(&mut self, us: u64) {
        self.0.saturating_record(us.max(1));
    }

    /// Adds those of another histogram.
    pub fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all histograms have the same bounds");
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.0.reset();
    }

    /// How many delays.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The delay that this share of all does not exceed, in milliseconds.
    #[expect(clippy::cast_precision_loss, reason = "delays are far below 2^52 us")]
    pub fn quantile_ms(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1_000.0
    }

    /// The usual percentiles.
    pub fn percentiles(&self) -> Percentiles {
        let at = |quantile| self.quantile_ms(quantile);
        let [p50, p90, p99, p999, max] = [at(0.5), at(0.9), at(0.99), at(0.999), at(1.0)];
        Percentiles { count: self.count(), p50, p90, p99, p999, max }
    }
}

impl Serialize for Delays {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(
            self.0.iter_recorded().map(|step| (step.value_iterated_to(), step.count_since_last_iteration())),
        )
    }
}

impl<'de> Deserialize<'de> for Delays {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut delays = Self::default();
        for (value, count) in Vec::<(u64, u64)>::deserialize(deserializer)? {
            delays.0.saturating_record_n(value, count);
        }
        Ok(delays)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_histograms_are_as_one_that_saw_everything() {
        let (mut one, mut two, mut all) = (Delays::default(), Delays::default(), Delays::default());
        for us in 1..=10_000 {
            if us % 3 == 0 {
                one.record(us);
            } else {
                two.record(us);
            }
            all.record(us);
        }
        let text = serde_json::to_string(&two).unwrap();
        one.add(&serde_json::from_str(&text).unwrap());
        assert_eq!(one.percentiles(), all.percentiles());
        assert!((one.quantile_ms(0.5) - 5.0).abs() < 0.01);
    }
}
