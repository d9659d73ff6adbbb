//! The machine under the bench: CPUs, CPU time, resident memory, allocator.

use std::{path::Path, time::Duration};

use rustix::{
    param::page_size,
    time::{ClockId, clock_gettime},
};

/// Pins this process to the first `cpus` CPUs it may use; threads started later inherit that. A platform without
/// affinity runs unpinned and says so in the line's `cpus`.
#[cfg(target_os = "linux")]
pub(crate) fn pin(cpus: usize) -> usize {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let Ok(allowed) = sched_getaffinity(None) else { return available() };
    let mut set = CpuSet::new();
    for cpu in (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).take(cpus) {
        set.set(cpu);
    }
    match sched_setaffinity(None, &set) {
        Ok(()) => usize::try_from(set.count()).unwrap_or(cpus),
        Err(_) => available(),
    }
}

/// Pinning is not offered here.
#[cfg(not(target_os = "linux"))]
pub(crate) fn pin(_cpus: usize) -> usize {
    available()
}

/// CPUs this process may use.
pub(crate) fn available() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// CPU time of the whole process so far, user and system.
pub(crate) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Resident bytes of this process, from `/proc/self/statm`.
pub(crate) fn resident_bytes() -> u64 {
    std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|line| line.split(' ').nth(1)?.parse::<u64>().ok())
        .map_or(0, |pages| pages * u64::try_from(page_size()).unwrap_or(4096))
}

/// The allocator this program was built with.
pub(crate) fn allocator() -> &'static str {
    if cfg!(feature = "mimalloc") { "mimalloc" } else { "system" }
}

/// How many 1 KiB appends with fdatasync the disk under `dir` does a second: a durable figure means something only
/// beside this one, taken in the same minute.
#[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
pub(crate) fn disk_syncs_per_s(dir: &Path) -> std::io::Result<f64> {
    use std::io::Write as _;
    let path = dir.join("syncs");
    let mut file = std::fs::File::create(&path)?;
    let started = std::time::Instant::now();
    let mut syncs = 0_u32;
    while started.elapsed() < Duration::from_millis(300) {
        file.write_all(&[u8::try_from(syncs % 251).unwrap_or(0); 1024])?;
        file.sync_data()?;
        syncs += 1;
    }
    let rate = f64::from(syncs) / started.elapsed().as_secs_f64();
    std::fs::remove_file(path)?;
    Ok(rate)
}
