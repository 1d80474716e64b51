//! What callers, the log thread, the file-writer and the guard share; and a record's way into its thread's buffer.

use std::cell::RefCell;
use std::io;
use std::mem;
use std::process;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use log::{Level, Record};

use crate::barrier::Barrier;
use crate::block::RecordId;
use crate::compose::compose;
use crate::config::{FRAME_BYTES_KEPT, LANE_BYTES_MIN, Overflow};
use crate::filter::{Filter, LiveFilter};
use crate::filter_file::FilterSource;
use crate::frame::{self, Frame, Peek};
use crate::lane::{self, Lane, LaneReader, LaneState, Refused};
use crate::lost::Lost;
use crate::pending::Pending;
use crate::rate::{Rates, Verdict};
use crate::stats::{Counters, LogStats, ThreadStats};
use crate::{Format, LogError, caller, line, stamp};

/// One log, as everyone who holds a handle to it sees it.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Tells one log from another in a thread's list of lanes; never given twice.
    pub(crate) id: u32,
    pub(crate) filter: LiveFilter,
    pub(crate) filter_source: FilterSource,
    pub(crate) counters: Counters,
    pub(crate) rates: Option<Rates>,
    pub(crate) overflow: Overflow,
    pub(crate) format: Format,
    /// The longest line without its time and number.
    pub(crate) record_bytes_max: usize,
    pub(crate) lane_bytes: usize,
    pub(crate) pending: Pending,

    /// Locked when a thread logs for the first time, when one has ended, and for statistics.
    pub(crate) lanes: Mutex<Lanes>,
    /// `lanes` has readers for the log thread.
    pub(crate) arrived: AtomicBool,
    /// For records of threads that are ending and have no lane any more. Locked for the length of a copy.
    pub(crate) strays: Mutex<Option<Lane>>,

    /// Wakes the log thread; one wake-up in hand is enough.
    pub(crate) kicks: Sender<()>,
    pub(crate) barriers: Sender<Barrier>,

    /// Wishes: set by anyone, taken back by the thread that fulfils them.
    pub(crate) flush_wanted: AtomicBool,
    pub(crate) reopen_wanted: AtomicBool,
    pub(crate) drops_unsaid: AtomicBool,
    /// The guard is being dropped.
    pub(crate) closing: AtomicBool,
    /// The process that has the log's threads: a fork has none.
    pub(crate) process: u32,
    /// The log thread takes no more. Set before it looks into the lanes for the last time.
    pub(crate) gone: AtomicBool,
}

/// All lanes of a log.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    /// On their way to the log thread; after its end, all.
    pub(crate) readers: Vec<LaneReader>,
    pub(crate) states: Vec<Arc<LaneState>>,
    /// Records that lanes had numbered which are over.
    pub(crate) retired: u64,
    /// What came into a lane after the log thread's last look.
    leftovers: Lost,
    given: u32,
}

/// What a thread keeps for its logs.
struct Caller {
    lanes: Vec<(u32, Lane)>,
    /// Where it formats, so that no record allocates.
    frame: Vec<u8>,
}

thread_local! {
    static CALLER: RefCell<Caller> = const { RefCell::new(Caller { lanes: Vec::new(), frame: Vec::new() }) };
}

static LOGS: AtomicU32 = AtomicU32::new(0);

/// A number that no other log of this process has.
pub(crate) fn next_id() -> u32 {
    LOGS.fetch_add(1, Ordering::Relaxed)
}

impl Shared {
    /// Replaces the filter until it is read again.
    pub(crate) fn set_filter(&self, text: &str) -> Result<(), LogError> {
        self.put_filter(Filter::parse(text, self.filter_source.level)?);
        Ok(())
    }

    /// Reads the filter from where it comes from, and logs that it is another now.
    pub(crate) fn reload(&self) -> Result<(), LogError> {
        let (filter, text) = self.filter_source.read()?;
        let level = self.filter_source.level;
        if self.put_filter(filter) {
            self.tell(Level::Info, &format!("the filter is now `{text}`, other targets at {level}"));
        }
        Ok(())
    }

    fn put_filter(&self, filter: Filter) -> bool {
        self.filter.set(filter, |max| {
            if self.filter_source.installed.load(Ordering::SeqCst) {
                log::set_max_level(max);
            }
        })
    }

    /// A record of the log's own, whatever the filter.
    pub(crate) fn tell(&self, level: Level, text: &str) {
        let mut record = Record::builder();
        record.level(level).target(line::OWN_TARGET);
        self.deliver_record(&record.args(format_args!("{text}")).build());
    }

    /// Formats and queues a record, if its place has not reached its limit, that has passed the filter. Waits only when `Overflow::Block` lets it.
    pub(crate) fn submit(&self, record: &Record<'_>) {
        match self.rates.as_ref().map(|rates| rates.judge(record, stamp::now_micros())) {
            Some(Verdict::Suppress) => {
                self.counters.suppressed.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Some(Verdict::PassAfter(count)) => self.tell_suppressed(record, count),
            Some(Verdict::Pass) | None => {}
        }
        self.deliver_record(record);
    }

    /// A record of its own, from the same place.
    fn tell_suppressed(&self, record: &Record<'_>, count: u64) {
        let mut note = Record::builder();
        note.level(Level::Warn).target(line::OWN_TARGET).file(record.file()).line(record.line());
        let target = record.target();
        let args = format_args!("{count} records of {target} were suppressed here by the rate limit");
        self.deliver_record(&note.args(args).build());
    }

    fn deliver_record(&self, record: &Record<'_>) {
        let level = record.level();
        if self.gone.load(Ordering::Relaxed) {
            return self.counters.late.add(level);
        }
        let may_wait = match self.overflow {
            Overflow::Block { at_most } if !caller::never_waits() => Some(at_most),
            _ => None,
        };
        let reserve = self.reserve(level);
        // A full buffer costs a caller that will not wait no formatting.
        let needed = if may_wait.is_some() { 0 } else { LANE_BYTES_MIN + reserve };
        let begun = self.with_lane(|lane, frame| {
            if needed > 0 && !lane.has_room(needed) {
                self.refuse(lane, level);
                return None;
            }
            // Taken, not borrowed: what is formatted may log.
            Some(mem::take(frame))
        });
        let Some(mut frame) = begun.flatten() else { return };
        frame.extend_from_slice(&[0; frame::HEAD]);
        compose(&mut frame, record, frame::HEAD + self.record_bytes_max, self.format);
        self.with_lane(|lane, kept| {
            self.deliver(lane, &mut frame, (level, reserve), may_wait);
            frame.clear();
            if frame.capacity() <= FRAME_BYTES_KEPT {
                *kept = frame;
            }
        });
    }

    /// The room that a record of this level leaves to graver ones.
    fn reserve(&self, level: Level) -> usize {
        match (self.overflow, level) {
            (Overflow::DebugFirst, Level::Debug | Level::Trace) => self.lane_bytes / 2,
            (Overflow::DebugFirst, Level::Info) => self.lane_bytes / 8,
            _ => 0,
        }
    }

    fn deliver(
        &self,
        lane: &mut Lane,
        frame: &mut [u8],
        (level, reserve): (Level, usize),
        may_wait: Option<Duration>,
    ) {
        let room = lane.has_room(frame.len() + reserve)
            || may_wait.is_some_and(|at_most| lane.wait_for_room(frame.len(), at_most, || self.kick()));
        if !room {
            return self.refuse(lane, level);
        }
        // Counted before it is there, see `Pending`.
        let wake = self.pending.add(frame.len());
        let half_full = lane.push(frame);
        if wake || half_full || level == Level::Error {
            self.kick();
        }
    }

    fn refuse(&self, lane: &mut Lane, level: Level) {
        lane.refuse(level, stamp::now_micros());
        self.counters.refused.add(level);
        if !self.drops_unsaid.load(Ordering::SeqCst) {
            self.drops_unsaid.store(true, Ordering::SeqCst);
            self.kick();
        }
    }

    /// Calls `f` with the current thread's lane, which is made when there is none, and its place to format. `f` must not log.
    #[inline]
    fn with_lane<R>(&self, f: impl FnOnce(&mut Lane, &mut Vec<u8>) -> R) -> Option<R> {
        let mut f = Some(f);
        let done = CALLER.try_with(|caller| {
            let mut caller = caller.try_borrow_mut().ok()?;
            let Caller { lanes, frame } = &mut *caller;
            let at = match lanes.iter().position(|(id, _)| *id == self.id) {
                Some(at) => at,
                None => self.add_lane(lanes),
            };
            let (_, lane) = lanes.get_mut(at)?;
            Some(f.take()?(lane, frame))
        });
        match done {
            Ok(Some(result)) => Some(result),
            _ => f.take().map(|f| self.with_strays(f)),
        }
    }

    #[cold]
    fn add_lane(&self, lanes: &mut Vec<(u32, Lane)>) -> usize {
        // Lanes of logs that have ended are not kept.
        lanes.retain(|(_, lane)| !lane.is_left());
        lanes.push((self.id, caller::with_label(|label| self.new_lane(label))));
        lanes.len() - 1
    }

    /// For a thread whose own lane is gone.
    #[cold]
    fn with_strays<R>(&self, f: impl FnOnce(&mut Lane, &mut Vec<u8>) -> R) -> R {
        let mut strays = self.strays.lock().unwrap_or_else(PoisonError::into_inner);
        f(strays.get_or_insert_with(|| self.new_lane("ending-threads")), &mut Vec::new())
    }

    fn new_lane(&self, label: &str) -> Lane {
        let mut lanes = self.lanes();
        lanes.given = lanes.given.wrapping_add(1);
        let (lane, reader) = lane::lane(lanes.given, label.to_owned(), self.lane_bytes);
        lanes.states.push(Arc::clone(&reader.state));
        lanes.readers.push(reader);
        self.arrived.store(true, Ordering::SeqCst);
        lane
    }

    pub(crate) fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the log has done so far.
    pub(crate) fn stats(&self) -> LogStats {
        let mut lanes = self.lanes();
        if self.gone.load(Ordering::SeqCst) {
            self.lose_leftovers(&mut lanes);
        }
        let numbered: u64 = lanes.states.iter().map(|state| state.numbered()).sum();
        let mut stats = self.counters.stats(lanes.retired + numbered);
        stats.threads = lanes.states.len() as u64;
        (stats.pending_records, stats.pending_bytes) = self.pending.get();
        stats
    }

    /// What the threads have done that have a lane now.
    pub(crate) fn threads(&self) -> Vec<ThreadStats> {
        self.lanes().states.iter().map(|state| state.stats()).collect()
    }

    /// Nobody takes what came into a lane after the log thread's last look: it counts as lost.
    fn lose_leftovers(&self, lanes: &mut Lanes) {
        let mut lost = Lost::default();
        for reader in &mut lanes.readers {
            let mut arena = Vec::new();
            reader.take_into(&mut arena);
            let mut rest = arena.as_slice();
            while let Some((frame, behind)) = Frame::split(rest) {
                reader.note(Peek { micros: frame.micros, number: frame.number, bytes: frame.bytes });
                lost.add(frame.level, RecordId { lane: reader.state.number, number: frame.number });
                rest = behind;
            }
        }
        self.counters.lost.add_all(&lost.by_level);
        lanes.leftovers.append(lost);
    }

    /// After the log thread's end: what was refused and what was left since its last look, and how many records there were in all.
    pub(crate) fn settle(&self) -> (Vec<(String, u32, Refused)>, Lost, u64) {
        let mut lanes = self.lanes();
        self.lose_leftovers(&mut lanes);
        let mut produced = lanes.retired;
        let mut all = Vec::new();
        for reader in &mut lanes.readers {
            if let Some(refused) = reader.take_refused(usize::MAX) {
                all.push((reader.state.label.clone(), reader.state.number, refused));
            }
            produced += reader.last();
        }
        (all, mem::take(&mut lanes.leftovers), produced)
    }

    /// Wakes the log thread, without waiting: when a wake-up is in hand already, that one will do. False when there is none to be woken.
    pub(crate) fn kick(&self) -> bool {
        if self.is_forked() {
            return false;
        }
        let _ = self.kicks.try_send(());
        true
    }

    /// This is a fork of the log's process: nobody takes anything, and a lock may be held by a thread that is not here. Asked where something is to
    /// be woken or waited for, as it is a system call.
    pub(crate) fn is_forked(&self) -> bool {
        let forked = process::id() != self.process;
        if forked {
            self.gone.store(true, Ordering::SeqCst);
        }
        forked
    }

    /// Wishes for a flush and does not wait for it.
    pub(crate) fn request_flush(&self) {
        self.flush_wanted.store(true, Ordering::SeqCst);
        self.kick();
    }

    /// Waits until everything logged before is written.
    pub(crate) fn barrier(&self, timeout: Duration) -> Result<(), LogError> {
        let until = Instant::now().checked_add(timeout);
        let (done, answer) = bounded::<io::Result<()>>(1);
        let left = || until.map_or(Duration::MAX, |until| until.saturating_duration_since(Instant::now()));
        if self.is_forked() || self.gone.load(Ordering::SeqCst) {
            return Err(LogError::Closed);
        }
        if self.barriers.send_timeout(Barrier { done }, left()).is_err() {
            return Err(self.closed_or(timeout));
        }
        match answer.recv_timeout(left()) {
            Ok(result) => result.map_err(LogError::Write),
            Err(RecvTimeoutError::Timeout) => Err(self.closed_or(timeout)),
            Err(RecvTimeoutError::Disconnected) => Err(LogError::Closed),
        }
    }

    fn closed_or(&self, timeout: Duration) -> LogError {
        if self.gone.load(Ordering::SeqCst) { LogError::Closed } else { LogError::Timeout(timeout) }
    }
}
