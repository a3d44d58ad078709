//! Whether counts fit a known truth.

/// Pearson's statistic of counts against expected shares.
pub fn chi_square(counts: &[u64], shares: &[f64]) -> f64 {
    let n = counts.iter().sum::<u64>() as f64;
    counts
        .iter()
        .zip(shares)
        .map(|(&count, share)| {
            let expected = n * share;
            (count as f64 - expected).powi(2) / expected
        })
        .sum()
}

/// The least number of samples for [`shares_fit`] to find a shift of 2 points.
pub const ENOUGH: u64 = 20_000;

/// Whether three counts fit three shares.
///
/// With three classes the statistic has two degrees of freedom under the truth, where
/// P(X > x) = exp(-x / 2) exactly. The limit is that of a false alarm in 1,000 runs:
/// -2 ln 0.001 = 13.82. (Ticks are evenly spaced, not drawn at random, so that real runs
/// vary less than that.) A shift of 2 points between the two largest of 60/30/10, the
/// hardest to see, has a non-centrality of n (0.02² / 0.6 + 0.02² / 0.3) = n / 500, which is
/// 40 at 20,000 samples: P(X' > 13.82) = 0.994 (checked by a test below, by simulation).
pub fn shares_fit(counts: [u64; 3], shares: [f64; 3]) -> Result<f64, String> {
    let n: u64 = counts.iter().sum();
    if n < ENOUGH {
        return Err(format!("{n} samples are too few: {ENOUGH} are needed"));
    }
    let statistic = chi_square(&counts, &shares);
    let found = counts.map(|count| format!("{:.2} %", count as f64 * 100.0 / n as f64));
    let truth = shares.map(|share| format!("{:.2} %", share * 100.0));
    if statistic > -2.0 * 0.001f64.ln() {
        return Err(format!("{found:?} of {n} samples against a truth of {truth:?}: chi-square {statistic:.1} > 13.8"));
    }
    Ok(statistic)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Draws `n` samples from `shares` with a small generator of its own.
    fn draw(n: u64, shares: [f64; 3], state: &mut u64) -> [u64; 3] {
        let mut counts = [0; 3];
        for _ in 0..n {
            *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let point = (*state >> 11) as f64 / (1u64 << 53) as f64;
            counts[if point < shares[0] {
                0
            } else if point < shares[0] + shares[1] {
                1
            } else {
                2
            }] += 1;
        }
        counts
    }

    #[test]
    fn false_alarms_are_one_in_a_thousand_and_shifts_are_seen() {
        let (truth, shifted, runs) = ([0.6, 0.3, 0.1], [0.58, 0.32, 0.1], 2_000);
        let mut state = 1;
        let alarms = (0..runs).filter(|_| shares_fit(draw(ENOUGH, truth, &mut state), truth).is_err()).count();
        let seen = (0..runs).filter(|_| shares_fit(draw(ENOUGH, shifted, &mut state), truth).is_err()).count();
        // 2 expected; 10 or more has a probability below 1 in 20,000, and the seed is fixed.
        assert!(alarms < 10, "{alarms} false alarms in {runs} runs");
        assert!(seen >= runs * 99 / 100, "{seen} of {runs} shifts seen");
    }

    #[test]
    fn too_few_samples_are_refused() {
        assert!(shares_fit([600, 300, 100], [0.6, 0.3, 0.1]).is_err());
    }
}
