//! How much memory this process may have.

use std::path::Path;

/// Memory beyond that of the beginning with which a death counts as one of memory, where the machine has enough: a
/// replay takes less than a third of it, whatever is in the journal, unless it goes wrong.
const MOST_BYTES: u64 = 2 << 30;

/// Where control groups are.
const GROUPS: &str = "/sys/fs/cgroup";

/// How much a process may take before whatever ends it may have ended it for that: 2 GiB, or half of what the machine
/// or the control group has, where that is less.
pub(super) fn memory_bound_bytes() -> u64 {
    let given = [machine_bytes(), group_bytes()].into_iter().flatten().min();
    given.map_or(MOST_BYTES, |given| MOST_BYTES.min(given / 2))
}

/// How often the kernel has ended a process for want of memory since the machine started.
pub(super) fn oom_kills() -> Option<u64> {
    let counters = std::fs::read_to_string("/proc/vmstat").ok()?;
    counters.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

/// Memory that this process has; 0 where the system does not tell.
pub(super) fn resident_bytes() -> u64 {
    told_bytes("/proc/self/status", "VmRSS:").unwrap_or(0)
}

fn machine_bytes() -> Option<u64> {
    told_bytes("/proc/meminfo", "MemTotal:")
}

/// What the kernel tells in a file that has a line for each number.
fn told_bytes(file: &str, key: &str) -> Option<u64> {
    let told = std::fs::read_to_string(file).ok()?;
    let line = told.lines().find_map(|line| line.strip_prefix(key))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1 << 10)
}

/// The least that a control group of this process may have.
fn group_bytes() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    limit_of_groups(&groups, Path::new(GROUPS))
}

/// `groups` has a line `NUMBER:CONTROLLERS:PATH` for each hierarchy; version 2 names no controllers.
fn limit_of_groups(groups: &str, root: &Path) -> Option<u64> {
    let limits = groups.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let (root, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|one| one == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => return None,
        };
        // In a container the path may be that outside of it, and what is mounted the group itself.
        let inner = Path::new(path.trim_start_matches('/'));
        let folders = inner.ancestors().map(|folder| root.join(folder).join(file));
        let told = folders.filter_map(|file| std::fs::read_to_string(file).ok());
        told.filter_map(|text| text.trim().parse::<u64>().ok()).min()
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: groups of both versions, one above the other, with a limit, without one, and with a file that is
    /// no number; lines that are none.
    /// Guarantees: the least limit counts; where there is none, none does.
    #[test]
    fn the_least_limit_of_a_group_counts() {
        let held = tempfile::tempdir().unwrap();
        let root = held.path();
        let limit = |file: &str, text: &str| {
            let file = root.join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        };
        limit("slice/service/memory.max", "max\n");
        let second = "0::/slice/service\n";
        assert_eq!(limit_of_groups(second, root), None);
        limit("slice/memory.max", "1000\n");
        assert_eq!(limit_of_groups(second, root), Some(1000));
        limit("slice/service/memory.max", "x");
        assert_eq!(limit_of_groups(second, root), Some(1000));
        limit("memory/pod/memory.limit_in_bytes", "900\n");
        let first = "junk\n\n5:cpu:/pod\n4:hugetlb,memory:/pod/other\n";
        assert_eq!(limit_of_groups(first, root), Some(900));
        assert_eq!(limit_of_groups(&format!("{first}{second}"), root), Some(900));
        assert_eq!(limit_of_groups("4:cpu:/pod", root), None);
        assert!(memory_bound_bytes() <= MOST_BYTES);
    }
}
