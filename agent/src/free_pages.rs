//! Free memory that holds what it was last used for. A snapshot need not carry that, and it lies elsewhere after every boot.

use std::fs;
use std::io;
use std::mem;
use std::ptr;
use std::thread;

/// Clears the free pages that were used: those that each CPU keeps at hand, which were freed last, and the fragments of free memory
/// (mm/page_alloc.c). Blocks of the largest size are left alone: few were ever used, and to touch them all would take a guest
/// seconds and the host as much disk as the guest has memory. The kernel clears what it gives to a process, so taking and
/// returning them is all.
pub fn clear() {
    // A kernel that does not say where its free pages are has none cleared.
    let told = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let mut pages = at_hand(&told("/proc/zoneinfo"));
    if let Some(first) = pages.first_mut() {
        *first += in_fragments(&told("/proc/buddyinfo"));
    }
    // In a small guest that may be all there is, and whoever takes the last page has something killed.
    let pages = within(available(&told("/proc/meminfo")) / 4, pages);
    let taken: Vec<Pages> = thread::scope(|scope| {
        let threads: Vec<_> = (pages.into_iter().enumerate())
            // Clearing fewer costs a snapshot some room, and nobody anything else.
            .map(|(cpu, count)| scope.spawn(move || stay_on(cpu).and_then(|()| take(count)).ok()))
            .collect();
        threads
            .into_iter()
            .filter_map(|thread| thread.join().ok().flatten())
            .collect()
    });
    // Not before all are taken: one CPU would get what another has returned.
    drop(taken);
}

/// How many pages each CPU has at hand in all zones: `cpu: 0` and below it `count: 2584` (mm/vmstat.c, zoneinfo_show_print).
fn at_hand(zoneinfo: &str) -> Vec<usize> {
    let mut counts = Vec::new();
    let mut cpu = None;
    for line in zoneinfo.lines() {
        let Some((key, value)) = line.split_once(':') else {
            continue;
        };
        match (key.trim(), value.trim().parse::<usize>()) {
            ("cpu", Ok(number)) => cpu = Some(number),
            ("count", Ok(count)) => {
                let Some(cpu) = cpu else { continue };
                if counts.len() <= cpu {
                    counts.resize(cpu + 1, 0);
                }
                counts[cpu] += count;
            }
            _ => {}
        }
    }
    counts
}

/// Free pages in blocks smaller than the largest: a line for each zone, with the number of blocks of 1, 2, 4, … pages (proc(5)).
fn in_fragments(buddyinfo: &str) -> usize {
    let of_zone = |line: &str| {
        let (_, zone) = line.split_once("zone")?;
        let blocks: Vec<usize> = (zone.split_whitespace().skip(1))
            .filter_map(|count| count.parse().ok())
            .collect();
        let (_, smaller) = blocks.split_last()?;
        Some(
            smaller
                .iter()
                .enumerate()
                .map(|(order, count)| count << order)
                .sum::<usize>(),
        )
    };
    buddyinfo.lines().filter_map(of_zone).sum()
}

/// Pages that can be had without harm: `MemAvailable:   1207320 kB` (proc(5)), which the kernel's own reserve is no part of.
fn available(meminfo: &str) -> usize {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib: Option<usize> = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    kib.unwrap_or(0) * 1024 / unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize
}

/// As many of each as there is room for, the first first.
fn within(mut room: usize, counts: Vec<usize>) -> Vec<usize> {
    let take = |count: usize| {
        let taken = count.min(room);
        room -= taken;
        taken
    };
    counts.into_iter().map(take).collect()
}

fn stay_on(cpu: usize) -> io::Result<()> {
    unsafe {
        let mut set: libc::cpu_set_t = mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        // 0 is the calling thread (sched_setaffinity(2)).
        match libc::sched_setaffinity(0, mem::size_of_val(&set), &set) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Memory that was taken from the kernel, cleared.
struct Pages {
    start: *mut libc::c_void,
    bytes: usize,
}

// Nobody reads or writes it.
unsafe impl Send for Pages {}

impl Drop for Pages {
    fn drop(&mut self) {
        unsafe { libc::munmap(self.start, self.bytes) };
    }
}

fn take(count: usize) -> io::Result<Pages> {
    unsafe {
        let bytes = count * libc::sysconf(libc::_SC_PAGESIZE) as usize;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let start = libc::mmap(ptr::null_mut(), bytes, protection, flags, -1, 0);
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let pages = Pages { start, bytes };
        // Huge pages are made of blocks of the largest sizes.
        libc::madvise(start, bytes, libc::MADV_NOHUGEPAGE);
        libc::madvise(start, bytes, libc::MADV_POPULATE_WRITE);
        Ok(pages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_that_a_cpu_has_at_hand_are_counted_over_all_zones() {
        let zoneinfo = "Node 0, zone      DMA
  pages free     3840
  pagesets
    cpu: 0
              count: 5
              high:  79
    cpu: 1
              count: 0
Node 0, zone    DMA32
        protection: (0, 0, 0, 0, 0)
  pagesets
    cpu: 0
              count: 2584
              high:  6960
  vm stats threshold: 24
    cpu: 1
              count: 562
  node_unreclaimable:  0
";
        assert_eq!(at_hand(zoneinfo), [2589, 562]);
        assert!(at_hand("").is_empty());
    }

    #[test]
    fn no_more_is_taken_than_there_is_room_for() {
        assert_eq!(within(10, vec![4, 8, 2]), [4, 6, 0]);
        assert_eq!(within(100, vec![4, 8]), [4, 8]);
        assert_eq!(
            available("MemTotal: 4000 kB\nMemAvailable:    2048 kB\n"),
            512
        );
        assert_eq!(available("nothing of the kind"), 0);
    }

    #[test]
    fn fragments_are_all_free_blocks_but_those_of_the_largest_size() {
        let buddyinfo = "Node 0, zone      DMA      0      0      0      0      0      0      1      1      0      1      3
Node 0, zone    DMA32      2      1      3      1      1      1      1      3      1      0    307
";
        let dma = 64 + 128 + 512;
        let dma32 = 2 + 2 + 12 + 8 + 16 + 32 + 64 + 384 + 256;
        assert_eq!(in_fragments(buddyinfo), dma + dma32);
        assert_eq!(in_fragments(""), 0);
    }
}
