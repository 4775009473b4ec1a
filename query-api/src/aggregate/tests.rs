use proptest::prelude::*;

use super::*;

const MINUTE: Micros = 60_000_000;

fn points(points: &[(Micros, f64)]) -> Vec<Point> {
    let point = |&(minutes, value): &(Micros, f64)| Point {
        time: minutes * MINUTE,
        value,
    };
    points.iter().map(point).collect()
}

fn buckets(
    resolution: &str,
    range: (Micros, Micros),
    fill: Fill,
    before: Option<Point>,
    inside: &[Point],
    after: Option<Point>,
) -> Vec<Bucket> {
    let range = TimeRange {
        from: range.0 * MINUTE,
        to: range.1 * MINUTE,
    };
    let resolution = Resolution::parse(resolution).unwrap();
    let all = Aggregate::ALL;
    let mut buckets = Buckets::new(resolution, TimeZone::UTC, range, &all, fill, before);
    for &point in inside {
        buckets.push(point);
    }
    buckets.finish(after)
}

fn starts(buckets: &[Bucket]) -> Vec<Micros> {
    let start = |bucket: &Bucket| bucket.range.from / MINUTE;
    buckets.iter().map(start).collect()
}

#[test]
fn each_aggregate_of_a_bucket_is_what_its_name_says() {
    let inside = points(&[(0, 1.0), (1, 4.0), (2, 2.0), (8, 3.0)]);
    let bucket = &buckets("10m", (0, 10), Fill::None, None, &inside, None)[0];
    let expected = [
        (Aggregate::Min, 1.0),
        (Aggregate::Q1, 1.75),
        (Aggregate::Median, 2.5),
        (Aggregate::Q3, 3.25),
        (Aggregate::Max, 4.0),
        (Aggregate::Mean, 2.5),
        // 1 for a minute, 4 for a minute, 2 for six, 3 for two.
        (Aggregate::Twa, (1.0 + 4.0 + 12.0 + 6.0) / 10.0),
        (Aggregate::Sum, 10.0),
        (Aggregate::Count, 4.0),
        (Aggregate::First, 1.0),
        (Aggregate::Last, 3.0),
        // 1 ▸ 4 is 3; 4 ▸ 2 is a reset, so 2; 2 ▸ 3 is 1.
        (Aggregate::Increase, 6.0),
    ];
    for (aggregate, expected) in expected {
        let found = bucket.get(aggregate).unwrap();
        assert!((found - expected).abs() < 1e-9, "{aggregate:?}: {found}");
    }
}

#[test]
fn the_value_before_the_range_is_valid_until_the_first_point_in_it() {
    let before = Some(Point {
        time: -5 * MINUTE,
        value: 10.0,
    });
    let inside = points(&[(5, 0.0)]);
    let bucket = &buckets("10m", (0, 10), Fill::None, before, &inside, None)[0];
    assert_eq!(bucket.get(Aggregate::Twa), Some(5.0));
}

#[test]
fn the_range_cuts_the_first_and_the_last_bucket() {
    let inside = points(&[(7, 1.0), (22, 1.0)]);
    let found = buckets("10m", (5, 25), Fill::None, None, &inside, None);
    let ranges: Vec<_> = found
        .iter()
        .map(|bucket| (bucket.range.from / MINUTE, bucket.range.to / MINUTE))
        .collect();
    // The increase between the points makes the bucket in the middle known.
    assert_eq!(ranges, [(5, 10), (10, 20), (20, 25)]);
}

#[test]
fn buckets_without_points_are_absent_null_or_the_previous_value() {
    let inside = points(&[(25, 3.0), (55, 4.0)]);
    let range = TimeRange {
        from: 0,
        to: 80 * MINUTE,
    };
    for (fill, expected) in [
        (Fill::None, vec![(20, Some(3.0)), (50, Some(4.0))]),
        (
            Fill::Null,
            vec![
                (0, None),
                (10, None),
                (20, Some(3.0)),
                (30, None),
                (40, None),
                (50, Some(4.0)),
                (60, None),
                (70, None),
            ],
        ),
        (
            Fill::Previous,
            vec![
                (0, None),
                (10, None),
                (20, Some(3.0)),
                (30, Some(3.0)),
                (40, Some(3.0)),
                (50, Some(4.0)),
                (60, Some(4.0)),
                (70, Some(4.0)),
            ],
        ),
    ] {
        let resolution = Resolution::parse("10m").unwrap();
        let wanted = [Aggregate::Mean];
        let mut open = Buckets::new(resolution, TimeZone::UTC, range, &wanted, fill, None);
        for &point in &inside {
            open.push(point);
        }
        let found: Vec<_> = open
            .finish(None)
            .iter()
            .map(|bucket| (bucket.range.from / MINUTE, bucket.get(Aggregate::Mean)))
            .collect();
        assert_eq!(found, expected, "{fill:?}");
    }
}

#[test]
fn an_unknown_aggregate_is_refused_with_the_list_of_those_that_exist() {
    let error = Aggregate::parse_list("min,avg").unwrap_err();
    assert!(error.contains("'avg'") && error.contains("twa"), "{error}");
}

/// Times in minutes, each later than the one before, and values.
fn any_points() -> impl Strategy<Value = Vec<(Micros, f64)>> {
    prop::collection::vec((1..40i64, 0..1_000i32), 0..60).prop_map(|steps| {
        let mut time = -30;
        let mut points = Vec::new();
        for (step, value) in steps {
            time += step;
            points.push((time, f64::from(value)));
        }
        points
    })
}

proptest! {
    #[test]
    fn the_increases_of_buckets_add_up_to_the_increase_of_the_range(
        all in any_points(), from in 0..200i64, length in 1..900i64, step in 1..50i64,
    ) {
        let all = points(&all);
        let to = from + length;
        let inside: Vec<Point> = all.iter().copied()
            .filter(|point| (from * MINUTE..to * MINUTE).contains(&point.time)).collect();
        let before = all.iter().copied().rfind(|point| point.time < from * MINUTE);
        let after = all.iter().copied().find(|point| point.time >= to * MINUTE);
        let increase = |resolution: &str| -> f64 {
            buckets(resolution, (from, to), Fill::None, before, &inside, after)
                .iter().filter_map(|bucket| bucket.get(Aggregate::Increase)).sum()
        };
        let (fine, whole) = (increase(&format!("{step}m")), increase("100000m"));
        prop_assert!((fine - whole).abs() < 1e-6, "{fine} {whole}");
    }

    #[test]
    fn every_point_is_in_one_bucket_and_buckets_do_not_overlap(
        all in any_points(), step in 1..50i64,
    ) {
        let inside: Vec<Point> = points(&all).into_iter().filter(|point| point.time >= 0).collect();
        let found = buckets(&format!("{step}m"), (0, 10_000), Fill::Null, None, &inside, None);
        let count: u64 = found.iter().map(|bucket| bucket.count).sum();
        prop_assert_eq!(count, inside.len() as u64);
        let starts = starts(&found);
        prop_assert!(starts.windows(2).all(|pair| pair[1] == pair[0] + step), "{:?}", starts);
    }
}
