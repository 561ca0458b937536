//! Random numbers that are functions of a seed, a name and an index, so that nothing else can change them.

/// `count` numbers uniform in +-`bound`, which belong to `name`. PEFT starts `lora_A` so, with 1 / sqrt(width).
pub(super) fn uniform(seed: u64, name: &str, bound: f64, count: usize) -> Vec<f32> {
    let name = stream(seed, name);
    (0..count)
        .map(|index| {
            let random = mix(name ^ mix(index as u64)) >> 11;
            ((random as f64 / (1u64 << 53) as f64 * 2.0 - 1.0) * bound) as f32
        })
        .collect()
}

/// `count` numbers of the normal distribution, which belong to `name`. torch starts an `Embedding` so. From: Box & Muller
/// 1958.
pub(super) fn normal(seed: u64, name: &str, count: usize) -> Vec<f32> {
    let name = stream(seed, name);
    // Never 0, of which there is no logarithm.
    let uniform = |index: u64| ((mix(name ^ mix(index)) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    let number = |index: usize| {
        let (radius, angle) = (uniform(2 * index as u64), uniform(2 * index as u64 + 1));
        ((-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()) as f32
    };
    (0..count).map(number).collect()
}

/// The beginning of the random numbers that belong to a name.
pub(crate) fn stream(seed: u64, name: &str) -> u64 {
    name.bytes().fold(seed, |hash, byte| mix(hash ^ u64::from(byte)))
}

/// SplitMix64's output function. From: Steele, Lea & Flood 2014.
pub(crate) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
