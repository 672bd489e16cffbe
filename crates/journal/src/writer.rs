//! The one thread that writes: takes all that waits, writes it, syncs once, answers everybody.

use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::capacity::Capacity;
use crate::error::{JournalError, is_disk_full};
use crate::events::{Event, Sender};
use crate::fs::{JournalFile, JournalFs, LockGuard};
use crate::queue::{Pending, Queue, Request};
use crate::segment::{
    FILE_HEADER_LEN, FileHeader, FileKind, MAX_NUMBER, MAX_SEQUENCE, Predecessor, SegmentNumber,
    Sequence, len_u64,
};
use crate::spares::{Spare, Spares};
use crate::writing::{plan_write, write_all};

/// How far the base of a file that is written over lies beyond what went before, at most: too far
/// to be guessed, and not so far that positions would run out within years of it.
const BASE_GAP_MASK: u64 = (1 << 36) - 1;

/// What callers and the writer thread share.
#[derive(Debug)]
pub(crate) struct Shared<T> {
    queue: Mutex<Queue<T>>,
    pub(crate) wake: Condvar,
    #[cfg(debug_assertions)]
    pub(crate) idle: Condvar,
    pub(crate) capacity: Arc<Capacity>,
    active_number: AtomicU64,
    /// At or above the sequence number of all that was ever written.
    next_sequence: AtomicU64,
}

impl<T> Shared<T> {
    pub(crate) fn new(capacity: Arc<Capacity>, active: &ActiveSegment) -> Self {
        Self {
            queue: Mutex::new(Queue {
                requests: Vec::new(),
                closed: false,
                failed: None,
                #[cfg(debug_assertions)]
                idle: false,
            }),
            wake: Condvar::new(),
            #[cfg(debug_assertions)]
            idle: Condvar::new(),
            capacity,
            active_number: AtomicU64::new(active.number.get()),
            next_sequence: AtomicU64::new(active.next_base()),
        }
    }

    pub(crate) fn queue(&self) -> MutexGuard<'_, Queue<T>> {
        // No code that holds the lock leaves the queue half changed.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn active_number(&self) -> SegmentNumber {
        SegmentNumber::new(self.active_number.load(Ordering::SeqCst))
    }

    pub(crate) fn next_sequence(&self) -> u64 {
        self.next_sequence.load(Ordering::SeqCst)
    }

    /// Why the journal takes no work, once it does not.
    pub(crate) fn stopped(&self) -> JournalError {
        self.queue().stopped()
    }

    /// Waits for requests and swaps them into `taken`; false once closed and nothing is left.
    fn take_requests(&self, taken: &mut Vec<Request<T>>) -> bool {
        let mut queue = self.queue();
        while queue.requests.is_empty() && !queue.closed {
            #[cfg(debug_assertions)]
            {
                queue.idle = true;
                self.idle.notify_all();
            }
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        #[cfg(debug_assertions)]
        {
            queue.idle = false;
        }
        std::mem::swap(&mut queue.requests, taken);
        !taken.is_empty()
    }
}

/// The segment that takes records.
#[derive(Debug)]
pub(crate) struct ActiveSegment {
    number: SegmentNumber,
    path: PathBuf,
    file: Box<dyn JournalFile>,
    base_sequence: u64,
    /// Bytes that are durable.
    len: u64,
    /// Bytes of the file: more than `len` while it is written over.
    file_len: u64,
    /// The furthest that a write ever reached, durable or not. Sequence numbers below it are
    /// never given to another segment: a crash may bring such bytes back.
    reach: u64,
    /// Whether the file was cut since it was last synced.
    cut: bool,
}

impl ActiveSegment {
    /// With a durable header and no record.
    fn begun(
        number: SegmentNumber,
        path: PathBuf,
        file: Box<dyn JournalFile>,
        base_sequence: u64,
        file_len: u64,
    ) -> Self {
        let len = len_u64(FILE_HEADER_LEN);
        Self { number, path, file, base_sequence, len, file_len, reach: len, cut: false }
    }

    fn next_base(&self) -> u64 {
        self.base_sequence.saturating_add(self.reach)
    }

    /// What the next segment says of this one.
    const fn as_predecessor(&self) -> Predecessor {
        Predecessor { number: self.number, end: self.len }
    }
}

/// Where segments are made.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    pub(crate) fs: Arc<dyn JournalFs>,
    pub(crate) dir: PathBuf,
    pub(crate) capacity: Arc<Capacity>,
    pub(crate) max_body_bytes: u32,
    pub(crate) spares: Arc<Spares>,
}

impl Folder {
    /// Creates an empty segment, which says up to where the one before it is filled; when this
    /// returns it is there for good.
    pub(crate) fn create_segment(
        &self,
        number: SegmentNumber,
        base_sequence: u64,
        predecessor: Option<Predecessor>,
    ) -> Result<ActiveSegment, JournalError> {
        if MAX_NUMBER < number.get() || MAX_SEQUENCE - BASE_GAP_MASK <= base_sequence {
            return Err(JournalError::OutOfNumbers { segment: number, position: base_sequence });
        }
        let max_body_bytes = self.max_body_bytes;
        let header = FileHeader {
            kind: FileKind::Segment,
            number,
            base_sequence,
            max_body_bytes,
            is_reused: false,
            predecessor,
        };
        if let Some(spare) = self.spares.take() {
            match self.reuse_segment(&spare, &header) {
                Ok(active) => return Ok(active),
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "segment file not written over");
                }
            }
            // Under either name it is in nobody's way then.
            drop(self.fs.remove(&FileKind::Segment.path(&self.dir, number)));
            self.remove_spare(&spare);
        }
        let path = FileKind::Segment.path(&self.dir, number);
        let len = len_u64(FILE_HEADER_LEN);
        let created = self.fs.create(&path).and_then(|mut file| {
            write_all(file.as_mut(), &mut [IoSlice::new(&header.encode())])?;
            file.sync_data()?;
            self.fs.sync_dir(&self.dir)?;
            Ok(file)
        });
        match created {
            Ok(file) => {
                self.capacity.grow_disk(len);
                Ok(ActiveSegment::begun(number, path, file, base_sequence, len))
            }
            Err(error) => {
                // Left behind it is read as an empty segment, so removing it is only tidiness.
                match self.fs.remove(&path) {
                    Err(kept) if kept.kind() != io::ErrorKind::NotFound => {
                        tracing::debug!(path = %path.display(), error = %kept, "segment not removed");
                        self.capacity.grow_disk(len);
                    }
                    _ => {}
                }
                Err(JournalError::io("create segment", &path, error))
            }
        }
    }

    /// Makes a spare file an empty segment. It takes the name when its header is durable, so that
    /// nothing it held before is ever read as a segment's.
    fn reuse_segment(
        &self,
        spare: &Spare,
        header: &FileHeader,
    ) -> Result<ActiveSegment, JournalError> {
        let number = header.number;
        let path = FileKind::Segment.path(&self.dir, number);
        // What a client hid in a payload at the right offset would be a record if it knew the base.
        let gap = 1 + (self.fs.random() & BASE_GAP_MASK);
        let base_sequence = header.base_sequence.saturating_add(gap);
        let header = FileHeader { base_sequence, is_reused: true, ..*header };
        let reused = self.fs.reuse(&spare.path).and_then(|mut file| {
            write_all(file.as_mut(), &mut [IoSlice::new(&header.encode())])?;
            file.sync_data()?;
            self.fs.rename(&spare.path, &path)?;
            self.fs.sync_dir(&self.dir)?;
            Ok(file)
        });
        let file = reused.map_err(|error| JournalError::io("write over", &spare.path, error))?;
        self.capacity.shrink_spare(spare.len);
        let len = len_u64(FILE_HEADER_LEN);
        let file_len = spare.len.max(len);
        self.capacity.grow_disk(file_len - spare.len);
        Ok(ActiveSegment::begun(number, path, file, base_sequence, file_len))
    }

    /// Removes spare files but for the `count` youngest. That one stays is no reason to stop.
    pub(crate) fn release_spares(&self, count: usize) {
        while let Some(spare) = self.spares.take_beyond(count) {
            self.remove_spare(&spare);
        }
    }

    pub(crate) fn remove_spare(&self, spare: &Spare) {
        match self.fs.remove(&spare.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %spare.path.display(), %error, "spare file not removed");
            }
            _ => self.capacity.shrink_disk(spare.len),
        }
        self.capacity.shrink_spare(spare.len);
    }
}

/// The state of the writer thread.
#[derive(Debug)]
pub(crate) struct Writer<T> {
    folder: Folder,
    shared: Arc<Shared<T>>,
    events: Sender<T>,
    active: ActiveSegment,
    next_number: SegmentNumber,
    segment_bytes: u64,
    /// Whether the active segment was given up and has no successor yet.
    failed: bool,
    #[cfg(debug_assertions)]
    leave_out_sync: bool,
    frames: Vec<u8>,
    /// Released when the thread ends, so never while it could still write.
    _lock: LockGuard,
}

impl<T> Writer<T> {
    pub(crate) fn new(
        folder: Folder,
        shared: Arc<Shared<T>>,
        events: Sender<T>,
        active: ActiveSegment,
        segment_bytes: u64,
        lock: LockGuard,
    ) -> Self {
        let next_number = active.number.next();
        let frames = Vec::new();
        Self {
            folder,
            shared,
            events,
            active,
            next_number,
            segment_bytes,
            failed: false,
            #[cfg(debug_assertions)]
            leave_out_sync: false,
            frames,
            _lock: lock,
        }
    }

    /// Breaks the writer on purpose.
    #[cfg(debug_assertions)]
    pub(crate) fn leaving_out_sync(mut self, leave_out: bool) -> Self {
        self.leave_out_sync = leave_out;
        self
    }

    /// Serves requests until the journal is closed and nothing waits.
    pub(crate) fn run(mut self) {
        let mut taken = Vec::new();
        let mut group = Vec::new();
        while self.shared.take_requests(&mut taken) {
            for request in taken.drain(..) {
                match request {
                    Request::Append(pending) => group.push(pending),
                    Request::Rotate(reply) => {
                        self.append_group(&mut group);
                        // Whoever asked may have gone; the segment is sealed all the same.
                        drop(reply.send(self.rotate()));
                    }
                    Request::Heal(reply) => drop(reply.send(self.heal())),
                }
            }
            self.append_group(&mut group);
            self.rotate_when_full();
        }
    }

    /// Makes `group` durable and tells everybody, or tells everybody why not.
    fn append_group(&mut self, group: &mut Vec<Pending<T>>) {
        if group.is_empty() {
            return;
        }
        let bytes = group.iter().map(|pending| pending.record.stored_len()).sum();
        let written =
            if self.failed { Err(self.shared.stopped()) } else { self.write_group(group, bytes) };
        match written {
            Ok(()) => {
                let end = self.active.len.saturating_add(bytes);
                self.folder.capacity.grow_disk(end.saturating_sub(self.active.file_len));
                self.active.file_len = self.active.file_len.max(end);
                self.folder.capacity.release_promise(bytes);
                self.acknowledge(group);
            }
            Err(error) => {
                self.folder.capacity.release_promise(bytes);
                for pending in group.drain(..) {
                    drop(pending.reply.send(Err(error.clone())));
                }
            }
        }
    }

    fn acknowledge(&mut self, group: &mut Vec<Pending<T>>) {
        for pending in group.drain(..) {
            let Pending { record, attachment, reply, .. } = pending;
            let sequence = Sequence::new(self.active.base_sequence.saturating_add(self.active.len));
            self.active.len += record.stored_len();
            let segment = self.active.number;
            self.events.send(Event::Appended { segment, sequence, record, attachment });
            drop(reply.send(Ok(sequence)));
        }
    }

    fn write_group(&mut self, group: &[Pending<T>], bytes: u64) -> Result<(), JournalError> {
        let end = self.active.len.saturating_add(bytes);
        if MAX_SEQUENCE - self.active.base_sequence < end {
            let (segment, position) = (self.active.number, self.active.base_sequence);
            return Err(JournalError::OutOfNumbers { segment, position });
        }
        self.active.reach = self.active.reach.max(end);
        self.shared.next_sequence.store(self.active.next_base(), Ordering::SeqCst);
        self.frames.clear();
        let first = self.active.base_sequence.saturating_add(self.active.len);
        let parts = plan_write(group, first, &mut self.frames)?;
        let mut slices: Vec<IoSlice<'_>> =
            parts.iter().map(|part| IoSlice::new(part.bytes(&self.frames))).collect();
        let segment = self.active.number;
        if let Err(error) = write_all(self.active.file.as_mut(), &mut slices) {
            return Err(self.recover_from_write(error));
        }
        #[cfg(debug_assertions)]
        if self.leave_out_sync {
            return Ok(());
        }
        if let Err(error) = self.active.file.sync_data() {
            tracing::error!(%segment, %error, "sync of segment failed, giving it up");
            self.give_up_segment()?;
            return Err(JournalError::SyncFailed { segment, source: Arc::new(error) });
        }
        Ok(())
    }

    /// After a write that stopped part way: cuts it off and goes on, or gives the segment up.
    fn recover_from_write(&mut self, error: io::Error) -> JournalError {
        let segment = self.active.number;
        if is_disk_full(&error) {
            self.active.cut = true;
            self.folder.release_spares(0);
            match self.active.file.truncate(self.active.len) {
                Ok(()) => {
                    self.note_cut();
                    tracing::warn!(%segment, %error, "no room for records, refused them");
                    let path = self.active.path.clone();
                    return JournalError::DiskFull { path, source: Arc::new(error) };
                }
                Err(error) => tracing::error!(%segment, %error, "torn write could not be cut off"),
            }
        }
        tracing::error!(%segment, %error, "write to segment failed, giving it up");
        match self.give_up_segment() {
            Ok(()) => JournalError::WriteFailed { segment, source: Arc::new(error) },
            Err(failed) => failed,
        }
    }

    /// Seals a segment of which nobody knows what the device holds behind the durable part.
    ///
    /// That part was told to the consumer record by record, so `Sealed` may follow at once.
    fn give_up_segment(&mut self) -> Result<(), JournalError> {
        // A device that failed once is not asked to write over what it may not have written.
        self.folder.spares.close();
        self.folder.release_spares(0);
        // Not relied on: what stands behind the durable part was never acknowledged, and may be
        // replayed like any request whose answer was lost.
        match self.active.file.truncate(self.active.len) {
            Ok(()) => self.note_cut(),
            Err(error) => {
                let segment = self.active.number;
                tracing::debug!(%segment, %error, "segment that was given up could not be cut");
                let grown = self.active.reach.saturating_sub(self.active.file_len);
                self.folder.capacity.grow_disk(grown);
            }
        }
        self.open_next().map_err(|error| self.fail(error))
    }

    /// Notes that nothing can be taken until there is another segment, and why.
    fn fail(&mut self, error: JournalError) -> JournalError {
        let segment = self.active.number;
        let failed = JournalError::Failed { segment, source: Arc::new(error) };
        let error = &failed as &dyn std::error::Error;
        tracing::error!(error, "waiting until a segment can be made");
        self.failed = true;
        self.shared.queue().failed = Some(failed.clone());
        failed
    }

    /// Makes another segment where one was given up and none could be made.
    fn heal(&mut self) -> Result<(), JournalError> {
        if !self.failed {
            return Ok(());
        }
        self.open_next().map_err(|error| self.fail(error))?;
        self.failed = false;
        self.shared.queue().failed = None;
        tracing::info!(segment = %self.active.number, "journal takes records again");
        Ok(())
    }

    /// The file of the active segment ends where its durable part does.
    fn note_cut(&mut self) {
        self.folder.capacity.shrink_disk(self.active.file_len.saturating_sub(self.active.len));
        self.active.file_len = self.active.len;
    }

    fn rotate(&mut self) -> Result<SegmentNumber, JournalError> {
        if self.failed {
            return Err(self.shared.stopped());
        }
        if self.active.cut
            && let Err(error) = self.active.file.sync_data()
        {
            // All that was acknowledged was synced by its group; only the cut may be undone.
            tracing::warn!(segment = %self.active.number, %error, "cut of segment not synced");
        }
        let sealed = self.active.number;
        self.open_next()?;
        Ok(sealed)
    }

    fn rotate_when_full(&mut self) {
        if self.active.len < self.segment_bytes || self.failed {
            return;
        }
        if let Err(error) = self.rotate() {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "segment at its limit not sealed, going on with it");
        }
    }

    /// Makes the next segment the active one and tells that the present one is sealed.
    ///
    /// On failure the present one stays active. Its successor's number is spent either way: a
    /// file of that number may be left.
    fn open_next(&mut self) -> Result<(), JournalError> {
        let number = self.next_number;
        self.next_number = number.next();
        let predecessor = Some(self.active.as_predecessor());
        let next = self.folder.create_segment(number, self.active.next_base(), predecessor)?;
        let segment = self.active.number;
        self.active = next;
        self.shared.active_number.store(number.get(), Ordering::SeqCst);
        self.shared.next_sequence.store(self.active.next_base(), Ordering::SeqCst);
        self.events.send(Event::Sealed { segment });
        Ok(())
    }
}

impl<T> Drop for Writer<T> {
    fn drop(&mut self) {
        let mut queue = self.shared.queue();
        #[cfg(debug_assertions)]
        {
            queue.idle = true;
            self.shared.idle.notify_all();
        }
        if !queue.closed {
            queue.closed = true;
            queue.failed = Some(JournalError::WriterStopped);
        }
        // Dropping the reply ends of whatever came last answers it with `stopped`.
        queue.requests.clear();
    }
}
