//! What many measurements have in common.

/// The first quartile, the median and the third quartile.
pub(crate) fn quartiles(values: Vec<f64>) -> [f64; 3] {
    quantiles(values, [0.25, 0.5, 0.75])
}

/// The values below which these parts of all values lie; 1 is the greatest.
pub(crate) fn quantiles<const N: usize>(mut values: Vec<f64>, parts: [f64; N]) -> [f64; N] {
    values.sort_by(f64::total_cmp);
    parts.map(|part| values[((values.len() - 1) as f64 * part) as usize])
}
