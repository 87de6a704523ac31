use std::cmp::Reverse;
use std::collections::BinaryHeap;

use time::macros::datetime;

use super::*;

const NOON: OffsetDateTime = datetime!(2026-11-27 12:00 UTC);
const NEAR: Duration = Duration::from_millis(40);
const DEFAULT: NewOrders = NewOrders { start: 4, ceiling: 64 };

fn seconds(seconds: i64) -> OffsetDateTime {
    NOON + time::Duration::seconds(seconds)
}

/// Fills the window, and has all of it taken.
fn round(window: &mut Window, took: Duration, now: OffsetDateTime) -> usize {
    let sent: Vec<_> = (0..window.size()).map(|_| window.sent(now)).collect();
    for sent in sent {
        window.taken(sent, took, now);
        window.ended();
    }
    window.size()
}

/// Fills the window, and has this part of it refused from this place on.
fn trouble(window: &mut Window, from: usize, now: OffsetDateTime) -> usize {
    let sent: Vec<_> = (0..window.size()).map(|_| window.sent(now)).collect();
    for (place, sent) in sent.into_iter().enumerate() {
        if place + 1 >= from {
            window.refused(sent, now, now);
        } else {
            window.taken(sent, NEAR, now);
        }
        window.ended();
    }
    window.size()
}

#[test]
fn it_grows_up_to_its_ceiling_within_a_few_rounds_of_quick_answers() {
    for (start, ceiling, took, expected) in [
        (4, 64, NEAR, [7, 11, 17, 26, 40, 61, 64, 64]),
        (4, 64, QUICK, [7, 11, 17, 26, 40, 61, 64, 64]),
        (1, 2, NEAR, [2, 2, 2, 2, 2, 2, 2, 2]),
        (1, 1, NEAR, [1; 8]),
        (8, 2, NEAR, [2; 8]),
    ] {
        let mut window = Window::new(NewOrders { start, ceiling }, NOON);

        let sizes = [(); 8].map(|()| round(&mut window, took, NOON));

        assert_eq!(sizes, expected, "from {start} to {ceiling}");
    }
}

#[test]
fn answers_that_become_slow_let_it_grow_no_further() {
    let mut window = Window::new(DEFAULT, NOON);
    round(&mut window, Duration::from_millis(500), NOON);
    let size = window.size();

    assert_eq!(round(&mut window, Duration::from_millis(1_600), NOON), size);
    assert!(round(&mut window, Duration::from_millis(1_400), NOON) > size, "thrice the quickest");
}

#[test]
fn a_ca_that_always_takes_its_time_is_not_slow() {
    let mut window = Window::new(DEFAULT, NOON);

    let sizes = [(); 8].map(|()| round(&mut window, Duration::from_secs(5), NOON));

    assert_eq!(sizes.last(), Some(&DEFAULT.ceiling));
}

#[test]
fn orders_that_come_one_by_one_say_nothing_of_many_at_once() {
    let mut window = Window::new(DEFAULT, NOON);
    for _ in 0..100 {
        let sent = window.sent(NOON);
        window.taken(sent, NEAR, NOON);
        window.ended();
    }

    assert_eq!(window.size(), DEFAULT.start);
}

#[test]
fn trouble_closes_it_to_one_and_counts_once_for_all_that_were_under_way() {
    let mut window = Window::new(NewOrders { start: 16, ceiling: 64 }, NOON);

    assert_eq!(trouble(&mut window, 10, NOON), 1);

    let sizes = [(); 14].map(|()| round(&mut window, NEAR, NOON));
    assert_eq!(
        sizes,
        [2, 4, 5, 6, 7, 8, 9, 9, 9, 9, 9, 9, 9, 9],
        "as from the start up to the half, then by one in each round, and not up to the tenth"
    );
}

#[test]
fn the_order_in_which_refusals_arrive_does_not_matter() {
    let mut window = Window::new(NewOrders { start: 16, ceiling: 64 }, NOON);
    let sent: Vec<_> = (0..16).map(|_| window.sent(NOON)).collect();
    for place in [15, 9, 12, 10, 11, 14, 13] {
        window.refused(sent[place], NOON, NOON);
    }
    for sent in &sent[..9] {
        window.taken(*sent, NEAR, NOON);
    }
    (0..16).for_each(|_| window.ended());

    assert_eq!(window.size(), 1, "what was taken beside them opens nothing");
    let sizes = [(); 14].map(|()| round(&mut window, NEAR, NOON));
    assert_eq!(sizes.last(), Some(&9));
}

#[test]
fn a_level_is_tried_again_after_a_while_and_after_twice_as_long_each_time() {
    let mut window = Window::new(NewOrders { start: 16, ceiling: 64 }, NOON);
    let mut tried = vec![0];
    trouble(&mut window, 10, NOON);
    for second in 1..2_000 {
        if round(&mut window, NEAR, seconds(second)) >= 10 {
            assert_eq!(trouble(&mut window, 10, seconds(second)), 1);
            tried.push(second);
        }
    }

    let pauses: Vec<_> = tried.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(pauses, [30, 60, 120, 240, 480, 960]);
}

#[test]
fn trouble_by_chance_does_not_keep_it_small_for_long() {
    let mut window = Window::new(DEFAULT, NOON);
    // One order in forty, whatever is under way: for ten minutes.
    for second in 0..600 {
        let sent: Vec<_> = (0..window.size()).map(|_| window.sent(seconds(second))).collect();
        for (place, sent) in sent.into_iter().enumerate() {
            if (second * 7 + i64::try_from(place).unwrap()) % 40 == 39 {
                window.refused(sent, seconds(second), seconds(second));
            } else {
                window.taken(sent, NEAR, seconds(second));
            }
            window.ended();
        }
    }

    let recovers = (600..720).find(|second| round(&mut window, NEAR, seconds(*second)) >= 32);
    assert!(recovers.is_some(), "{window:?}");
}

#[test]
fn a_ca_that_has_recovered_gets_as_much_as_before() {
    let mut window = Window::new(NewOrders { start: 16, ceiling: 64 }, NOON);
    trouble(&mut window, 10, NOON);

    (0..90).for_each(|second| {
        round(&mut window, NEAR, seconds(second));
    });

    assert_eq!(window.size(), 64);
}

#[test]
fn a_level_holds_from_when_the_ca_may_be_asked_again() {
    let mut window = Window::new(DEFAULT, NOON);
    let sent: Vec<_> = (0..4).map(|_| window.sent(NOON)).collect();
    window.refused(sent[3], NOON, seconds(300));
    (0..4).for_each(|_| window.ended());

    let within = [(); 9].map(|()| round(&mut window, NEAR, seconds(329)));
    assert_eq!(within.last(), Some(&3));
    assert_eq!(round(&mut window, NEAR, seconds(330)), 4);
}

#[test]
fn after_a_quiet_time_it_begins_as_at_the_start() {
    let mut window = Window::new(DEFAULT, NOON);
    (0..20).for_each(|_| {
        round(&mut window, NEAR, NOON);
    });
    assert_eq!(window.size(), 64);

    window.sent(seconds(30));
    assert_eq!(window.size(), 64);
    window.ended();
    window.sent(seconds(61));
    assert_eq!(window.size(), DEFAULT.start);
}

/// Virtual time: orders wait for their turn, the CA answers each after a while, refuses those that are one
/// too many, and names a time.
#[test]
fn a_ca_that_bears_nine_at_once_is_found_out_within_a_minute_and_seldom_asked_for_more() {
    const BEARS: usize = 9;
    const PAUSE: i64 = 2;
    let mut window = Window::new(DEFAULT, NOON);
    let (mut now, mut asleep_until) = (NOON, NOON);
    let mut answers = BinaryHeap::new();
    let (mut taken, mut refused) = (Vec::new(), Vec::new());
    let (mut number, mut borne_now) = (0_u64, 0);
    while now < seconds(600) {
        while now >= asleep_until && answers.len() < window.size() {
            let sent = window.sent(now);
            let too_many = borne_now >= BEARS;
            borne_now += usize::from(!too_many);
            number += 1;
            // Some are answered sooner than others.
            let took = Duration::from_millis(80 + number * 37 % 60);
            answers.push(Reverse((now + took, number, took, sent.place, sent.troubles, too_many)));
        }
        let Some(Reverse((at, _, took, place, troubles, too_many))) = answers.pop() else {
            now = asleep_until;
            continue;
        };
        now = at;
        let sent = Sent { place, troubles };
        if too_many {
            asleep_until = asleep_until.max(now + time::Duration::seconds(PAUSE));
            window.refused(sent, now, asleep_until);
            refused.push(now);
        } else {
            window.taken(sent, took, now);
            taken.push(now);
            borne_now -= 1;
        }
        window.ended();
    }

    let since = |times: &[OffsetDateTime], from| times.iter().filter(|at| **at >= from).count();
    let after_a_minute = since(&taken, seconds(60));
    // One takes 110 ms.
    let borne = 540_000 / 110 * BEARS;
    assert!(after_a_minute * 10 > borne * 9, "{after_a_minute} of {borne}");
    assert!(since(&refused, seconds(60)) <= 10, "{refused:?}");
    assert!(refused.len() <= 30, "{refused:?}");
}
