//! What measurements have in common.

use std::time::{Duration, Instant};

/// So many rounds, or as many as begin within a minute.
pub(crate) fn rounds(most: usize) -> impl Iterator<Item = usize> {
    let end = Instant::now() + Duration::from_secs(60);
    (0..most).take_while(move |_| Instant::now() < end)
}

/// The first quartile, the median and the third quartile.
pub(crate) fn quartiles(values: Vec<f64>) -> [f64; 3] {
    quantiles(values, [0.25, 0.5, 0.75])
}

/// The values below which these parts of all values lie; 1 is the greatest.
pub(crate) fn quantiles<const N: usize>(mut values: Vec<f64>, parts: [f64; N]) -> [f64; N] {
    values.sort_by(f64::total_cmp);
    parts.map(|part| values[((values.len() - 1) as f64 * part) as usize])
}
