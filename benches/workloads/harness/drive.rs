//! Client loops: each waits for its reply before its next call. Driver (b) runs them on a host's own tokio runtime
//! with as many workers as CPUs, driver (a) on the arbiters that host the actors.
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use actix::{Arbiter, ArbiterHandle, System};
use tokio::runtime::{Builder, Handle, Runtime};

use super::machine;

/// One caller; `at` is the number of the call among all callers.
pub(crate) trait Client: Send + 'static {
    /// Makes one call and returns the reply.
    fn call(&mut self, at: u64) -> impl Future<Output = u64> + Send;
}

/// How one lap is driven.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Number of client loops.
    pub(crate) window: u64,
    /// When they stop.
    pub(crate) until: Until,
    /// Whether each call's time is kept.
    pub(crate) timed: bool,
}

/// When the loops of a lap stop.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    /// After this long.
    Elapsed(Duration),
    /// After this many calls by all loops together.
    Count(u64),
}

/// What one lap, or several passes added up, did.
#[derive(Debug, Default)]
pub(crate) struct Lap {
    /// Calls answered.
    pub(crate) ops: u64,
    /// Sum of the replies, for the audit.
    pub(crate) sum: u64,
    /// Wall time.
    pub(crate) elapsed: Duration,
    /// CPU time of the whole process.
    pub(crate) cpu: Duration,
    /// Time of single calls in ns, if the plan asked for it.
    pub(crate) nanos: Vec<u32>,
}

impl Lap {
    /// Adds a further pass.
    pub(crate) fn add(&mut self, other: Lap) {
        self.ops += other.ops;
        self.sum = self.sum.wrapping_add(other.sum);
        self.elapsed += other.elapsed;
        self.cpu += other.cpu;
        self.nanos.extend(other.nanos);
    }

    /// Measures a piece of work that counts its own operations.
    pub(crate) fn of(work: impl FnOnce() -> u64) -> Lap {
        let (cpu, started) = (machine::cpu_time(), Instant::now());
        let ops = work();
        Lap { ops, elapsed: started.elapsed(), cpu: machine::cpu_time().saturating_sub(cpu), ..Lap::default() }
    }
}

/// Repeats fresh passes until they ran for `time` together.
pub(crate) fn passes(time: Duration, mut pass: impl FnMut() -> Lap) -> Lap {
    let mut lap = pass();
    while lap.elapsed < time {
        lap.add(pass());
    }
    lap
}

/// Driver (b): a host's own runtime.
pub(crate) struct Host(Runtime);

impl Host {
    /// Starts one with as many workers as CPUs.
    pub(crate) fn start(cpus: usize) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(cpus).enable_all().build();
        Self(runtime.expect("the machine has threads for a runtime"))
    }

    /// Where tasks of the host are spawned.
    pub(crate) fn handle(&self) -> &Handle {
        self.0.handle()
    }

    /// Runs the loops of one lap.
    pub(crate) fn run<C: Client>(&self, plan: Plan, make: impl FnMut(u64) -> C) -> Lap {
        gather(plan, make, |_, task| drop(self.0.spawn(task)))
    }
}

/// Driver (a): actix arbiters that host the actors and run the loops.
pub(crate) struct Arbiters {
    system: System,
    hosts: Vec<Arbiter>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Arbiters {
    /// Starts a system with `count` arbiters.
    pub(crate) fn start(count: usize) -> Self {
        let (send, receive) = mpsc::channel();
        let thread = thread::spawn(move || {
            let runner = System::new();
            runner.block_on(async {
                let arbiters: Vec<_> = (0..count).map(|_| Arbiter::new()).collect();
                send.send((System::current(), arbiters)).expect("the starter waits");
            });
            runner.run().expect("the system stops without an error");
        });
        let (system, hosts) = receive.recv().expect("the system starts");
        Self { system, hosts, thread: Some(thread) }
    }

    /// Runs something on every arbiter, and returns what it gave.
    pub(crate) fn each<T: Send + 'static>(&self, work: impl Fn(usize) -> T + Clone + Send + 'static) -> Vec<T> {
        let results = self.hosts.iter().enumerate().map(|(at, arbiter)| {
            let ((send, receive), work) = (mpsc::channel(), work.clone());
            arbiter.spawn_fn(move || send.send(work(at)).expect("the starter waits"));
            receive.recv().expect("the arbiter runs")
        });
        results.collect()
    }

    /// Runs the loops of one lap.
    pub(crate) fn run<C: Client>(&self, plan: Plan, make: impl FnMut(u64) -> C) -> Lap {
        let mut next = self.hosts.iter().cycle();
        gather(plan, make, |_, task| {
            next.next().expect("there is an arbiter").spawn(task);
        })
    }
}

impl Drop for Arbiters {
    fn drop(&mut self) {
        for arbiter in self.hosts.drain(..) {
            arbiter.stop();
            arbiter.join().expect("an arbiter ends in order");
        }
        self.system.stop();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the system ends in order");
        }
    }
}

/// Driver (a) for actors on arbiters of somebody else: the loops run on these.
pub(crate) fn run_on<C: Client>(arbiters: &[ArbiterHandle], plan: Plan, make: impl FnMut(u64) -> C) -> Lap {
    let mut next = arbiters.iter().cycle();
    gather(plan, make, |_, task| {
        next.next().expect("there is an arbiter").spawn(task);
    })
}

type Task = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

fn gather<C: Client>(plan: Plan, make: impl FnMut(u64) -> C, mut spawn: impl FnMut(u64, Task)) -> Lap {
    let clients: Vec<C> = (0..plan.window).map(make).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let (send, receive) = mpsc::channel();
    let (cpu, started) = (machine::cpu_time(), Instant::now());
    for (me, client) in (0..).zip(clients) {
        let (send, stop) = (send.clone(), stop.clone());
        spawn(me, Box::pin(async move { send.send(caller(client, me, plan, &stop).await).expect("the bench waits") }));
    }
    drop(send);
    if let Until::Elapsed(time) = plan.until {
        pause(time);
        stop.store(true, Ordering::Relaxed);
    }
    let mut lap = Lap::default();
    let mut ended = 0;
    for part in receive {
        lap.add(part);
        ended += 1;
    }
    assert_eq!(ended, plan.window, "a client loop panicked; its message is above");
    Lap { elapsed: started.elapsed(), cpu: machine::cpu_time().saturating_sub(cpu), ..lap }
}

async fn caller<C: Client>(mut client: C, me: u64, plan: Plan, stop: &AtomicBool) -> Lap {
    let mut lap = Lap::default();
    let last = match plan.until {
        Until::Elapsed(_) => u64::MAX,
        Until::Count(count) => count,
    };
    let mut at = me;
    while at < last && !stop.load(Ordering::Relaxed) {
        let reply = if plan.timed {
            let started = Instant::now();
            let reply = client.call(at).await;
            lap.nanos.push(u32::try_from(started.elapsed().as_nanos()).unwrap_or(u32::MAX));
            reply
        } else {
            client.call(at).await
        };
        lap.sum = lap.sum.wrapping_add(reply);
        lap.ops += 1;
        at += plan.window;
    }
    lap
}

/// The bench's own thread has nothing else to do.
fn pause(time: Duration) {
    thread::sleep(time);
}

/// Checks every reply and the total: each counter answers 1, 2, 3 … once, so the replies of a lap have one possible
/// sum, and the counters together grew by exactly the calls made.
#[derive(Debug, Default)]
pub(crate) struct Audit(Vec<u64>);

impl Audit {
    /// Compares a lap with the counters after it.
    pub(crate) fn check(&mut self, name: &str, lap: &Lap, counters: Vec<u64>) {
        self.0.resize(counters.len(), 0);
        let triangle = |n: &u64| n * (n + 1) / 2;
        let grown: u64 = counters.iter().sum::<u64>() - self.0.iter().sum::<u64>();
        let replies = counters.iter().map(triangle).sum::<u64>() - self.0.iter().map(triangle).sum::<u64>();
        assert_eq!(grown, lap.ops, "{name}: the counters do not add up to the calls made");
        assert_eq!(replies, lap.sum, "{name}: some reply was wrong");
        self.0 = counters;
    }
}
