//! Counts in messages: `1 request`, `1,666 requests`.

/// A count with thousands separators, and its noun in the singular or the plural.
pub fn plural(count: u64, noun: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{} {noun}{ending}", with_separators(count))
}

/// A count with thousands separators.
pub fn with_separators(count: u64) -> String {
    let digits = count.to_string();
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .filter_map(|group| std::str::from_utf8(group).ok())
        .collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_has_its_noun_in_the_singular_or_the_plural() {
        for (count, expected) in [
            (0, "0 requests"),
            (1, "1 request"),
            (999, "999 requests"),
            (1_666, "1,666 requests"),
            (12_000_000, "12,000,000 requests"),
        ] {
            assert_eq!(plural(count, "request"), expected);
        }
    }
}
