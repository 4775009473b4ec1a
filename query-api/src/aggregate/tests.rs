use proptest::prelude::*;
use store::reads::points::Point;
use store::reads::series::Series;
use store::reads::subtree::Member;

use super::*;

const MINUTE: Micros = 60_000_000;

fn points(points: &[(Micros, f64)]) -> Vec<Point> {
    let point = |&(minutes, value): &(Micros, f64)| Point {
        time: minutes * MINUTE,
        value,
    };
    points.iter().map(point).collect()
}

fn bucketing(resolution: &str, aggregates: &[Aggregate], fill: Fill) -> Bucketing {
    Bucketing {
        resolution: Resolution::parse(resolution).unwrap(),
        zone: TimeZone::UTC,
        aggregates: aggregates.to_vec(),
        fill,
        max_gap: None,
    }
}

/// A series that counts in these parts, in minutes.
fn member(parts: &[(Micros, Micros)]) -> Member {
    let part = |&(from, to): &(Micros, Micros)| TimeRange {
        from: from * MINUTE,
        to: to * MINUTE,
    };
    Member {
        series: Series::default(),
        parts: parts.iter().map(part).collect(),
    }
}

/// The buckets of a series whose points are these.
fn of_member(
    bucketing: &Bucketing,
    range: TimeRange,
    member: &Member,
    all: &[Point],
) -> Vec<Bucket> {
    let (mut buckets, mut done) = (Buckets::new(bucketing, range, member), Vec::new());
    for &part in &member.parts {
        let before = all.iter().copied().rfind(|point| point.time < part.from);
        buckets.enter(part, before);
        drain(&mut buckets, &mut done);
        for &point in all {
            if (part.from..part.to).contains(&point.time) {
                buckets.push(point);
                drain(&mut buckets, &mut done);
            }
        }
        buckets.leave(all.iter().copied().find(|point| point.time >= part.to));
        drain(&mut buckets, &mut done);
    }
    buckets.finish();
    drain(&mut buckets, &mut done);
    done
}

/// Takes what a step completes.
fn drain(buckets: &mut Buckets<'_>, done: &mut Vec<Bucket>) {
    while let Some(complete) = buckets.next() {
        done.push(complete.summarize());
    }
}

fn buckets(
    resolution: &str,
    range: (Micros, Micros),
    fill: Fill,
    before: Option<Point>,
    inside: &[Point],
    after: Option<Point>,
) -> Vec<Bucket> {
    let member = member(&[range]);
    let bucketing = bucketing(resolution, &Aggregate::ALL, fill);
    let range = member.parts[0];
    let points: Vec<Point> = before
        .into_iter()
        .chain(inside.iter().copied())
        .chain(after)
        .collect();
    of_member(&bucketing, range, &member, &points)
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
        let bucketing = bucketing("10m", &[Aggregate::Mean], fill);
        let member = member(&[(0, 80)]);
        let found: Vec<_> = of_member(&bucketing, range, &member, &inside)
            .iter()
            .map(|bucket| (bucket.range.from / MINUTE, bucket.get(Aggregate::Mean)))
            .collect();
        assert_eq!(found, expected, "{fill:?}");
    }
}

#[test]
fn a_linear_fill_is_the_value_at_the_middle_of_the_bucket_unless_the_gap_is_too_long() {
    let all = points(&[(5, 0.0), (45, 40.0)]);
    let member = member(&[(0, 60)]);
    for (max_gap, expected) in [
        (
            None,
            [None, Some(10.0), Some(20.0), Some(30.0), Some(40.0), None],
        ),
        (Some(39), [None, None, None, None, Some(40.0), None]),
    ] {
        let mut bucketing = bucketing("10m", &[Aggregate::Mean], Fill::Linear);
        bucketing.max_gap = max_gap.map(|gap: Micros| gap * MINUTE);
        let found = of_member(&bucketing, member.parts[0], &member, &all);
        let means: Vec<_> = found.iter().map(|own| own.get(Aggregate::Mean)).collect();
        assert_eq!(means[1..], expected[1..], "{max_gap:?}");
        assert_eq!(means[0], Some(0.0));
    }
}

#[test]
fn a_previous_value_is_carried_for_at_most_the_longest_gap() {
    let member = member(&[(0, 50)]);
    let mut bucketing = bucketing("10m", &[Aggregate::Mean], Fill::Previous);
    bucketing.max_gap = Some(20 * MINUTE);
    let found = of_member(&bucketing, member.parts[0], &member, &points(&[(5, 3.0)]));
    let means: Vec<_> = found.iter().map(|own| own.get(Aggregate::Mean)).collect();
    assert_eq!(means, [Some(3.0), Some(3.0), Some(3.0), None, None]);
}

#[test]
fn a_value_below_the_last_one_is_a_rollover_only_if_the_increase_is_plausible() {
    for (from, to, rollover, expected) in [
        (10.0, 15.0, Some(100.0), 5.0),
        (99.0, 3.0, Some(100.0), 4.0),
        (99.0, 3.0, None, 3.0),
        // A new meter: the increase would be 93.
        (10.0, 3.0, Some(100.0), 3.0),
        // The counter cannot have been there.
        (120.0, 3.0, Some(100.0), 3.0),
        (60.0, 10.0, Some(100.0), 50.0),
    ] {
        assert_eq!(
            step(from, to, rollover),
            expected,
            "{from} {to} {rollover:?}"
        );
    }
}

#[test]
fn coverage_is_the_share_of_the_expected_points_in_the_time_that_counts() {
    let mut member = member(&[(0, 15), (25, 30)]);
    member.series.expected_interval = Some(60.0);
    let all: Vec<_> = (0..12).map(|minute| (minute, 1.0)).collect();
    let bucketing = bucketing("10m", &[Aggregate::Mean], Fill::Null);
    let range = TimeRange {
        from: 0,
        to: 40 * MINUTE,
    };
    let found = of_member(&bucketing, range, &member, &points(&all));
    let coverage: Vec<_> = found.iter().map(|own| own.coverage).collect();
    assert_eq!(coverage, [Some(1.0), Some(0.4), Some(0.0), None]);
}

#[test]
fn a_sum_counts_a_device_for_the_time_in_which_it_was_in_the_subtree() {
    let bucketing = bucketing("10m", &[Aggregate::Mean, Aggregate::Increase], Fill::None);
    let range = TimeRange {
        from: 0,
        to: 30 * MINUTE,
    };
    let (whole, moved) = (member(&[(0, 30)]), member(&[(0, 5), (12, 14), (16, 17)]));
    let all: Vec<_> = (0..40).map(|minute| (minute, 10.0)).collect();
    let mut combined = Combined::new(&bucketing, range);
    for member in [&whole, &moved] {
        combined.expect(member);
        for bucket in of_member(&bucketing, range, member, &points(&all)) {
            combined.add(member, &bucket);
        }
    }
    let found = combined.finish();
    let means: Vec<_> = found
        .iter()
        .map(|own| own.get(Aggregate::Mean).unwrap())
        .collect();
    assert_eq!(means, [15.0, 13.0, 10.0]);
    let devices: Vec<_> = found
        .iter()
        .map(|own| own.devices.map(|own| (own.contributing, own.of)).unwrap())
        .collect();
    assert_eq!(devices, [(2, 2), (2, 2), (1, 1)]);
}

#[test]
fn the_memory_of_a_long_gap_does_not_depend_on_its_length() {
    for (aggregate, fill) in [
        (Aggregate::Increase, Fill::None),
        (Aggregate::Mean, Fill::Null),
        (Aggregate::Mean, Fill::Linear),
    ] {
        let bucketing = bucketing("1m", &[aggregate], fill);
        let member = member(&[(0, 1_000_000)]);
        let all = points(&[(0, 1.0), (999_999, 2.0)]);
        let mut count = 0;
        let used = allocation_counter::measure(|| {
            let mut buckets = Buckets::new(&bucketing, member.parts[0], &member);
            let mut drain = |buckets: &mut Buckets<'_>| {
                while let Some(complete) = buckets.next() {
                    complete.summarize();
                    count += 1;
                }
            };
            buckets.enter(member.parts[0], None);
            drain(&mut buckets);
            for &point in &all {
                buckets.push(point);
                drain(&mut buckets);
            }
            buckets.leave(None);
            drain(&mut buckets);
            buckets.finish();
            drain(&mut buckets);
        });
        assert_eq!(count, 1_000_000, "{fill:?}");
        assert!(used.bytes_max < 10_000, "{fill:?}: {used:?}");
    }
}

#[test]
fn the_values_of_a_bucket_have_a_bound() {
    let bucketing = bucketing("1000mo", &[Aggregate::Median], Fill::None);
    let member = member(&[(0, 1_000_000)]);
    let mut buckets = Buckets::new(&bucketing, member.parts[0], &member);
    buckets.enter(member.parts[0], None);
    assert!(buckets.next().is_none());
    for time in 0..=MAX_VALUES as Micros {
        assert!(!buckets.has_too_many_values());
        buckets.push(Point { time, value: 1.0 });
        assert!(buckets.next().is_none());
    }
    assert!(buckets.has_too_many_values());
}

#[test]
fn quartiles_are_those_of_the_sorted_values() {
    for count in 1..200usize {
        let values: Vec<f64> = (0..count).map(|n| ((n * 7_919) % 101) as f64).collect();
        let mut sorted = values.clone();
        sorted.sort_by(f64::total_cmp);
        let expected = [0.25, 0.5, 0.75].map(|fraction| {
            let position = fraction * (count - 1) as f64;
            let (low, high) = (
                sorted[position.floor() as usize],
                sorted[position.ceil() as usize],
            );
            low + (high - low) * position.fract()
        });
        assert_eq!(quartiles(values), Some(expected), "{count}");
    }
    assert_eq!(quartiles(Vec::new()), None);
}

#[test]
fn an_unknown_aggregate_is_refused_with_the_list_of_those_that_exist() {
    let error = Aggregate::parse_list("min,max,min").unwrap_err();
    assert!(error.contains("'min' is there twice"), "{error}");
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
    fn increases_with_rollovers_and_moves_add_up_and_are_never_negative(
        all in any_points(), cuts in prop::collection::btree_set(0..900i64, 2..8),
        step in 1..50i64, rollover in prop::option::of(1..2_000i32),
    ) {
        let cuts: Vec<Micros> = cuts.into_iter().collect();
        let parts: Vec<_> = cuts.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        let mut member = member(&parts);
        member.series.rollover = rollover.map(f64::from);
        let range = TimeRange { from: 0, to: 900 * MINUTE };
        let all = points(&all);
        let increase = |resolution: &str| -> Vec<f64> {
            let bucketing = bucketing(resolution, &[Aggregate::Increase], Fill::None);
            of_member(&bucketing, range, &member, &all)
                .iter().filter_map(|bucket| bucket.get(Aggregate::Increase)).collect()
        };
        let (fine, whole) = (increase(&format!("{step}m")), increase("100000m"));
        prop_assert!(fine.iter().all(|own| *own >= 0.0), "{fine:?}");
        let (fine, whole) = (fine.iter().sum::<f64>(), whole.iter().sum::<f64>());
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
