//! Sends by the options until time or number is up: one thread per connection, none shares a lock.

use std::io::Write as _;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::error::LoadError;
use crate::http::{Answer, Connection, Target, rejected_spans};
use crate::options::Options;
use crate::request::{Maker, Request, Shape, Trace};
use crate::tally::{AckedTrace, Progress, Tally, number};
use crate::text::Vocabulary;

/// Wait before a broken connection is tried again.
const RECONNECT: Duration = Duration::from_millis(50);

/// Wait after "come back later" without a time.
const USUAL_WAIT: Duration = Duration::from_secs(1);

/// Past this a request of the schedule counts as late.
const LATE: Duration = Duration::from_millis(100);

/// What all connections share.
#[derive(Debug)]
struct Plan<'a> {
    target: Target,
    options: &'a Options,
    shape: Shape,
    words: Vocabulary,
    seed: u64,
    begun: Instant,
    /// Nothing is begun after it.
    deadline: Option<Instant>,
    /// Between the requests of the schedule.
    interval: Option<Duration>,
    progress: Progress,
}

/// Result of a run.
#[derive(Debug)]
pub(crate) struct Done {
    /// Of all connections.
    pub(crate) tally: Tally,
    /// How traces were put into requests.
    pub(crate) shape: Shape,
    /// When the first request was due.
    pub(crate) begun_unix_nano: u64,
    /// Until the last ack.
    pub(crate) took: Duration,
}

/// Sends as the options say.
///
/// # Errors
/// When nobody listens, or the service refuses what is sent for good.
pub(crate) fn run(options: &Options) -> Result<Done, LoadError> {
    let shape = options.shape()?;
    let target = Target::parse(&options.url)?;
    let probe = Connection::open(&target);
    drop(
        probe.map_err(|source| LoadError::Connection {
            authority: target.authority.clone(),
            source,
        })?,
    );
    let request_spans = number((shape.traces() * shape.trace_spans / shape.parts).max(1) as u64);
    let begun = Instant::now();
    let plan = Plan {
        target,
        options,
        shape,
        words: Vocabulary::new(),
        seed: options.seed.unwrap_or_else(|| unix_nanos() ^ u64::from(std::process::id()) << 40),
        begun,
        deadline: options.duration().map(|duration| begun + duration),
        interval: options.rate.map(|rate| Duration::from_secs_f64(request_spans / rate)),
        progress: Progress::default(),
    };
    let begun_unix_nano = unix_nanos();
    let (tally, took) = thread::scope(|scope| {
        let connection = |number| Worker::new(&plan, number).run();
        let threads: Vec<_> = (0..options.connections)
            .map(|number| scope.spawn(move || connection(number)))
            .collect();
        if !options.quiet {
            report_progress(&plan, || threads.iter().all(thread::ScopedJoinHandle::is_finished));
        }
        let mut tally = Tally::new();
        let mut last = plan.begun;
        for thread in threads {
            let (part, ended) = thread.join().map_err(|_| LoadError::Thread)??;
            tally.add(part);
            last = last.max(ended);
        }
        Ok((tally, last - plan.begun))
    })?;
    Ok(Done { tally, shape, begun_unix_nano, took })
}

fn report_progress(plan: &Plan<'_>, is_finished: impl Fn() -> bool) {
    let mut seen = 0;
    let mut next = plan.begun + Duration::from_secs(1);
    while !is_finished() {
        thread::sleep(Duration::from_millis(20));
        if Instant::now() < next {
            continue;
        }
        next += Duration::from_secs(1);
        let acked = plan.progress.acked.load(Ordering::Relaxed);
        let second = plan.begun.elapsed().as_secs();
        let line = format!("{second:>5} s {acked:>12} spans acked {:>9} spans/s\n", acked - seen);
        seen = acked;
        // Progress that nobody sees is no reason to stop.
        drop(std::io::stderr().write_all(line.as_bytes()));
    }
}

/// One connection.
#[derive(Debug)]
struct Worker<'a> {
    plan: &'a Plan<'a>,
    maker: Maker,
    connection: Option<Connection>,
    tally: Tally,
    last_ack: Instant,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Acked,
    GivenUp,
}

impl<'a> Worker<'a> {
    fn new(plan: &'a Plan<'a>, number: u64) -> Self {
        let maker = Maker::new(plan.shape, plan.seed, number);
        Self { plan, maker, connection: None, tally: Tally::new(), last_ack: plan.begun }
    }

    fn run(mut self) -> Result<(Tally, Instant), LoadError> {
        let plan = self.plan;
        let header = &plan.options.header;
        let mut requests = self.maker.requests(|length| plan.target.head(length, header));
        while self.may_begin(&requests) {
            if let Err(error) = self.send_group(&mut requests) {
                plan.progress.over.store(true, Ordering::Relaxed);
                return Err(error);
            }
        }
        Ok((self.tally, self.last_ack))
    }

    /// Takes a share of the number that was asked for; false when time or number is up.
    fn may_begin(&self, requests: &[Request]) -> bool {
        if self.plan.progress.is_over()
            || self.plan.deadline.is_some_and(|end| Instant::now() >= end)
        {
            return false;
        }
        let Some(wanted) = self.plan.options.spans else { return true };
        let spans: usize = requests.iter().map(Request::spans).sum();
        self.plan.progress.taken.fetch_add(spans as u64, Ordering::Relaxed) < wanted
    }

    /// Sends a group of traces, part by part.
    fn send_group(&mut self, requests: &mut [Request]) -> Result<(), LoadError> {
        let traces = self.maker.begin(unix_nanos());
        let mut spans = 0;
        let mut acked_unix_nano = 0;
        for request in requests {
            let Some(due) = self.take_slot() else { break };
            self.maker.fill(request, &traces, &self.plan.words);
            let due = due.map_or_else(Instant::now, |due| self.wait_until(due));
            if self.send(request, due)? == Outcome::GivenUp {
                break;
            }
            spans += request.spans_per_trace as u64;
            acked_unix_nano = unix_nanos();
        }
        if spans > 0 {
            let acked = |trace: &Trace| AckedTrace {
                high: trace.high,
                low: trace.low,
                spans,
                acked_unix_nano,
            };
            self.tally.acked.extend(traces.iter().map(acked));
        }
        Ok(())
    }

    /// When the next request is due: at once without a schedule; nothing after the schedule's end.
    fn take_slot(&self) -> Option<Option<Instant>> {
        let Some(interval) = self.plan.interval else { return Some(None) };
        let slot = self.plan.progress.slots.fetch_add(1, Ordering::Relaxed);
        let due = self.plan.begun + interval.mul_f64(number(slot));
        self.plan.deadline.is_none_or(|deadline| due < deadline).then_some(Some(due))
    }

    fn wait_until(&mut self, due: Instant) -> Instant {
        let now = Instant::now();
        if now > due + LATE {
            self.tally.late += 1;
        }
        thread::sleep(due.saturating_duration_since(now));
        due
    }

    /// Sends until it is acknowledged or patience is out; latency counts from `due`.
    fn send(&mut self, request: &Request, due: Instant) -> Result<Outcome, LoadError> {
        let authority = || self.plan.target.authority.clone();
        let patience = Instant::now() + Duration::from_secs(self.plan.options.patience);
        loop {
            let pause = match self.try_once(request) {
                Ok(answer) if answer.status == 200 => {
                    self.count(request, &answer, due);
                    return Ok(Outcome::Acked);
                }
                Ok(answer) if matches!(answer.status, 429 | 502 | 503 | 504) => {
                    self.tally.told_to_wait += 1;
                    answer.retry_after.unwrap_or(USUAL_WAIT)
                }
                Ok(Answer { status, body, .. }) => {
                    let body = String::from_utf8_lossy(&body).chars().take(300).collect();
                    return Err(LoadError::Refused { authority: authority(), status, body });
                }
                Err(_) => {
                    self.tally.broken += 1;
                    RECONNECT
                }
            };
            if self.plan.progress.is_over() || Instant::now() + pause > patience {
                self.tally.unresolved += request.spans() as u64;
                return Ok(Outcome::GivenUp);
            }
            thread::sleep(pause);
        }
    }

    /// One attempt. A connection that broke or that the service closes is not used again.
    fn try_once(&mut self, request: &Request) -> std::io::Result<Answer> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(&self.plan.target)?,
        };
        let answer = connection.send(request.bytes())?;
        if !answer.closes {
            self.connection = Some(connection);
        }
        Ok(answer)
    }

    fn count(&mut self, request: &Request, answer: &Answer, due: Instant) {
        self.last_ack = Instant::now();
        let spans = request.spans() as u64;
        let rejected = rejected_spans(&answer.body).min(spans);
        self.tally.latency.record(self.last_ack.saturating_duration_since(due));
        self.tally.requests += 1;
        self.tally.spans += spans - rejected;
        self.tally.rejected += rejected;
        self.tally.bytes += request.body_bytes as u64;
        self.plan.progress.acked.fetch_add(spans - rejected, Ordering::Relaxed);
    }
}

#[expect(clippy::disallowed_methods, reason = "spans carry the real time, and so do acks")]
fn unix_nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
