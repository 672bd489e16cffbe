//! The journal as its users hold it.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use crate::capacity::Capacity;
use crate::carry;
use crate::error::JournalError;
use crate::events::{self, Receiver};
use crate::fs::{JournalFs, LockOutcome, RealFs, create_folders};
use crate::queue::{Pending, Queue, Request};
use crate::recover::{LOCK_NAME, Recovered, remove_garbage, take_stock};
use crate::replay::RecordReader;
use crate::segment::{FileKind, RecordBytes, SegmentNumber, Sequence};
use crate::spares::{Spare, Spares};
use crate::writer::{Folder, Shared, Writer};

/// The part of the budget that files may take while they wait to be written over.
const SPARE_SHARE: u64 = 16;

/// Where a journal is and how much it may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalOptions {
    /// The folder, created unless present. Nothing else may write files of the journal's names in it.
    pub dir: PathBuf,
    /// Total size of all files in `dir`, in bytes, past which appends are refused. Carry files
    /// count, but are never refused: they are how space is freed. Files that wait to be written
    /// over come on top, at most a sixteenth as much.
    pub budget_bytes: u64,
    /// Longest header and payload together, in bytes. At most `u32::MAX`.
    pub max_record_bytes: u64,
    /// A segment that has reached this length, in bytes, is sealed without a `rotate`. Bounds
    /// what opening has to read through after a crash.
    pub segment_bytes: u64,
    /// Requests that may wait to be written.
    pub queue_requests: usize,
    /// Bytes that may wait to be written. A longer record is taken when nothing else waits.
    pub queue_bytes: u64,
    /// Bytes that may wait for the consumer, those in the queue included.
    pub undelivered_bytes: u64,
    /// Acknowledges without a sync: a journal that is broken on purpose, to show that the harnesses
    /// find it. Release builds have no such switch.
    #[cfg(debug_assertions)]
    pub leave_out_sync: bool,
}

impl JournalOptions {
    /// A journal in `dir`: 10 GiB in segments of 128 MiB, records up to 64 MiB, a queue of 4096
    /// requests or 40 MiB, and as much waiting for the consumer.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            budget_bytes: 10 << 30,
            max_record_bytes: 64 << 20,
            segment_bytes: 128 << 20,
            queue_requests: 4096,
            queue_bytes: 40 << 20,
            undelivered_bytes: 40 << 20,
            #[cfg(debug_assertions)]
            leave_out_sync: false,
        }
    }
}

/// A write-ahead journal in a folder of its own.
///
/// Shared by reference or `Arc` between any number of appenders and its one consumer. `T` is
/// whatever an appender wants to hand to the consumer along with its record, such as the decoded
/// request; it is not stored.
pub struct Journal<T> {
    options: JournalOptions,
    folder: Folder,
    shared: Arc<Shared<T>>,
    /// Serializes carries and deletions. Holds nothing back from appenders.
    files: Mutex<()>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl<T> fmt::Debug for Journal<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal")
            .field("dir", &self.options.dir)
            .field("active", &self.shared.active_number())
            .field("used_bytes", &self.shared.capacity.used_bytes())
            .field("failed", &self.shared.queue().failed)
            .finish_non_exhaustive()
    }
}

impl<T: Send + 'static> Journal<T> {
    /// Opens the journal in `options.dir`, owns the folder, and starts a new segment.
    ///
    /// Blocks on the file system. What an earlier owner left stays for the caller to replay;
    /// appends are taken at once.
    ///
    /// # Errors
    /// [`JournalError::InUse`] when another has the folder, [`JournalError::UnsupportedVersion`]
    /// when it is of another version, or what the file system says.
    pub fn open(options: JournalOptions) -> Result<(Self, Receiver<T>, Recovered), JournalError> {
        Self::open_on(Arc::new(RealFs), options)
    }

    /// As [`Journal::open`], on another file system than that of the operating system.
    ///
    /// # Errors
    /// As [`Journal::open`].
    pub fn open_on(
        fs: Arc<dyn JournalFs>,
        options: JournalOptions,
    ) -> Result<(Self, Receiver<T>, Recovered), JournalError> {
        let dir = options.dir.clone();
        let made = create_folders(fs.as_ref(), &dir);
        made.map_err(|error| JournalError::io("create", &dir, error))?;
        let lock_path = dir.join(LOCK_NAME);
        let locked = fs.lock(&lock_path);
        let lock = match locked.map_err(|error| JournalError::io("lock", &lock_path, error))? {
            LockOutcome::Held(guard) => guard,
            LockOutcome::InUse { pid } => return Err(JournalError::InUse { dir, pid }),
        };
        let stock = take_stock(fs.as_ref(), &dir)?;
        let capacity = Arc::new(Capacity::new(options.budget_bytes, stock.used_bytes));
        let max_body_bytes = u32::try_from(options.max_record_bytes).unwrap_or(u32::MAX);
        let spares = Arc::new(Spares::new(options.budget_bytes / SPARE_SHARE));
        let folder = Folder { fs, dir, capacity: Arc::clone(&capacity), max_body_bytes, spares };
        let active = folder.create_segment(stock.next_number, stock.next_sequence, stock.newest)?;
        capacity.shrink_disk(remove_garbage(folder.fs.as_ref(), &folder.dir, &stock.garbage));

        let (sender, receiver) = events::channel(&capacity);
        let shared = Arc::new(Shared::new(capacity, &active));
        let writer = Writer::new(
            folder.clone(),
            Arc::clone(&shared),
            sender,
            active,
            options.segment_bytes,
            lock,
        );
        #[cfg(debug_assertions)]
        let writer = writer.leaving_out_sync(options.leave_out_sync);
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| JournalError::io("start writer thread of", &folder.dir, error))?;
        let thread = Mutex::new(Some(thread));
        let journal = Self { options, folder, shared, files: Mutex::new(()), thread };
        Ok((journal, receiver, stock.recovered))
    }

    /// Appends `record` and resolves once it is durable.
    ///
    /// The event with `attachment` is sent before this resolves.
    ///
    /// Cancel safe: the record is enqueued when the future is first polled. Dropping it before
    /// that appends nothing, dropping it later takes nothing back: the record is still made
    /// durable and told to the consumer, only nobody hears of it.
    ///
    /// # Errors
    /// A limit ([`JournalError::is_at_capacity`], [`JournalError::RecordTooLarge`]), what the device
    /// said, or that the journal takes no more. The record counts as not acknowledged then; after [`JournalError::SyncFailed`] or [`JournalError::WriteFailed`], or when the machine
    /// stops, it may still turn up in a replay.
    pub async fn append(
        &self,
        record: RecordBytes,
        attachment: T,
    ) -> Result<Sequence, JournalError> {
        self.check_length(&record)?;
        // Here rather than in the writer: callers have more cores than it.
        let body_crc = record.body_crc();
        let reply = {
            let mut queue = self.shared.queue();
            self.submit(&mut queue, record, body_crc, attachment)?
        };
        self.shared.wake.notify_one();
        reply.await.unwrap_or_else(|_| Err(self.shared.stopped()))
    }

    /// As [`Journal::append`], of several records in one group: for simulations, where one seed
    /// gives one history.
    #[cfg(debug_assertions)]
    pub async fn append_together(
        &self,
        records: Vec<(RecordBytes, T)>,
    ) -> Vec<Result<Sequence, JournalError>> {
        let replies: Vec<_> = {
            let mut queue = self.shared.queue();
            let submit = |(record, attachment): (RecordBytes, T)| {
                self.check_length(&record)?;
                let body_crc = record.body_crc();
                self.submit(&mut queue, record, body_crc, attachment)
            };
            records.into_iter().map(submit).collect()
        };
        self.shared.wake.notify_one();
        let mut answers = Vec::with_capacity(replies.len());
        for reply in replies {
            answers.push(match reply {
                Ok(reply) => reply.await.unwrap_or_else(|_| Err(self.shared.stopped())),
                Err(error) => Err(error),
            });
        }
        answers
    }

    /// Waits until the writer has nothing left to do, so that it does nothing by itself while a
    /// simulation goes on.
    #[cfg(debug_assertions)]
    pub fn wait_idle(&self) {
        let mut queue = self.shared.queue();
        while !(queue.idle && (queue.requests.is_empty() || queue.closed)) {
            queue = self.shared.idle.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Seals the active segment, opens the next one, and returns the number of the sealed one.
    ///
    /// Everything appended before is in the sealed segment or an older one. The consumer is sent
    /// `Sealed` behind the last of its records. An empty segment may be sealed.
    ///
    /// Cancel safe in the same way as [`Journal::append`].
    ///
    /// # Errors
    /// When no new segment could be made; the active one then stays active, and a later call may
    /// succeed, after [`Journal::heal`] where [`Journal::failure`].
    pub async fn rotate(&self) -> Result<SegmentNumber, JournalError> {
        let (reply, answer) = oneshot::channel();
        {
            let mut queue = self.shared.queue();
            self.check_open(&queue)?;
            // Twice what appends may take, so that a full queue never keeps the consumer out.
            if self.options.queue_requests.saturating_mul(2) <= queue.requests.len() {
                return Err(self.busy(&queue));
            }
            queue.requests.push(Request::Rotate(reply));
        }
        self.shared.wake.notify_one();
        answer.await.unwrap_or_else(|_| Err(self.shared.stopped()))
    }

    /// Makes a segment where one was given up and no other could be made, so that records are taken
    /// again; does nothing where they are. Waits and repetitions are the caller's.
    ///
    /// # Errors
    /// Why there is still none, or [`JournalError::Closed`].
    pub async fn heal(&self) -> Result<(), JournalError> {
        let (reply, answer) = oneshot::channel();
        {
            let mut queue = self.shared.queue();
            if queue.closed {
                return Err(queue.stopped());
            }
            queue.requests.push(Request::Heal(reply));
        }
        self.shared.wake.notify_one();
        answer.await.unwrap_or_else(|_| Err(self.shared.stopped()))
    }

    /// Writes the carry file of a sealed `segment` and returns once it is durable as a whole.
    ///
    /// Replaces an older carry file of that segment, atomically. Blocks on the file system.
    ///
    /// # Errors
    /// [`JournalError::NotSealed`], or what the file system says; nothing changed then, unless
    /// only the last sync of the folder failed: old or new file stand then, each whole.
    pub fn write_carry(
        &self,
        segment: SegmentNumber,
        records: &mut dyn Iterator<Item = RecordBytes>,
    ) -> Result<(), JournalError> {
        let _files = self.lock_files()?;
        self.check_sealed(segment)?;
        carry::write_carry(&self.folder, segment, self.shared.next_sequence(), records)
    }

    /// Deletes the segments up to and including `segment`, then the carry files below it.
    ///
    /// Lowest first, each removal of a segment durable before the next, all of them before the
    /// first carry file goes. Blocks on the file system. May be repeated after an error or a
    /// crash, and goes on where it stopped. Some of the files are kept under other names to become
    /// segments again, so nothing may read the deleted ones any more.
    ///
    /// # Errors
    /// [`JournalError::NotSealed`], or what the file system says.
    pub fn delete_through(&self, segment: SegmentNumber) -> Result<(), JournalError> {
        self.delete_done(segment, segment.next())
    }

    /// As [`Journal::delete_through`], where segments from `first_left` on are still needed beside
    /// carry `carry`: the consumer has done a part of what lies before the carry's number.
    ///
    /// # Errors
    /// As [`Journal::delete_through`].
    pub fn delete_done(
        &self,
        carry: SegmentNumber,
        first_left: SegmentNumber,
    ) -> Result<(), JournalError> {
        let _files = self.lock_files()?;
        self.check_sealed(carry)?;
        let Folder { fs, dir, .. } = &self.folder;
        let files = fs.list(dir).map_err(|error| JournalError::io("list", dir, error))?;
        let numbered = |kind: FileKind| {
            let mut numbered: Vec<(SegmentNumber, u64)> = files
                .iter()
                .filter_map(|file| Some((kind.parse_name(&file.name)?, file.len)))
                .collect();
            numbered.sort_unstable();
            numbered
        };
        let mut deleted = 0;
        for (number, len) in numbered(FileKind::Segment) {
            if number <= carry && number < first_left {
                self.retire(number, len)?;
                deleted += 1;
            }
        }
        // As many as an epoch fills: when less comes, less is kept.
        if 0 < deleted {
            self.folder.release_spares(deleted);
        }
        for (number, len) in numbered(FileKind::Carry) {
            if number < carry {
                self.remove(FileKind::Carry, number, len)?;
            }
        }
        self.sync_dir()
    }

    /// Opens a sealed segment for reading.
    ///
    /// # Errors
    /// [`JournalError::NotSealed`], or as [`read_segment`](crate::read_segment).
    pub fn read_segment(&self, segment: SegmentNumber) -> Result<RecordReader, JournalError> {
        self.check_sealed(segment)?;
        let Folder { fs, dir, .. } = &self.folder;
        RecordReader::open_sealed(fs.as_ref(), dir, segment)
    }

    /// Opens the carry file of `segment` for reading.
    ///
    /// # Errors
    /// As [`read_carry`](crate::read_carry).
    pub fn read_carry(&self, segment: SegmentNumber) -> Result<RecordReader, JournalError> {
        let Folder { fs, dir, .. } = &self.folder;
        RecordReader::open(fs.as_ref(), dir, FileKind::Carry, segment)
    }

    /// The segment that takes records now.
    #[must_use]
    pub fn active_segment(&self) -> SegmentNumber {
        self.shared.active_number()
    }

    /// Bytes on disk, and those that waiting records will take.
    #[must_use]
    pub fn usage_bytes(&self) -> u64 {
        self.shared.capacity.used_bytes()
    }

    /// Bytes that the journal may take on disk.
    #[must_use]
    pub fn budget_bytes(&self) -> u64 {
        self.shared.capacity.budget_bytes()
    }

    /// Whether records that take `bytes` more would stay within the budget.
    #[must_use]
    pub fn has_capacity(&self, bytes: u64) -> bool {
        self.shared.capacity.has_room(bytes)
    }

    /// Whether a record that takes `bytes` would be taken now: what waits leaves it room. When no wait can
    /// help (the journal is closed, failed or over its budget) it is true as well: the append says so.
    #[must_use]
    pub fn has_room_in_queue(&self, bytes: u64) -> bool {
        let queue = self.shared.queue();
        self.check_open(&queue).is_err()
            || !self.shared.capacity.has_room(bytes)
            || self.has_room(&queue, bytes)
    }

    fn has_room(&self, queue: &Queue<T>, requested: u64) -> bool {
        let queued = self.shared.capacity.promised_bytes();
        let waiting = queued.saturating_add(self.shared.capacity.undelivered_bytes());
        let fits = |held: u64, limit: u64| held == 0 || held.saturating_add(requested) <= limit;
        queue.requests.len() < self.options.queue_requests
            && fits(queued, self.options.queue_bytes)
            && fits(waiting, self.options.undelivered_bytes)
    }

    /// Why the journal takes no records now, while that is so: see [`Journal::heal`].
    #[must_use]
    pub fn failure(&self) -> Option<JournalError> {
        self.shared.queue().failed.clone()
    }

    fn check_length(&self, record: &RecordBytes) -> Result<(), JournalError> {
        let limit = u64::from(self.folder.max_body_bytes);
        let bytes = record.body_len();
        if limit < bytes {
            return Err(JournalError::RecordTooLarge { bytes, limit });
        }
        Ok(())
    }

    /// Admits a record, or says which limit it meets.
    pub(crate) fn submit(
        &self,
        queue: &mut Queue<T>,
        record: RecordBytes,
        body_crc: u32,
        attachment: T,
    ) -> Result<oneshot::Receiver<Result<Sequence, JournalError>>, JournalError> {
        self.check_open(queue)?;
        let capacity = &self.shared.capacity;
        let requested = record.stored_len();
        if !capacity.has_room(requested) {
            let (used, budget) = (capacity.used_bytes(), capacity.budget_bytes());
            return Err(JournalError::OverBudget { used, requested, budget });
        }
        if !self.has_room(queue, requested) {
            return Err(self.busy(queue));
        }
        capacity.promise(requested);
        let (reply, answer) = oneshot::channel();
        queue.requests.push(Request::Append(Pending { record, body_crc, attachment, reply }));
        Ok(answer)
    }

    fn busy(&self, queue: &Queue<T>) -> JournalError {
        let capacity = &self.shared.capacity;
        let bytes = capacity.promised_bytes().saturating_add(capacity.undelivered_bytes());
        JournalError::Busy { requests: queue.requests.len(), bytes }
    }

    fn check_open(&self, queue: &Queue<T>) -> Result<(), JournalError> {
        if queue.closed || queue.failed.is_some() {
            return Err(queue.stopped());
        }
        Ok(())
    }

    fn check_sealed(&self, segment: SegmentNumber) -> Result<(), JournalError> {
        let active = self.shared.active_number();
        if active <= segment {
            return Err(JournalError::NotSealed { segment, active });
        }
        Ok(())
    }

    /// Keeps the folder ours while files are changed: `close` waits for the guard.
    fn lock_files(&self) -> Result<MutexGuard<'_, ()>, JournalError> {
        let guard = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if self.shared.queue().closed {
            return Err(self.shared.stopped());
        }
        Ok(guard)
    }

    /// Takes a segment's name from it, durably, and keeps the file if there is room for it.
    fn retire(&self, number: SegmentNumber, len: u64) -> Result<(), JournalError> {
        let Folder { fs, dir, capacity, spares, .. } = &self.folder;
        if !spares.has_room(len) {
            self.remove(FileKind::Segment, number, len)?;
            return self.sync_dir();
        }
        let path = FileKind::Segment.path(dir, number);
        let spare = Spare { path: FileKind::Segment.temporary_path(dir, number), len };
        let renamed = fs.rename(&path, &spare.path);
        renamed.map_err(|error| JournalError::io("rename", &path, error))?;
        self.sync_dir()?;
        capacity.grow_spare(len);
        if let Some(spare) = spares.put(spare) {
            self.folder.remove_spare(&spare);
        }
        Ok(())
    }

    fn remove(&self, kind: FileKind, number: SegmentNumber, len: u64) -> Result<(), JournalError> {
        let path = kind.path(&self.folder.dir, number);
        let removed = self.folder.fs.remove(&path);
        removed.map_err(|error| JournalError::io("remove", &path, error))?;
        self.shared.capacity.shrink_disk(len);
        Ok(())
    }

    fn sync_dir(&self) -> Result<(), JournalError> {
        let synced = self.folder.fs.sync_dir(&self.folder.dir);
        synced.map_err(|error| JournalError::io("sync", &self.folder.dir, error))
    }

    #[cfg(test)]
    pub(crate) fn shared(&self) -> &Shared<T> {
        &self.shared
    }
}

impl<T> Journal<T> {
    /// Writes what waits, answers it, stops the writer, and releases the folder.
    ///
    /// Blocks until that is done. Later calls find the journal closed; closing twice is allowed.
    /// Dropping the journal does the same.
    ///
    /// # Errors
    /// [`JournalError::Failed`] when the journal had failed, so that not all was written.
    pub fn close(&self) -> Result<(), JournalError> {
        let _files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.queue().closed = true;
        self.shared.wake.notify_one();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let panicked = thread.is_some_and(|thread| thread.join().is_err());
        self.folder.spares.close();
        self.folder.release_spares(0);
        let failed = self.shared.queue().failed.clone();
        let failed = failed.or_else(|| panicked.then_some(JournalError::WriterStopped));
        failed.map_or(Ok(()), Err)
    }
}

impl<T> Drop for Journal<T> {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(error, "journal dropped after it had failed");
        }
    }
}
