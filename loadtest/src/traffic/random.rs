//! Pseudo-random values that follow from a seed, a purpose and a number.

/// What a value is used for. Values of one reading for different purposes are independent of each
/// other.
///
/// The numbers are part of the contents of a run: an earlier run can only be verified while they do
/// not change.
#[derive(Debug, Clone, Copy)]
pub(super) enum Salt {
    Value = 1,
    Jitter,
    Late,
    LateBy,
    Bad,
    BadKind,
    Order,
    Hostile,
    HostileKind,
    Repeated,
    Offline,
    Run,
}

/// SplitMix64 (Steele, Lea and Flood, 2014), over seed, salt and number.
pub(super) fn hash(seed: u64, salt: Salt, number: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ (salt as u64).wrapping_mul(0xd1b5_4a32_d192_ed03);
    z = z.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A value from 0 up to and excluding 1.
pub(super) fn uniform(seed: u64, salt: Salt, number: u64) -> f64 {
    (hash(seed, salt, number) >> 11) as f64 / (1_u64 << 53) as f64
}
