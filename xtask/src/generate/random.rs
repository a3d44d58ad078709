//! A small generator of numbers (SplitMix64): the same seed gives the same load everywhere.

/// The state.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Begins at a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: usize) -> usize {
        (((u128::from(self.bits())) * limit as u128) >> 64) as usize
    }

    /// A number in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number with a normal distribution around 0 with deviation 1.
    pub fn normal(&mut self) -> f64 {
        // Box and Muller; the logarithm's argument is never 0.
        (-2.0 * (1.0 - self.unit()).ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }
}

/// A choice among things of different weight.
#[derive(Debug, Clone)]
pub struct Weighted(Vec<f64>);

impl Weighted {
    /// From weights.
    pub fn new(weights: impl IntoIterator<Item = f64>) -> Self {
        let mut sum = 0.0;
        Self(
            weights
                .into_iter()
                .map(|weight| {
                    sum += weight;
                    sum
                })
                .collect(),
        )
    }

    /// Weights 1 / (rank + 1)^exponent.
    pub fn zipf(count: usize, exponent: f64) -> Self {
        Self::new((0..count).map(|rank| (rank as f64 + 1.0).powf(-exponent)))
    }

    /// An index.
    pub fn pick(&self, random: &mut Random) -> usize {
        let sum = self.0.last().copied().unwrap_or(0.0);
        let point = random.unit() * sum;
        self.0.partition_point(|&s| s <= point).min(self.0.len().saturating_sub(1))
    }
}
