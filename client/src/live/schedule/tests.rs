//! By hand for each rule, and by drawn inputs for what holds always.

use super::*;

const PACE: Pace = Pace {
    debounce: 300,
    debounce_max: 5_000,
    every: 900_000,
    spacing: 250,
    retry_min: 1_000,
    retry_max: 300_000,
    asked_max: 3_600_000,
};
const A: VaultId = VaultId::from_bytes([1; 16]);
const B: VaultId = VaultId::from_bytes([2; 16]);
const LATER: End = End::Later { asked: None, is_away: false };
const AWAY: End = End::Later { asked: None, is_away: true };

struct Run {
    schedule: Schedule,
    now: Millis,
}

impl Run {
    fn new() -> Self {
        Self { schedule: Schedule::new(PACE, None, 0), now: 0 }
    }

    /// Everything is synced once, and a second passes.
    fn settled() -> Self {
        let mut run = Self::new();
        run.works(Lane::Account, End::Synced);
        run.give(Input::Vaults([A, B].into()));
        run.works(Lane::Vault(A), End::Synced);
        run.works(Lane::Vault(B), End::Synced);
        run.now += 1_000;
        run
    }

    fn give(&mut self, input: Input) {
        self.schedule.take(self.now, input, 0);
    }

    #[track_caller]
    fn works(&mut self, lane: Lane, end: End) {
        let Next::Work(next, _) = self.schedule.next(self.now) else { panic!("{lane:?} is not due") };
        assert_eq!(next, lane);
        self.schedule.begin(self.now, lane);
        self.give(Input::Done(lane, end));
    }

    /// Waits for the next turn; gives how long.
    #[track_caller]
    fn wait(&mut self) -> Millis {
        match self.schedule.next(self.now) {
            Next::At(at) => {
                let waited = at - self.now;
                self.now = at;
                waited
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_account_goes_first_and_then_every_vault() {
    let mut run = Run::settled();
    assert_eq!(run.schedule.next(run.now), Next::At(PACE.every));
    // As often as the timer says.
    run.now = PACE.every;
    run.works(Lane::Account, End::Synced);
    run.works(Lane::Vault(A), End::Synced);
    run.works(Lane::Vault(B), End::Synced);
    assert_eq!(run.schedule.next(run.now), Next::At(2 * PACE.every));
}

#[test]
fn writes_are_sent_together() {
    let mut run = Run::settled();
    run.give(Input::Wrote(A));
    run.now += 200;
    run.give(Input::Wrote(A));
    assert_eq!(run.wait(), 300);
    run.works(Lane::Vault(A), End::Synced);
    // One after the other without an end: after five seconds all the same.
    run.now += 1_000;
    let first = run.now;
    while run.now < first + 5_000 {
        run.give(Input::Wrote(A));
        assert!(matches!(run.schedule.next(run.now), Next::At(at) if at <= first + 5_000), "{}", run.now);
        run.now += 100;
    }
    run.works(Lane::Vault(A), End::Synced);
    assert_eq!(run.schedule.next(run.now), Next::At(PACE.every));
}

#[test]
fn what_is_written_during_a_turn_has_another_one() {
    let mut run = Run::settled();
    run.give(Input::Wrote(A));
    run.wait();
    run.schedule.begin(run.now, Lane::Vault(A));
    run.give(Input::Wrote(A));
    assert_eq!(run.schedule.next(run.now), Next::Never, "one push at a time");
    run.now += 1_000;
    run.give(Input::Done(Lane::Vault(A), End::Synced));
    assert_eq!(run.wait(), PACE.spacing);
    run.works(Lane::Vault(A), End::Synced);
}

#[test]
fn notices_are_followed_at_once_with_a_pause_between() {
    let mut run = Run::settled();
    run.give(Input::Moved(Lane::Vault(B)));
    run.works(Lane::Vault(B), End::Synced);
    run.give(Input::Moved(Lane::Vault(B)));
    assert_eq!(run.wait(), PACE.spacing);
    run.works(Lane::Vault(B), End::Synced);
    run.give(Input::Moved(Lane::Account));
    run.works(Lane::Account, End::Synced);
}

#[test]
fn waits_double_up_to_a_bound_and_success_ends_them() {
    for (failures, bound) in [(1, 2_000), (2, 4_000), (8, 256_000), (9, 300_000), (40, 300_000)] {
        assert_eq!(backoff(&PACE, failures, 0), 1_000);
        assert_eq!(backoff(&PACE, failures, bound - 1_000), bound);
        assert_eq!(backoff(&PACE, failures, bound - 999), 1_000, "the whole span is drawn from");
        assert!((1_000..=bound).contains(&backoff(&PACE, failures, u64::MAX)));
    }
    let mut run = Run::new();
    for _ in 0..3 {
        run.works(Lane::Account, AWAY);
        assert_eq!(run.wait(), 1_000);
    }
    run.works(Lane::Account, End::Synced);
    run.now += 1_000;
    run.give(Input::Moved(Lane::Account));
    run.works(Lane::Account, End::Later { asked: None, is_away: true });
    assert_eq!(run.schedule.account.failures, 1);
}

#[test]
fn a_server_that_asks_to_wait_is_left_alone_for_so_long_and_an_hour_at_most() {
    let mut run = Run::settled();
    run.give(Input::Moved(Lane::Vault(A)));
    run.works(Lane::Vault(A), End::Later { asked: Some(120_000), is_away: false });
    assert_eq!(run.wait(), 120_000);
    run.works(Lane::Vault(A), End::Later { asked: Some(u64::MAX), is_away: false });
    while run.now < 120_000 + 3_600_000 {
        assert!(run.schedule.next(run.now) != Next::Work(Lane::Vault(A), Mode::Full), "{}", run.now);
        run.wait();
        if run.schedule.next(run.now) == Next::Work(Lane::Account, Mode::Full) {
            run.works(Lane::Account, End::Synced);
            run.works(Lane::Vault(B), End::Synced);
        }
    }
}

#[test]
fn a_vault_in_trouble_keeps_no_other_from_it() {
    let mut run = Run::settled();
    for end in [LATER, End::Person { of_all: false }] {
        run.give(Input::Moved(Lane::Vault(A)));
        run.works(Lane::Vault(A), end);
        run.give(Input::Moved(Lane::Vault(B)));
        run.works(Lane::Vault(B), End::Synced);
        run.now += 2_000;
    }
    run.give(Input::Wrote(A));
    run.give(Input::Moved(Lane::Vault(A)));
    assert_eq!(run.schedule.next(run.now), Next::At(PACE.every), "it waits for a person");
    run.give(Input::SyncNow);
    run.works(Lane::Account, End::Synced);
    run.works(Lane::Vault(A), End::Synced);
}

#[test]
fn whether_the_server_is_away_the_account_tells() {
    let mut run = Run::settled();
    run.give(Input::Wrote(A));
    run.wait();
    run.works(Lane::Vault(A), AWAY);
    run.works(Lane::Account, AWAY);
    // The others do not try, either.
    run.give(Input::Moved(Lane::Vault(B)));
    assert_eq!(run.wait(), 1_000);
    run.works(Lane::Account, End::Synced);
    // It is back: nobody waits any longer.
    run.works(Lane::Vault(B), End::Synced);
    run.works(Lane::Vault(A), End::Synced);
}

#[test]
fn a_full_account_goes_on_pulling() {
    let mut run = Run::settled();
    run.give(Input::Wrote(A));
    run.wait();
    run.works(Lane::Vault(A), End::Full);
    run.now += 1_000;
    run.give(Input::Wrote(A));
    assert_eq!(run.schedule.next(run.now), Next::At(PACE.every));
    run.give(Input::Moved(Lane::Vault(A)));
    assert_eq!(run.schedule.next(run.now), Next::Work(Lane::Vault(A), Mode::Pull));
    run.works(Lane::Vault(A), End::Synced);
    run.give(Input::SyncNow);
    run.works(Lane::Account, End::Synced);
    assert_eq!(run.schedule.next(run.now), Next::Work(Lane::Vault(A), Mode::Full));
}

#[test]
fn a_pause_puts_what_it_cut_off_back() {
    let mut run = Run::settled();
    run.give(Input::Wrote(A));
    run.wait();
    run.schedule.begin(run.now, Lane::Vault(A));
    run.give(Input::Pause);
    run.give(Input::Wrote(B));
    run.give(Input::SyncNow);
    run.now += 10 * PACE.every;
    assert_eq!(run.schedule.next(run.now), Next::Never);
    run.give(Input::Resume);
    run.works(Lane::Account, End::Synced);
    run.works(Lane::Vault(A), End::Synced);
    run.works(Lane::Vault(B), End::Synced);
}

#[test]
fn a_metered_network_is_woken_once_for_all() {
    let hour = 3_600_000;
    let mut run = Run::settled();
    run.give(Input::Metered(Some(hour)));
    run.give(Input::Wrote(A));
    run.wait();
    let begun = run.now;
    run.works(Lane::Vault(A), End::Synced);
    run.works(Lane::Account, End::Synced);
    run.works(Lane::Vault(B), LATER);
    run.give(Input::Wrote(A));
    run.give(Input::Moved(Lane::Vault(B)));
    run.wait();
    assert_eq!(run.now, begun + hour);
    run.works(Lane::Account, End::Synced);
    run.works(Lane::Vault(A), End::Synced);
    run.works(Lane::Vault(B), End::Synced);
    // A person need not wait.
    run.now += 1_000;
    run.give(Input::SyncNow);
    run.works(Lane::Account, End::Synced);
}

/// A small generator: what is drawn is the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// What was promised to a lane: the earliest moment of its next turn.
#[derive(Default, Clone, Copy)]
struct Promise {
    not_before: Millis,
    /// It is left alone until then at the latest.
    until: Millis,
    is_stopped: bool,
    is_full: bool,
    first_write: Option<Millis>,
    began: Option<Millis>,
}

#[test]
fn what_holds_whatever_happens() {
    for seed in 0..400 {
        drawn(seed);
    }
}

#[expect(clippy::cognitive_complexity, reason = "one model of all rules")]
fn drawn(seed: u64) {
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let metered = seed.is_multiple_of(3).then_some(60_000);
    let mut schedule = Schedule::new(PACE, metered, 0);
    schedule.take(0, Input::Vaults([A, B].into()), 0);
    let lanes = [Lane::Account, Lane::Vault(A), Lane::Vault(B)];
    let mut promises: BTreeMap<Lane, Promise> =
        lanes.iter().map(|lane| (*lane, Promise::default())).collect();
    let (mut now, mut is_paused, mut ready_since, mut account_failed) = (0, false, None, false);
    let mut window = None;
    for _ in 0..400 {
        match dice.roll(12) {
            0..4 => {
                let vault = [A, B][usize::try_from(dice.roll(2)).unwrap()];
                schedule.take(now, Input::Wrote(vault), 0);
                promises.get_mut(&Lane::Vault(vault)).unwrap().first_write.get_or_insert(now);
            }
            4 => {
                schedule.take(now, Input::Moved(lanes[usize::try_from(dice.roll(3)).unwrap()]), 0);
            }
            5 if dice.roll(4) == 0 => {
                is_paused = !is_paused;
                schedule.take(now, if is_paused { Input::Pause } else { Input::Resume }, 0);
                ready_since = None;
                account_failed &= is_paused;
                window = window.filter(|_| is_paused);
                let renewed = Promise::default();
                for promise in promises.values_mut() {
                    if !is_paused {
                        *promise = Promise { first_write: promise.first_write, ..renewed };
                    }
                }
            }
            6 if dice.roll(8) == 0 => {
                schedule.take(now, Input::SyncNow, 0);
                (ready_since, account_failed, window) = (None, false, None);
                for promise in promises.values_mut() {
                    *promise = Promise { first_write: promise.first_write, ..Promise::default() };
                }
            }
            _ => now += dice.roll(3_000),
        }
        for (lane, promise) in &promises {
            let (Lane::Vault(_), Some(first), Some(ready)) = (lane, promise.first_write, ready_since) else {
                continue;
            };
            let late = now > first.max(ready).max(promise.until) + PACE.debounce_max + PACE.spacing;
            let is_free = !is_paused
                && metered.is_none()
                && !promise.is_stopped
                && !promise.is_full
                && !promises[&Lane::Account].is_stopped;
            // Time passes in steps here: what is overdue is due now.
            if late && is_free {
                assert!(matches!(schedule.next(now), Next::Work(..)), "seed {seed}: a write waits for ever");
            }
        }
        match schedule.next(now) {
            Next::Never => {}
            Next::At(at) => {
                assert!(at > now, "seed {seed}");
                assert!(matches!(schedule.next(at), Next::Work(..)), "seed {seed}: it woke for nothing");
            }
            Next::Work(lane, mode) => {
                let promise = promises.get_mut(&lane).unwrap();
                assert!(!is_paused, "seed {seed}: at work in a pause");
                assert!(!promise.is_stopped, "seed {seed}: {lane:?} waits for a person");
                assert!(now >= promise.not_before, "seed {seed}: {lane:?} was to be left alone");
                assert!(lane == Lane::Account || ready_since.is_some(), "seed {seed}: before the account");
                if let Some(every) = metered {
                    if window.is_none_or(|begun| now >= begun + every) {
                        window = Some(now);
                    }
                    assert!(promise.began < window, "seed {seed}: {lane:?} twice in a window");
                }
                schedule.begin(now, lane);
                (promise.began, promise.first_write) = (Some(now), None);
                now += dice.roll(2_000);
                let end = match dice.roll(10) {
                    0 => LATER,
                    1 => AWAY,
                    2 => End::Later { asked: Some(dice.roll(20_000)), is_away: false },
                    3 if mode == Mode::Full && lane != Lane::Account && dice.roll(3) == 0 => End::Full,
                    4 if dice.roll(6) == 0 => End::Person { of_all: false },
                    _ => End::Synced,
                };
                schedule.take(now, Input::Done(lane, end), dice.roll(u64::from(u32::MAX)));
                match end {
                    End::Later { asked, is_away } => {
                        promise.not_before = now + asked.unwrap_or(0).max(PACE.retry_min);
                        promise.until = now + PACE.retry_max;
                        account_failed |= lane == Lane::Account;
                        if lane == Lane::Account || is_away {
                            ready_since = None;
                        }
                    }
                    End::Person { .. } => {
                        promise.is_stopped = true;
                        if lane == Lane::Account {
                            ready_since = None;
                        }
                    }
                    End::Full => promise.is_full = true,
                    End::Synced => {
                        (promise.not_before, promise.until) = (0, 0);
                        if lane == Lane::Account {
                            ready_since = Some(now);
                        }
                        if lane == Lane::Account && std::mem::take(&mut account_failed) {
                            // It was away: nobody waits any longer.
                            for promise in promises.values_mut() {
                                (promise.not_before, promise.until) = (0, 0);
                            }
                        }
                    }
                }
            }
        }
    }
}
