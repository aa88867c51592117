//! A host on the command line, as people run it: served by one process, talked to by others.

#![expect(
    clippy::unwrap_used,
    reason = "in helpers too: a test's panic is its report"
)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use hyperactor::host::limits::VISITOR_ABSENT_MAX;
use hyperactor::host::{DescribeHost, Guest, HostAgent};
use hyperactor::prelude::*;
use hyperactor_testkit::{LeakGuard, TempSocketDir, eventually_blocking, isolated};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A host that serves in a process of its own, and the commands that talk to it.
struct Served {
    sockets: TempSocketDir,
    addr: String,
    aliases: Vec<String>,
    host: Child,
}

impl Served {
    fn start(bind: &str) -> Self {
        Self::start_with(bind, &[])
    }

    fn start_with(bind: &str, more: &[&str]) -> Self {
        Self::start_in(TempSocketDir::new().unwrap(), bind, more)
    }

    fn start_in(sockets: TempSocketDir, bind: &str, more: &[&str]) -> Self {
        let mut arguments = vec!["host", "serve", bind, "--json"];
        arguments.extend(more);
        let mut host = command(&sockets, &arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(host.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        let said: Value = serde_json::from_str(&line).unwrap();
        let addr = said["addr"].as_str().unwrap().to_owned();
        let aliases = said["aliases"].as_array().unwrap().iter();
        let aliases = aliases.map(|alias| alias.as_str().unwrap().to_owned());
        assert_eq!(said["pid"], host.id());
        Self {
            sockets,
            aliases: aliases.collect(),
            addr,
            host,
        }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = command(&self.sockets, arguments);
        command.env("HYPERACTOR_HOST", &self.addr).output().unwrap()
    }

    fn text(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        assert!(
            output.stderr.is_empty(),
            "{arguments:?} complains: {output:?}"
        );
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        let text = self.text(&arguments);
        assert_eq!(
            text.lines().count(),
            1,
            "one object and nothing else: {text}"
        );
        serde_json::from_str(&text).unwrap()
    }

    /// Runs a command that fails, and returns its exit status and what it says about it.
    fn fails(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.run(arguments);
        let status = output.status.code().unwrap();
        assert_ne!(status, 0, "{arguments:?}: {output:?}");
        (status, String::from_utf8(output.stderr).unwrap())
    }

    /// Waits for the end of the host and says what it printed last.
    fn ended(mut self) -> (i32, Value) {
        let mut last = String::new();
        for line in BufReader::new(self.host.stdout.take().unwrap()).lines() {
            last = line.unwrap();
        }
        let status = self.host.wait().unwrap();
        (status.code().unwrap(), serde_json::from_str(&last).unwrap())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // After a failed test only; otherwise it has ended already.
        if self.host.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.host.kill().unwrap();
            self.host.wait().unwrap();
        }
    }
}

fn command(sockets: &TempSocketDir, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hyperactor"));
    command
        .args(arguments)
        .env("XDG_RUNTIME_DIR", sockets.path())
        .env_remove("HYPERACTOR_HOST")
        .env_remove("HYPERACTOR_VIA")
        .stdin(Stdio::null());
    command
}

#[test]
fn a_host_is_served_seen_and_stopped_from_the_command_line() {
    isolated(
        "a_host_is_served_seen_and_stopped_from_the_command_line",
        || {
            for bind in ["unix:", "tcp:127.0.0.1:0"] {
                let guard = LeakGuard::new();
                let served = Served::start(bind);
                assert!(served.text(&["ps"]).contains("no procs"));

                let worker = served.json(&["host", "spawn", "worker"]);
                assert_eq!(worker["name"], "worker");
                served.text(&["host", "spawn", "other", "--route", "relay"]);
                let listed = served.json(&["ps"]);
                let names: Vec<_> = listed["procs"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|proc| proc["name"].clone())
                    .collect();
                assert_eq!(names, ["other", "worker"]);
                assert_eq!(listed["procs"][1]["pid"], worker["pid"]);

                let tree = served.text(&["tree"]);
                for word in ["worker (process", "agent[0]  running", "routes[0]"] {
                    assert!(tree.contains(word), "{tree}");
                }

                let killed = served.json(&["kill", "other"]);
                assert_eq!(killed["orderly"], false);
                let stopped = served.json(&["stop", "worker", "--deadline", "5"]);
                assert_eq!(stopped["orderly"], true);
                assert!(served.text(&["ps"]).contains("no procs"));

                served.text(&["stop"]);
                let (status, said) = served.ended();
                assert_eq!(
                    (status, &said["orderly"]),
                    (0, &Value::Bool(true)),
                    "{said}"
                );
                guard.assert_settled_blocking();
            }
        },
    );
}

#[test]
fn a_proc_that_stays_is_taken_back_by_the_next_host() {
    let sockets = TempSocketDir::new().unwrap();
    let front = sockets.address("front");
    let keep = sockets.path().join("keep").display().to_string();
    let options = ["--keep", keep.as_str(), "--grace", "20"];
    let mut first = Served::start_in(TempSocketDir::new().unwrap(), &front, &options);
    let stays = first.json(&["host", "spawn", "stays", "--stay"]);
    first.text(&["host", "spawn", "goes"]);
    first.host.kill().unwrap();
    first.host.wait().unwrap();

    let second = Served::start_in(sockets, &front, &options);
    let listed = second.json(&["ps"]);
    let procs = listed["procs"].as_array().unwrap();
    assert_eq!(procs.len(), 1, "{listed}");
    assert_eq!(procs[0]["name"], "stays");
    assert_eq!(procs[0]["pid"], stays["pid"]);
    assert_eq!(procs[0]["incarnation"], stays["incarnation"]);
    let pinged = second.json(&["ping", "stays,agent[0]", "--count", "3"]);
    assert_eq!(pinged["answered"], 3, "{pinged}");
    second.text(&["stop"]);
    let (status, said) = second.ended();
    assert_eq!((status, &said["orderly"]), (0, &true.into()), "{said}");
    assert!(!std::path::Path::new(&keep).exists());
}

#[test]
fn a_way_is_measured_followed_and_explained() {
    let served = Served::start("unix:");
    served.text(&["host", "spawn", "a"]);
    served.text(&["host", "spawn", "b", "--route", "relay"]);

    let pinged = served.json(&["ping", "a,routes[0]", "--count", "20"]);
    assert_eq!(
        (&pinged["sent"], &pinged["answered"]),
        (&20.into(), &20.into())
    );
    assert!(pinged["median_us"].as_f64().unwrap() > 0.0);

    let traced = served.json(&["trace", "a"]);
    assert_eq!(traced["reached"], true, "{traced}");
    let hops = traced["hops"].as_array().unwrap();
    assert!(hops.len() >= 2, "the host is on the way: {traced}");
    let addr = format!("{} (direct)", served.addr);
    assert_eq!(hops[0]["way"][0], Value::String(addr), "{traced}");

    let explained = served.json(&["route", "b", "a"]);
    assert_eq!(explained["now"], "relay");
    let refusals = explained["refusals"].as_array().unwrap();
    let direct = refusals
        .iter()
        .find(|refusal| refusal["rung"] == "direct")
        .unwrap();
    assert_eq!(direct["code"], "policy", "{explained}");
    served.text(&["stop"]);
}

#[test]
fn every_address_of_a_host_leads_to_its_procs() {
    let also = ["--also", "tcp:127.0.0.1:0", "--also", "local:"];
    let served = Served::start_with("unix:", &also);
    assert_eq!(served.aliases.len(), 2, "{:?}", served.aliases);
    served.text(&["host", "spawn", "a"]);
    served.text(&["host", "spawn", "b"]);
    let tcp = &served.aliases[0];
    for door in [served.addr.as_str(), tcp] {
        let listed = served.json(&["ps", "--host", door]);
        assert_eq!(listed["addr"], Value::String(served.addr.clone()));
        let (code, said) = served.fails(&["ping", "walker", "--host", door]);
        assert_eq!(code, 3, "{said}");
        assert!(said.contains("it has: a, b, service"), "{said}");
    }
    // A child knows them all: none of these leaves its machine, nor passes its host.
    let respelt = tcp.replace("127.0.0.1", "localhost");
    for spelling in [&served.addr, tcp, &respelt, &served.aliases[1]] {
        let to = format!("{spelling},b");
        let explained = served.json(&["route", "a", &to]);
        assert_ne!(explained["now"], "remote", "{to}: {explained}");
        let refusals = explained["refusals"].as_array().unwrap();
        let is_foreign = refusals
            .iter()
            .any(|refusal| refusal["code"] == "other-host");
        assert!(!is_foreign, "{to}: {explained}");
    }
    served.text(&["stop"]);
}

#[test]
fn what_cannot_be_done_has_its_own_exit_status_and_says_what_next() {
    let served = Served::start("unix:");
    served.text(&["host", "spawn", "worker"]);
    for (arguments, status, words) in [
        (
            &["host", "spawn", "worker"][..],
            4,
            &["worker", "choose another name"][..],
        ),
        (
            &["kill", "walker"],
            4,
            &["no proc called `walker`", "`worker`"],
        ),
        (&["logs", "walker"], 4, &["no proc called `walker`"]),
        (&["ping", "walker"], 3, &["no proc", "it has"]),
        (
            &["ping", "worker,nobody[0]"],
            3,
            &["no actor", "check its name"],
        ),
        (&["trace", "walker"], 3, &["no proc"]),
        (
            &["ps", "--host", "unix:@hyperactor-nobody-is-here"],
            3,
            &["no host answers", "host serve"],
        ),
        (&["ps", "--host", "nonsense"], 2, &["no address of a host"]),
        (
            &["stop", "worker", "--deadline", "never"],
            2,
            &["no number of seconds"],
        ),
    ] {
        let (code, said) = served.fails(arguments);
        assert_eq!(code, status, "{arguments:?}: {said}");
        for word in words {
            assert!(
                said.contains(word),
                "{arguments:?}: `{word}` is missing in: {said}"
            );
        }
    }
    served.text(&["stop"]);
}

#[test]
fn the_last_lines_of_a_proc_are_kept_and_a_signal_ends_the_host_in_order() {
    let served = Served::start("unix:");
    served.text(&["host", "spawn", "worker"]);
    let logs = served.json(&["logs", "worker"]);
    assert_eq!(logs["dropped"], 0);
    kill_process(Pid::from_child(&served.host), Signal::TERM).unwrap();
    let (status, said) = served.ended();
    assert_eq!(status, 0, "{said}");
    assert_eq!(
        (&said["procs"], &said["orderly"]),
        (&1.into(), &true.into())
    );
}

#[test]
fn the_doctor_finds_this_machine_fit_and_the_host_alive() {
    let served = Served::start("unix:");
    let findings = served.json(&["doctor"]);
    let checks = findings["checks"].as_array().unwrap();
    let host = checks.iter().find(|check| check["what"] == "host").unwrap();
    assert_eq!(host["state"], "good");
    assert!(
        checks.iter().all(|check| check["state"] != "bad"),
        "{findings}"
    );
    served.text(&["stop"]);
    let findings = served.run(&["doctor"]);
    assert!(
        findings.status.success(),
        "no host is no fault: {findings:?}"
    );
}

/// Every command that talks to a host, through one open TCP port and no other: to the host at it, and to one behind it.
#[test]
fn every_command_works_through_one_open_port() {
    let front = Served::start("tcp:127.0.0.1:0");
    let back = Served::start_with("unix:", &["--behind", &front.addr]);
    let described = front.json(&["ps"]);
    assert_eq!(described["attached"][0], back.addr, "{described}");
    let described = back.json(&["ps"]);
    assert_eq!(described["above"][0], front.addr, "{described}");

    for host in [&front, &back] {
        // In the environment of the front host's commands: nothing else is dialled.
        let at = ["--host", host.addr.as_str(), "--via", front.addr.as_str()];
        let run = |arguments: &[&str]| -> Value {
            let arguments: Vec<&str> = arguments.iter().copied().chain(at).collect();
            front.json(&arguments)
        };
        let worker = run(&["host", "spawn", "worker"]);
        let id = worker["id"].as_str().unwrap().to_owned();
        assert_eq!(id, format!("{},worker", host.addr));
        run(&["host", "spawn", "other", "--route", "relay"]);
        assert_eq!(run(&["ps"])["procs"].as_array().unwrap().len(), 2);
        let tree = run(&["tree"]);
        assert_eq!(tree["procs"][1]["actors"][0]["actor"], "agent[0]", "{tree}");
        assert_eq!(run(&["logs", "worker"])["dropped"], 0);
        let pinged = run(&["ping", "worker", "--count", "10"]);
        assert_eq!(pinged["answered"], 10, "{pinged}");
        assert_eq!(run(&["route", "other", "worker"])["now"], "relay");
        let traced = run(&["trace", &id]);
        assert_eq!(traced["reached"], true, "{traced}");
        let hops = traced["hops"].as_array().unwrap();
        let passes = |addr: &str| {
            hops.iter().any(|hop| {
                let way = hop["way"].as_array().unwrap().iter();
                way.clone().any(|at| at.as_str().unwrap().contains(addr))
            })
        };
        assert!(passes(&front.addr) && passes(&host.addr), "{traced}");
        let (code, said) = front.fails(&["ping", "walker", at[0], at[1], at[2], at[3]]);
        assert_eq!(code, 3, "{said}");
        assert!(said.contains("it has: other, service, worker"), "{said}");
        let (code, said) = front.fails(&["kill", "walker", at[0], at[1], at[2], at[3]]);
        assert_eq!(code, 4, "{said}");
        assert_eq!(run(&["kill", "other"])["orderly"], false);
        assert_eq!(run(&["stop", "worker"])["orderly"], true);
        let findings = run(&["doctor"]);
        let checks = findings["checks"].as_array().unwrap();
        let found = checks.iter().find(|check| check["what"] == "host").unwrap();
        let found = found["found"].as_str().unwrap();
        assert!(found.contains(&host.addr), "{findings}");
    }
    // The end of the host behind is seen through the one before it.
    front.json(&["stop", "--host", &back.addr, "--via", &front.addr]);
    let (status, said) = back.ended();
    assert_eq!(status, 0, "{said}");
    eventually_blocking(Duration::from_secs(10), || {
        let described = front.json(&["ps"]);
        described["attached"].as_array().unwrap().is_empty()
    });
    front.text(&["stop"]);
    assert_eq!(front.ended().0, 0);
}

/// The sockets of this kind that a process listens at, as the kernel lists them.
fn listening(pid: u32) -> Vec<String> {
    let inodes: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|link| {
            let link = link.to_str()?.strip_prefix("socket:[")?.to_owned();
            Some(link.strip_suffix(']')?.to_owned())
        })
        .collect();
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap();
    let mut found = Vec::new();
    for (name, state, inode) in [("tcp", 3, 9), ("tcp6", 3, 9)] {
        for line in read(name).lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            // 0A is LISTEN.
            if words[state] == "0A" && inodes.iter().any(|own| own == words[inode]) {
                found.push(format!("{name} {}", words[1]));
            }
        }
    }
    for line in read("unix").lines().skip(1) {
        let words: Vec<&str> = line.split_whitespace().collect();
        // The flag of a socket that accepts, and any name at all: one that dials has none.
        let accepts = u32::from_str_radix(words[3], 16).unwrap() & 0x0001_0000 != 0;
        let is_named = words.len() > 7;
        if (accepts || is_named) && inodes.iter().any(|own| own == words[6]) {
            found.push(format!("unix {}", words.last().unwrap()));
        }
    }
    found
}

#[test]
fn a_command_listens_nowhere() {
    let served = Served::start_with("tcp:127.0.0.1:0", &["--also", "unix:"]);
    served.text(&["host", "spawn", "worker"]);
    assert!(listening(served.host.id()).len() >= 3, "the look is blind");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let watcher = runtime.block_on(Watcher::join(&served.addr));
    // The one that looks is a guest, too.
    for (guests, door) in (2..).zip([&served.addr, &served.aliases[0]]) {
        // Long enough to be looked at, and ended when it was.
        let mut tool = command(
            &served.sockets,
            &["ping", "worker", "--count", "100000", "--host", door],
        )
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
        runtime.block_on(watcher.sees_guests(guests));
        assert_eq!(listening(tool.id()), Vec::<String>::new(), "by {door}");
        assert!(tool.try_wait().unwrap().is_none(), "it was over too soon");
        tool.kill().unwrap();
        tool.wait().unwrap();
    }
    // They said no goodbye: their places were kept for a while.
    runtime.block_on(watcher.sees_guests(1));
    runtime.block_on(watcher.leave());
    served.text(&["stop"]);
}

/// Looks at a host from this process.
struct Watcher {
    guest: Guest,
    client: Client,
}

impl Watcher {
    async fn join(addr: &str) -> Self {
        let guest = Guest::join(addr.parse().unwrap()).await.unwrap();
        let client = guest.client("watcher").unwrap();
        Self { guest, client }
    }

    async fn sees_guests(&self, count: u64) {
        let end = Instant::now() + VISITOR_ABSENT_MAX + Duration::from_secs(10);
        let agent = HostAgent::at(self.guest.host());
        loop {
            let described = agent
                .ask(&self.client, |reply| DescribeHost { reply })
                .await;
            let guests = described.unwrap().unwrap().guests;
            if guests == count {
                return;
            }
            assert!(
                Instant::now() < end,
                "there are {guests} guests, not {count}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn leave(self) {
        drop(self.client);
        self.guest.leave(Duration::from_secs(2)).await;
    }
}

#[test]
fn a_host_that_cannot_stand_behind_another_says_why() {
    let front = Served::start("unix:");
    let back = Served::start_with("unix:", &["--behind", &front.addr]);
    let nobody = "unix:@hyperactor-nobody-is-here";
    for (behind, alias, words) in [
        (back.addr.as_str(), back.addr.as_str(), "itself"),
        (&back.addr, &front.addr, "in a circle"),
        (&front.addr, &back.addr, "another host behind this one"),
        (nobody, "unix:@me", "cannot stand behind"),
    ] {
        let arguments = [
            "host", "serve", "unix:", "--alias", alias, "--behind", behind,
        ];
        let (code, said) = front.fails(&arguments);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains(words) && said.contains(behind), "{said}");
    }
    back.text(&["stop"]);
    front.text(&["stop"]);
}
