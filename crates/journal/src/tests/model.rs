//! Random histories with crashes anywhere, against a model of what must be there afterwards.
//!
//! The test plays the consumer of the crate documentation: it gathers records, settles epochs,
//! and commits them to a store that is atomic and durable. After each crash it recovers by the
//! documented procedure and compares with what it was told.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Action {
    /// A group of so many records.
    Append(u64),
    Rotate,
    /// An epoch; the bits say which unsettled records are settled in it. `stop` ends it after
    /// the carry (0), after the commit (1), or not at all.
    Epoch {
        settled: u64,
        stop: u8,
    },
    /// Stops the machine after so many more file operations.
    CrashAfter(u64),
    Restart,
    /// So many bytes of room.
    Full(usize),
    FailSyncs(u32),
    /// So many segments and carries cannot be made.
    FailCreates(u32),
    Heal,
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let action = prop_oneof![
        8 => (1..12_u64).prop_map(Action::Append),
        2 => Just(Action::Rotate),
        4 => (any::<u64>(), 0..4_u8).prop_map(|(settled, stop)| Action::Epoch { settled, stop }),
        4 => (0..30_u64).prop_map(Action::CrashAfter),
        1 => Just(Action::Restart),
        1 => (0..20_000_usize).prop_map(Action::Full),
        2 => (1..3_u32).prop_map(Action::FailSyncs),
        1 => (1..3_u32).prop_map(Action::FailCreates),
        2 => Just(Action::Heal),
    ];
    prop::collection::vec(action, 1..40)
}

/// The consumer, and all that it was told.
struct Model {
    fs: SimulatedFs,
    journal: Option<(Journal<u64>, Receiver<u64>)>,
    next_id: u64,
    /// In the order of acknowledgement.
    acknowledged: Vec<u64>,
    last_sequence: u64,
    highest_sealed: u64,
    unsettled: Vec<u64>,
    /// The store: settled records, and the epoch that got them there.
    committed: Vec<u64>,
    committed_epoch: Option<SegmentNumber>,
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut model = Self {
            fs: SimulatedFs::new(seed),
            journal: None,
            next_id: 0,
            acknowledged: Vec::new(),
            last_sequence: 0,
            highest_sealed: 0,
            unsettled: Vec::new(),
            committed: Vec::new(),
            committed_epoch: None,
        };
        model.recover();
        model
    }

    fn run(&mut self, action: &Action) {
        match action {
            Action::Append(count) => self.append(*count),
            Action::Rotate => drop(self.rotate()),
            Action::Epoch { settled, stop } => drop(self.epoch(*settled, *stop)),
            Action::CrashAfter(operations) => self.fs.crash_after(*operations),
            Action::Restart => self.restart(),
            Action::Full(room) => self.fs.set_room(Some(*room)),
            Action::FailSyncs(count) => self.fs.fail_syncs(*count),
            Action::FailCreates(count) => self.fs.fail_creates(*count),
            Action::Heal => self.heal(),
        }
        if self.fs.is_crashed() || self.journal.is_none() {
            self.restart();
        }
    }

    fn append(&mut self, count: u64) {
        let ids: Vec<u64> = (self.next_id..self.next_id + count).collect();
        self.next_id += count;
        let Some((journal, _)) = &self.journal else { return };
        for (id, result) in ids.iter().zip(append_group(journal, &ids)) {
            if let Ok(sequence) = result {
                assert!(self.acknowledged.is_empty() || self.last_sequence < sequence.get());
                self.last_sequence = sequence.get();
                self.acknowledged.push(*id);
            }
        }
        self.take_events();
    }

    fn heal(&mut self) {
        let Some((journal, _)) = &self.journal else { return };
        if runtime().block_on(journal.heal()).is_ok() {
            assert!(journal.failure().is_none());
        }
        self.take_events();
    }

    fn take_events(&mut self) {
        let Some((_, receiver)) = &mut self.journal else { return };
        for event in events(receiver) {
            match event {
                Ok(id) => self.unsettled.push(id),
                Err(sealed) => {
                    assert!(self.highest_sealed < sealed.get(), "number given twice");
                    self.highest_sealed = sealed.get();
                }
            }
        }
    }

    fn rotate(&mut self) -> Option<SegmentNumber> {
        let (journal, _) = self.journal.as_ref()?;
        let sealed = rotate(journal).ok();
        self.take_events();
        sealed
    }

    fn epoch(&mut self, settled: u64, stop: u8) -> Option<()> {
        let sealed = self.rotate()?;
        let (journal, _) = self.journal.as_ref()?;
        let is_settled = |id: &u64| settled >> (id % 64) & 1 == 1;
        let (done, left): (Vec<u64>, Vec<u64>) =
            self.unsettled.iter().partition(|id| is_settled(id));
        journal.write_carry(sealed, &mut left.iter().map(|id| record(*id))).ok()?;
        if stop == 0 {
            return None;
        }
        self.committed.extend(done);
        self.committed_epoch = Some(sealed);
        self.unsettled = left;
        if stop == 1 {
            return None;
        }
        journal.delete_through(sealed).ok()
    }

    fn restart(&mut self) {
        self.journal = None;
        self.fs.restart();
        self.recover();
    }

    /// The documented procedure. Another crash may interrupt it.
    fn recover(&mut self) {
        let options = JournalOptions { segment_bytes: 30_000, ..JournalOptions::new(DIR) };
        let (journal, receiver, recovered) =
            Journal::open_on(Arc::new(self.fs.clone()), options).unwrap();
        assert!(self.highest_sealed < journal.active_segment().get(), "number given twice");
        if let Some(epoch) = self.committed_epoch {
            journal.delete_through(epoch).unwrap();
        }
        let above = |number: &&SegmentNumber| self.committed_epoch.is_none_or(|at| at < **number);
        let replay: Vec<SegmentNumber> = recovered.segments.iter().filter(above).copied().collect();
        let first = replay.first().copied().unwrap_or(journal.active_segment());
        let mut unsettled = Vec::new();
        if let Some(carry) = recovered.base_carry(first) {
            assert!(Some(carry) <= self.committed_epoch, "a carry that was not committed");
            let mut reader = journal.read_carry(carry).unwrap();
            unsettled.extend(reader.by_ref().map(|record| id_of(&record.unwrap())));
            assert_eq!(reader.damage(), []);
        }
        let mut last = None;
        for segment in replay {
            let mut reader = journal.read_segment(segment).unwrap();
            while let Some(record) = reader.next() {
                unsettled.push(id_of(&record.unwrap()));
                assert!(last < reader.last_sequence(), "sequence numbers out of order");
                last = reader.last_sequence();
            }
            let lost = |damage: &&crate::Damage| damage.kind == crate::DamageKind::CorruptEnd;
            assert_eq!(reader.damage().iter().find(lost), None, "an end is stated too far");
        }
        self.unsettled = unsettled;
        let used = u64::try_from(self.fs.used_bytes()).unwrap();
        assert_eq!(journal.usage_bytes(), used, "usage");
        self.journal = Some((journal, receiver));
        self.check();
    }

    /// Every acknowledged record is there once and in order; others at most once.
    fn check(&self) {
        let unsettled: BTreeSet<u64> = self.unsettled.iter().copied().collect();
        let committed: BTreeSet<u64> = self.committed.iter().copied().collect();
        assert_eq!(unsettled.len(), self.unsettled.len(), "replayed twice");
        assert_eq!(committed.len(), self.committed.len(), "committed twice");
        assert_eq!(unsettled.intersection(&committed).next(), None, "committed and replayed");
        assert!(self.unsettled.is_sorted(), "out of order");
        for id in &self.acknowledged {
            assert!(unsettled.contains(id) || committed.contains(id), "record {id} is lost");
        }
    }
}

/// At least a thousand histories; `PROPTEST_CASES` asks for more.
fn config() -> ProptestConfig {
    let config = ProptestConfig::default();
    ProptestConfig { cases: config.cases.max(1000), ..config }
}

proptest! {
    #![proptest_config(config())]

    /// Scenario: random appends, rotations, epochs, full devices, failing syncs and files that cannot
    /// be made, healing, crashes.
    /// Guarantees: after every recovery each acknowledged record is there exactly once, in
    /// order, or settled; numbers are never given twice.
    #[test]
    fn acknowledged_records_survive_any_history(seed in any::<u64>(), actions in actions()) {
        let mut model = Model::new(seed);
        for action in &actions {
            model.run(action);
        }
        model.restart();
    }
}

/// Scenario: one history, and a second crash at every operation of the recovery from the first.
/// Guarantees: opening may be interrupted anywhere.
#[test]
fn opening_may_be_interrupted_anywhere() {
    for operations in 0..60 {
        let mut model = Model::new(operations);
        model.append(20);
        model.epoch(0x5555_5555, 2);
        model.append(20);
        model.epoch(0x3333_3333, 0);
        model.append(20);
        model.fs.crash_after(3);
        model.append(20);
        model.journal = None;
        model.fs.restart();
        model.fs.crash_after(operations);
        let interrupted =
            Journal::<u64>::open_on(Arc::new(model.fs.clone()), JournalOptions::new(DIR));
        if let Ok((journal, ..)) = &interrupted {
            // Whether it gets through depends on where the machine stops.
            drop(journal.delete_through(model.committed_epoch.unwrap()));
        }
        drop(interrupted);
        model.restart();
    }
}
