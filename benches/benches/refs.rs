//! What ids and addresses cost: parse, print, hash, clone, compare, and lookup among 10, 1,000 and 100,000 prefixes.
//! As a measure of the lookups, the same is asked of an ordered map of texts, for which each id is printed first.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use hyperactor_refs::{ActorId, BuildIdHasher, ChannelAddr, PortId, PrefixMap, ProcId, Reference};

const PROC: &str = "unix:@abc123,service";
const PORT: &str = "unix:@abc123,service,my_actor[0][1234]";

fn parsed<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("the texts of the benchmark are valid")
}

fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("refs/parse");
    let addrs = [
        ("local", "local:7"),
        ("tcp_ipv4", "tcp:127.0.0.1:9000"),
        ("tcp_ipv6", "tcp:[2001:db8::1]:9000"),
        ("tcp_name", "tcp:db.example.com:9000"),
        ("unix_path", "unix:/run/user/1000/app/worker-17.sock"),
        ("unix_abstract", "unix:@abc123"),
        ("unix_escaped", "unix:/run/my%20app/a%2Cb.sock"),
    ];
    for (name, text) in addrs {
        group.bench_function(name, |b| b.iter(|| black_box(text).parse::<ChannelAddr>()));
    }
    group.bench_function("proc_id", |b| b.iter(|| black_box(PROC).parse::<ProcId>()));
    group.bench_function("port_id", |b| b.iter(|| black_box(PORT).parse::<PortId>()));
    group.bench_function("reference", |b| {
        b.iter(|| black_box(PORT).parse::<Reference>());
    });
    group.bench_function("fault", |b| {
        b.iter(|| black_box("tpc:localhost:80").parse::<ChannelAddr>());
    });
    group.finish();
}

fn print(criterion: &mut Criterion) {
    use std::fmt::Write;
    let mut group = criterion.benchmark_group("refs/print");
    let mut text = String::with_capacity(256);
    for (name, reference) in [("proc_id", PROC), ("port_id", PORT)] {
        let reference: Reference = parsed(reference);
        group.bench_function(name, |b| {
            b.iter(|| {
                text.clear();
                write!(text, "{}", black_box(&reference)).map(|()| text.len())
            });
        });
    }
    group.finish();
}

fn handle(criterion: &mut Criterion) {
    let [port, twin]: [PortId; 2] = [parsed(PORT), parsed(PORT)];
    let neighbour = PortId::new(port.actor_id().sibling("my_actor", 1), 1234);
    let hasher = BuildHasherDefault::<DefaultHasher>::default();

    let mut group = criterion.benchmark_group("refs/hash");
    group.bench_function("port_id", |b| {
        b.iter(|| BuildIdHasher.hash_one(black_box(&port)));
    });
    group.bench_function("port_id_siphash", |b| {
        b.iter(|| hasher.hash_one(black_box(&port)));
    });
    group.bench_function("proc_id_siphash", |b| {
        b.iter(|| hasher.hash_one(black_box(port.proc_id())));
    });
    group.finish();

    let mut group = criterion.benchmark_group("refs/clone");
    let reference = Reference::from(port.clone());
    let addr = port.proc_id().addr();
    group.bench_function("actor_id", |b| {
        b.iter(|| black_box(port.actor_id()).clone());
    });
    group.bench_function("port_id", |b| b.iter(|| black_box(&port).clone()));
    group.bench_function("reference", |b| b.iter(|| black_box(&reference).clone()));
    group.bench_function("channel_addr", |b| b.iter(|| black_box(addr).clone()));
    group.bench_function("proc_id", |b| b.iter(|| black_box(port.proc_id()).clone()));
    group.finish();

    let mut group = criterion.benchmark_group("refs/compare");
    group.bench_function("same", |b| {
        b.iter(|| black_box(&port) == black_box(&port.clone()));
    });
    group.bench_function("equal", |b| b.iter(|| black_box(&port) == black_box(&twin)));
    group.bench_function("unequal", |b| {
        b.iter(|| black_box(&port) == black_box(&neighbour));
    });
    group.bench_function("order", |b| {
        b.iter(|| black_box(&port).cmp(black_box(&twin)));
    });
    group.finish();

    let mut group = criterion.benchmark_group("refs/make");
    let proc = Arc::clone(port.actor_id().proc());
    group.bench_function("actor_id", |b| {
        b.iter(|| ActorId::root(Arc::clone(black_box(&proc)), "my_actor"));
    });
    group.bench_function("sibling", |b| {
        b.iter(|| black_box(port.actor_id()).sibling("other", 0));
    });
    group.bench_function("port_id", |b| {
        b.iter(|| PortId::new(black_box(port.actor_id()).clone(), 7));
    });
    group.finish();
}

/// `count` references, of which one in ten is an actor and the rest are procs, and ports to look up among them.
fn prefixes(count: usize) -> (Vec<Reference>, Vec<PortId>) {
    let addr: ChannelAddr = parsed("unix:@abc123");
    let proc = |number: usize| Arc::new(ProcId::Direct(addr.clone(), format!("worker-{number}")));
    let references = (0..count).map(|number| match number % 10 {
        0 => Reference::from(ActorId::root(proc(number), "my_actor")),
        _ => Reference::from(proc(number)),
    });
    // A step that is prime to the counts, so that the lookups jump about; none shares its proc with an entry.
    let targets =
        (0..1024).map(|step| PortId::new(ActorId::root(proc(step * 7919 % count), "my_actor"), 7));
    (references.collect(), targets.collect())
}

fn lookup(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("refs/lookup");
    for count in [10, 1_000, 100_000] {
        let (references, targets) = prefixes(count);
        let map: PrefixMap<usize> = references.iter().cloned().zip(0..).collect();
        let texts: BTreeMap<String, usize> = references
            .iter()
            .map(Reference::to_string)
            .zip(0..)
            .collect();
        let mut at = 0;
        let mut next = || {
            at = (at + 1) % targets.len();
            &targets[at]
        };
        group.bench_function(BenchmarkId::new("prefix_map", count), |b| {
            b.iter(|| map.lookup(black_box(next())));
        });
        group.bench_function(BenchmarkId::new("ordered_texts", count), |b| {
            b.iter(|| {
                let port = black_box(next());
                let port_text = port.to_string();
                let found = texts.get(&port_text);
                let found = found.or_else(|| texts.get(&port.actor_id().to_string()));
                found.or_else(|| texts.get(&port.proc_id().to_string()))
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = refs;
    config = hyperactor_benches::criterion();
    targets = parse, print, handle, lookup
}
criterion_main!(refs);
