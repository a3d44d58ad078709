//! What a soak's table must show.

use std::time::Duration;

use super::figures::Figures;

/// What memory may grow by after the warm-up, over all that follows, MiB.
const GROWTH_MIB: f64 = 3.0;
/// How long the warm-up is, at most; of a short soak it is half.
const WARM_UP: Duration = Duration::from_secs(600);
/// Descriptors and threads that may be more at the end than after the warm-up: connections,
/// and a worker that happens to be there.
const SPARE: usize = 8;

/// Everything that is wrong with the table.
pub fn faults(rows: &[Figures], lasts: Duration) -> Vec<String> {
    let mut faults = Vec::new();
    let warm = WARM_UP.min(lasts / 2);
    let steady: Vec<&Figures> = rows.iter().filter(|row| row.at >= warm).collect();
    let (Some(first), Some(last)) = (steady.first(), steady.last()) else { return vec!["it was too short".into()] };
    let points: Vec<(f64, f64)> = steady.iter().map(|row| (row.at.as_secs_f64(), row.memory())).collect();
    let grown = slope(&points) * (last.at - first.at).as_secs_f64();
    println!("memory after the warm-up: {:.1} MiB, then {grown:+.2} MiB in all by its slope", first.memory());
    if grown > GROWTH_MIB {
        faults.push(format!("memory grew by {grown:.1} MiB after the warm-up"));
    }
    for (what, figure) in [("descriptors", (|f| f.descriptors) as fn(&Figures) -> usize), ("threads", |f| f.threads)] {
        if figure(last) > figure(first) + SPARE {
            faults.push(format!("{what} grew from {} to {}", figure(first), figure(last)));
        }
    }
    for row in rows {
        if row.residual != 0 {
            faults.push(format!("a residual of {} at {:?}", row.residual, row.at));
        }
    }
    for pair in rows.windows(2) {
        let (before, now) = (&pair[0], &pair[1]);
        if now.taken <= before.taken || now.acknowledged <= before.acknowledged {
            faults.push(format!("no sample was taken or acknowledged between {:?} and {:?}", before.at, now.at));
        }
    }
    if last.dropped > 0.0 {
        faults.push(format!("{} samples were dropped", last.dropped));
    }
    faults
}

/// Of the line through the points that is nearest to them.
fn slope(points: &[(f64, f64)]) -> f64 {
    let n = points.len() as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0 / n, y + point.1 / n));
    let (top, bottom) = points
        .iter()
        .fold((0.0, 0.0), |(top, bottom), point| (top + (point.0 - x) * (point.1 - y), bottom + (point.0 - x).powi(2)));
    if bottom > 0.0 { top / bottom } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(memory: impl Fn(u64) -> u64) -> Vec<Figures> {
        (0..100u64)
            .map(|n| Figures {
                at: Duration::from_secs(n * 36),
                bytes: memory(n) << 20,
                taken: n as f64,
                acknowledged: n as f64,
                ..Figures::default()
            })
            .collect()
    }

    #[test]
    fn what_grows_sticks_or_is_lost_is_said() {
        let hour = Duration::from_secs(3600);
        assert_eq!(faults(&rows(|n| 20 + n.min(16) + n % 3), hour), [""; 0]);
        assert!(faults(&rows(|n| 20 + n / 10), hour)[0].contains("memory grew"));
        let mut stuck = rows(|_| 20);
        stuck[50].taken = 49.0;
        assert_eq!(faults(&stuck, hour).len(), 1);
        let mut lost = rows(|_| 20);
        lost[3].residual = -1;
        lost[99].dropped = 1.0;
        lost[99].threads = 40;
        assert_eq!(faults(&lost, hour).len(), 3);
    }
}
