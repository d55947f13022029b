//! CPU time of a process, as the kernel's scheduler counts it (`/proc/PID/task/TID/schedstat`).

use std::fs;

/// CPU that threads have used, nanoseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cpu(u64);

impl Cpu {
    /// Of the threads with this name.
    pub(crate) fn of_thread(process: u32, name: &str) -> Self {
        let mut found = false;
        let mut sum = 0;
        for thread in fs::read_dir(format!("/proc/{process}/task")).unwrap() {
            let thread = thread.unwrap().path();
            // Another thread may end meanwhile.
            let Ok(comm) = fs::read_to_string(thread.join("comm")) else { continue };
            if comm.trim_end() == name {
                let stat = fs::read_to_string(thread.join("schedstat")).unwrap();
                found = true;
                sum += stat.split(' ').next().unwrap().parse::<u64>().unwrap();
            }
        }
        assert!(found, "process {process} has no thread {name}");
        Self(sum)
    }

    pub(crate) fn since(self, before: &Self) -> Self {
        Self(self.0.saturating_sub(before.0))
    }

    pub(crate) fn seconds_per_gib(self, bytes: u64) -> f64 {
        self.0 as f64 / 1e9 * (1_u64 << 30) as f64 / bytes as f64
    }
}
