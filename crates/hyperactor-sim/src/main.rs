//! thin
use hyperactor_sim::{Scenario, Seen, run};
fn main() {
    let n: u64 = std::env::args()
        .nth(1)
        .and_then(|x| x.parse().ok())
        .unwrap_or(100);
    let mut seen = Seen::default();
    let mut bad = 0;
    let mut worst = 0;
    for seed in 0..n {
        let s = Scenario::draw(seed);
        let o = run(&s, false);
        seen.add(&o.seen);
        worst = worst.max(o.healed_in);
        if let Some(f) = o.flaws.first() {
            bad += 1;
            if bad < 20 {
                println!("seed {seed}: {}: {}", f.kind, f.detail);
            }
        }
    }
    for (t, v, m) in seen.rows() {
        println!("{t:<50} {v:>10} {m}");
    }
    println!(
        "{} passed, {bad} failed, worst {} ms",
        n - bad,
        worst / 1_000_000
    );
}
