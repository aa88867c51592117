//! What a thread did while time passed: it computed, it slept, or it was ready all the while and others had the processors. Only the
//! first two are its own doing. Where the system does not tell, what took long counts as the thread's own.

#[cfg(target_os = "linux")]
pub(super) use linux::{Watched, waited};
#[cfg(not(target_os = "linux"))]
pub(super) use unknown::{Watched, waited};

use std::time::Duration;

use crate::limits;

/// What the watching thread asks of another.
pub(super) trait Observed {
    /// The processor time it has used so far; `None` where that is not known.
    fn computed(&self) -> Option<Duration>;
    /// Whether it is ready to run, or runs; `false` where that is not known.
    fn is_ready(&self) -> bool;
}

/// Whether a turn that is seen for at least the second time takes long by its own doing.
pub(super) fn is_own_doing(thread: &impl Observed, computed_before: Option<Duration>) -> bool {
    let computed = thread.computed().zip(computed_before);
    let computed = computed.map(|(now, before)| now.saturating_sub(before));
    computed.is_none_or(|computed| computed >= limits::LOOK_PERIOD / 2) || !thread.is_ready()
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs::File;
    use std::io::Read;
    use std::time::Duration;

    use nix::time::{ClockId, clock_gettime};
    use nix::unistd::{Pid, gettid};

    use super::Observed;

    /// A thread as another one of its process sees it.
    pub(in crate::blocking) struct Watched {
        thread: Pid,
        clock: ClockId,
    }

    impl Watched {
        pub(in crate::blocking) fn this() -> Self {
            let thread = gettid();
            // The clock of one thread's processor time, as `clock_getres(2)` has the numbers of such clocks: the thread's number
            // inverted, above three bits that say whose time (4: a thread's) and which (2: the scheduler's count).
            let clock = ClockId::from_raw((!thread.as_raw() << 3) | 4 | 2);
            Self { thread, clock }
        }
    }

    impl Observed for Watched {
        fn computed(&self) -> Option<Duration> {
            clock_gettime(self.clock).ok().map(Duration::from)
        }

        fn is_ready(&self) -> bool {
            // `proc_pid_stat(5)`: the state comes after the name, which stands in parentheses and may have some itself.
            let stat = line(&format!("/proc/self/task/{}/stat", self.thread)).unwrap_or_default();
            let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
            state.is_some_and(|state| state.starts_with('R'))
        }
    }

    /// The one short line of such a file. One call of the system to open it and one to read it.
    fn line(path: &str) -> Option<String> {
        let mut line = [0; 512];
        let len = File::open(path).ok()?.read(&mut line).ok()?;
        Some(String::from_utf8_lossy(line.get(..len)?).into_owned())
    }

    /// How long this thread, ready to run, has waited for a processor so far. Exact, since it has one now.
    pub(in crate::blocking) fn waited() -> Option<Duration> {
        // What it computed, how long it waited, both in nanoseconds, and how often it ran: `proc(5)` of the kernel's documentation,
        // "scheduler statistics".
        let stat = line("/proc/thread-self/schedstat")?;
        let waited = stat.split_whitespace().nth(1)?.parse().ok()?;
        Some(Duration::from_nanos(waited))
    }

    #[cfg(test)]
    mod tests {
        use std::sync::mpsc;
        use std::thread;
        use std::time::Instant;

        use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};

        use super::*;

        const LONG: Duration = Duration::from_millis(20);

        fn compute(thread: &Watched, at_least: Duration) {
            let before = thread.computed().unwrap();
            while thread.computed().unwrap() - before < at_least {}
        }

        #[test]
        fn who_sleeps_or_computes_waits_for_no_processor_meanwhile() {
            let (begun, before) = (Instant::now(), waited().unwrap());
            thread::sleep(LONG);
            let slept = begun.elapsed();
            // However busy the machine is: what it slept for certain is no wait.
            let waited = waited().unwrap() - before;
            assert!(slept - waited >= LONG, "{waited:?} of {slept:?}");
        }

        #[test]
        fn two_threads_that_compute_on_one_processor_wait_for_each_other() {
            let all = sched_getaffinity(Pid::from_raw(0)).unwrap();
            let here = (0..CpuSet::count()).find(|cpu| all.is_set(*cpu).unwrap());
            let mut one = CpuSet::new();
            one.set(here.unwrap()).unwrap();
            let computing = [(); 2].map(|()| {
                thread::spawn(move || {
                    sched_setaffinity(Pid::from_raw(0), &one).unwrap();
                    let (begun, before) = (Instant::now(), waited().unwrap());
                    let deadline = begun + Duration::from_secs(30);
                    // Until both have, however the system divides the processor.
                    while waited().unwrap() - before < LONG {
                        assert!(Instant::now() < deadline, "nobody waited");
                    }
                    begun.elapsed() >= LONG
                })
            });
            for thread in computing {
                assert!(thread.join().unwrap());
            }
        }

        #[test]
        fn others_see_whether_a_thread_computes_or_sleeps() {
            let (tell, told) = mpsc::channel();
            let (end, until) = mpsc::channel::<()>();
            let (go, begin) = mpsc::channel::<()>();
            let sleeper = thread::Builder::new().name("a) R (b".to_owned());
            let sleeper = sleeper.spawn(move || {
                tell.send(Watched::this()).unwrap();
                begin.recv().unwrap();
                compute(&Watched::this(), LONG);
                until.recv().unwrap();
            });
            let watched = told.recv().unwrap();
            let deadline = Instant::now() + Duration::from_secs(30);
            while watched.is_ready() {
                assert!(Instant::now() < deadline, "it is to be found asleep");
            }
            let before = watched.computed().unwrap();
            go.send(()).unwrap();
            let mut was_ready = false;
            while watched.computed().unwrap() < before + LONG {
                was_ready |= watched.is_ready();
                assert!(Instant::now() < deadline, "it is to be found computing");
            }
            assert!(was_ready);
            end.send(()).unwrap();
            sleeper.unwrap().join().unwrap();
            assert_eq!(watched.computed(), None);
            assert!(!watched.is_ready());
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod unknown {
    use std::time::Duration;

    use super::Observed;

    pub(in crate::blocking) struct Watched;

    impl Watched {
        pub(in crate::blocking) fn this() -> Self {
            Self
        }
    }

    impl Observed for Watched {
        fn computed(&self) -> Option<Duration> {
            None
        }

        fn is_ready(&self) -> bool {
            false
        }
    }

    pub(in crate::blocking) fn waited() -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Thread {
        computed: Option<Duration>,
        is_ready: bool,
    }

    fn after(computed: Duration, is_ready: bool) -> bool {
        let thread = Thread {
            computed: Some(Duration::from_secs(1) + computed),
            is_ready,
        };
        is_own_doing(&thread, Some(Duration::from_secs(1)))
    }

    impl Observed for Thread {
        fn computed(&self) -> Option<Duration> {
            self.computed
        }

        fn is_ready(&self) -> bool {
            self.is_ready
        }
    }

    #[test]
    fn a_long_turn_is_a_threads_own_doing_when_it_computes_or_sleeps() {
        assert!(after(limits::LOOK_PERIOD, true));
        assert!(after(Duration::ZERO, false));
    }

    #[test]
    fn a_thread_that_is_ready_and_hardly_computes_waits_for_a_processor() {
        assert!(!after(limits::LOOK_PERIOD / 4, true));
    }

    #[test]
    fn what_is_not_known_counts_as_the_threads_own() {
        let thread = Thread {
            computed: None,
            is_ready: true,
        };
        assert!(is_own_doing(&thread, Some(Duration::ZERO)));
        assert!(is_own_doing(&thread, None));
    }
}
