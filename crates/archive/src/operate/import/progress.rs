//! How far the import is: a line that redraws itself on a terminal, a line every 10 s elsewhere.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

const REDRAW_EVERY: Duration = Duration::from_millis(250);
const LINE_EVERY: Duration = Duration::from_secs(10);
const BAR_CELLS: usize = 24;

/// Counters that the parts of an import move.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Bytes of all files; zero when unknown.
    pub total_bytes: AtomicU64,
    /// Bytes read from the disk, or passed over as imported already.
    pub raw_bytes: Arc<AtomicU64>,
    /// Bytes passed over: they say nothing of the rate.
    pub skipped_bytes: AtomicU64,
    pub spans: AtomicU64,
}

/// Shows progress until told to stop.
pub(super) async fn show(counters: Arc<Counters>, stop: CancellationToken) {
    let terminal = std::io::stderr().is_terminal();
    let begun = Instant::now();
    let mut tick = tokio::time::interval(if terminal { REDRAW_EVERY } else { LINE_EVERY });
    tick.tick().await;
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = stop.cancelled() => break,
        }
        let line = line(&Moment::of(&counters, begun.elapsed()));
        let mut out = std::io::stderr().lock();
        // Nobody is told when standard error is gone.
        if terminal {
            write!(out, "\r\x1b[K{line}").and_then(|()| out.flush()).ok();
        } else {
            writeln!(out, "{line}").ok();
        }
    }
    if terminal {
        write!(std::io::stderr().lock(), "\r\x1b[K").ok();
    }
}

#[derive(Clone, Copy, Debug)]
struct Moment {
    read_bytes: u64,
    total_bytes: u64,
    skipped_bytes: u64,
    spans: u64,
    elapsed: Duration,
}

impl Moment {
    fn of(counters: &Counters, elapsed: Duration) -> Self {
        Self {
            read_bytes: counters.raw_bytes.load(Ordering::Relaxed),
            total_bytes: counters.total_bytes.load(Ordering::Relaxed),
            skipped_bytes: counters.skipped_bytes.load(Ordering::Relaxed),
            spans: counters.spans.load(Ordering::Relaxed),
            elapsed,
        }
    }
}

fn line(moment: &Moment) -> String {
    let seconds = moment.elapsed.as_secs_f64().max(0.001);
    let worked = moment.read_bytes.saturating_sub(moment.skipped_bytes);
    let bytes_per_second = as_f64(worked) / seconds;
    let rate = format!(
        "{} spans, {:.0} spans/s, {}/s",
        moment.spans,
        as_f64(moment.spans) / seconds,
        human_bytes(bytes_per_second)
    );
    if moment.total_bytes == 0 {
        return format!("{} read, {rate}", human_bytes(as_f64(moment.read_bytes)));
    }
    let read = moment.read_bytes.min(moment.total_bytes);
    let share = as_f64(read) / as_f64(moment.total_bytes);
    let filled =
        (0..BAR_CELLS).filter(|cell| as_f64(*cell as u64) < share * as_f64(BAR_CELLS as u64));
    let bar = "#".repeat(filled.count());
    let left = as_f64(moment.total_bytes - read) / bytes_per_second.max(1.0);
    let left = match worked {
        0 => "time left unknown".to_owned(),
        _ => format!("{} left", human_time(left)),
    };
    format!(
        "[{bar:<BAR_CELLS$}] {:.0}% of {}, {rate}, {left}",
        100.0 * share,
        human_bytes(as_f64(moment.total_bytes))
    )
}

/// Exact up to 2^53, which no count here reaches.
#[expect(clippy::cast_precision_loss, reason = "for people to read")]
const fn as_f64(number: u64) -> f64 {
    number as f64
}

fn human_bytes(bytes: f64) -> String {
    match bytes {
        _ if bytes < 1e3 => format!("{bytes:.0} B"),
        _ if bytes < 1e6 => format!("{:.1} kB", bytes / 1e3),
        _ if bytes < 1e9 => format!("{:.1} MB", bytes / 1e6),
        _ => format!("{:.2} GB", bytes / 1e9),
    }
}

fn human_time(seconds: f64) -> String {
    match seconds {
        _ if seconds < 90.0 => format!("{seconds:.0} s"),
        _ if seconds < 5_400.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3_600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: half of the files read, a quarter of them passed over; and an unknown total.
    /// Guarantees: rate and time left count only what was worked on.
    #[test]
    fn tells_rate_and_time_left() {
        let half = Moment {
            read_bytes: 50_000_000,
            total_bytes: 100_000_000,
            skipped_bytes: 25_000_000,
            spans: 10_000,
            elapsed: Duration::from_secs(10),
        };
        assert_eq!(
            line(&half),
            "[############            ] 50% of 100.0 MB, 10000 spans, 1000 spans/s, 2.5 MB/s, 20 s left"
        );
        let unknown = Moment { total_bytes: 0, ..half };
        assert_eq!(line(&unknown), "50.0 MB read, 10000 spans, 1000 spans/s, 2.5 MB/s");
    }
}
