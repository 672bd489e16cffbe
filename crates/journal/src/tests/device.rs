//! What the simulated device keeps, since all other tests rest on it.

use std::io;
use std::path::Path;

use crate::fs::{JournalFs as _, create_folders};
use crate::simulated_fs::SimulatedFs;

const FILE: &str = "/above/folder/file";

/// A file in a folder in a folder; which of the three are synced into theirs.
fn with_file(seed: u64, synced: &[&str]) -> SimulatedFs {
    let fs = SimulatedFs::new(seed);
    for folder in ["/above", "/above/folder"] {
        assert!(fs.create_dir(Path::new(folder)).unwrap());
    }
    fs.create(Path::new(FILE)).unwrap().sync_data().unwrap();
    synced.iter().for_each(|folder| fs.sync_dir(Path::new(folder)).unwrap());
    fs
}

fn is_there(fs: &SimulatedFs) -> bool {
    fs.contents(Path::new(FILE)).is_some()
}

/// In how many of many histories the file is there in the end.
fn kept(history: impl Fn(u64) -> SimulatedFs) -> usize {
    (0..64).filter(|seed| is_there(&history(*seed))).count()
}

/// Scenario: a file in new folders, a power cut; all of the folders were synced, or all but one.
/// Guarantees: with all it is there always, without one now and then.
#[test]
fn a_name_is_durable_with_its_folder_and_those_above() {
    let cut = |synced: &'static [&'static str]| {
        move |seed| {
            let fs = with_file(seed, synced);
            fs.crash();
            fs.restart();
            fs
        }
    };
    assert_eq!(kept(cut(&["/above/folder", "/above", "/"])), 64);
    for all_but_one in [&["/above/folder", "/above"], &["/above/folder", "/"], &["/above", "/"]] {
        let kept = kept(cut(all_but_one));
        assert!(0 < kept && kept < 64, "{all_but_one:?}: {kept}");
    }
}

/// Scenario: the process dies, the power stays on; later the power goes, or first all is synced.
/// Guarantees: the death loses nothing and makes nothing durable.
#[test]
fn a_process_that_dies_changes_nothing_on_the_device() {
    let died = |seed| {
        let fs = with_file(seed, &[]);
        fs.end_process();
        assert!(fs.list(Path::new("/above/folder")).is_err(), "nobody is there to look");
        fs.restart();
        fs
    };
    assert_eq!(kept(died), 64);
    let cut = |seed| {
        let fs = died(seed);
        fs.crash();
        fs.restart();
        fs
    };
    let lost = 64 - kept(cut);
    assert!(0 < lost && lost < 64, "{lost}");
    let synced = |seed| {
        let fs = died(seed);
        create_folders(&fs, Path::new("/above/folder")).unwrap();
        fs.sync_dir(Path::new("/above/folder")).unwrap();
        fs.crash();
        fs.restart();
        fs
    };
    assert_eq!(kept(synced), 64);
}

/// Scenario: the sync of a folder fails, then succeeds.
/// Guarantees: the error is told and makes nothing durable; the later sync does.
#[test]
fn a_failed_sync_of_a_folder_can_be_made_good() {
    let fails = |seed| {
        let fs = with_file(seed, &["/above", "/"]);
        fs.fail_folder_syncs(1);
        fs.sync_dir(Path::new("/above/folder")).unwrap_err();
        fs
    };
    let cut = |fs: SimulatedFs| {
        fs.crash();
        fs.restart();
        fs
    };
    assert!(kept(|seed| cut(fails(seed))) < 64);
    let again = |seed| {
        let fs = fails(seed);
        fs.sync_dir(Path::new("/above/folder")).unwrap();
        cut(fs)
    };
    assert_eq!(kept(again), 64);
    assert_eq!(fails(0).accidents().failed_folder_syncs, 1);
}

/// Scenario: a folder below one that is not there.
/// Guarantees: it is not made, as on a real file system.
#[test]
fn a_folder_needs_the_one_above() {
    let fs = SimulatedFs::new(1);
    let error = fs.create_dir(Path::new("/above/folder")).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}
