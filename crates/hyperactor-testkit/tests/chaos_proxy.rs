//! The chaos proxy over real sockets: each act at its exact byte, over every kind of stream.

#![expect(
    clippy::unwrap_used,
    reason = "a test's panic is its report, in its helpers too"
)]

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr as UnixAddr;
use std::path::Path;
use std::time::Duration;

use hyperactor_testkit::{
    Act, ChaosProxy, Direction, Endpoint, Faults, Plan, Script, Seed, TempSocketDir, eventually,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

enum Target {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Target {
    /// One of each kind, with its text form.
    async fn all(folder: &TempSocketDir) -> Vec<(Self, String)> {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp_text = format!("tcp:{}", tcp.local_addr().unwrap());
        let path = UnixListener::bind(folder.socket("target")).unwrap();
        let path_text = folder.address("target");
        let name = folder
            .path()
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let address = UnixAddr::from_abstract_name(&name).unwrap();
        let listener = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let named = UnixListener::from_std(listener).unwrap();
        vec![
            (Self::Tcp(tcp), tcp_text),
            (Self::Unix(path), path_text),
            (Self::Unix(named), format!("unix:@{name}")),
        ]
    }

    async fn accept(&self) -> Box<dyn Stream> {
        match self {
            Self::Tcp(listener) => Box::new(listener.accept().await.unwrap().0),
            Self::Unix(listener) => Box::new(listener.accept().await.unwrap().0),
        }
    }
}

async fn dial(endpoint: &Endpoint) -> Box<dyn Stream> {
    match endpoint {
        Endpoint::Tcp(address) => Box::new(TcpStream::connect(address).await.unwrap()),
        Endpoint::Path(path) => Box::new(UnixStream::connect(path).await.unwrap()),
        Endpoint::Abstract(name) => {
            let path = format!("\0{name}");
            Box::new(UnixStream::connect(Path::new(&path)).await.unwrap())
        }
    }
}

/// Reads until the stream ends or breaks.
async fn read_all(stream: &mut Box<dyn Stream>) -> (Vec<u8>, io::Result<()>) {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk).await {
            Ok(0) => return (bytes, Ok(())),
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
            Err(error) => return (bytes, Err(error)),
        }
    }
}

fn once(direction: Direction, at: u64, act: Act) -> Script {
    Script::pass().then(Plan::pass().step(direction, at, act))
}

const LONG: Duration = Duration::from_secs(10);

#[tokio::test]
async fn without_a_plan_every_byte_passes_both_ways() {
    let body = Seed::new(1).rng().bytes(300_000);
    let folder = TempSocketDir::new().unwrap();
    for (target, text) in Target::all(&folder).await {
        let proxy = ChaosProxy::start(&text, Script::pass()).await.unwrap();
        let mut dialled = dial(proxy.endpoint()).await;
        let mut accepted = target.accept().await;
        let echo = tokio::spawn(async move {
            let (bytes, end) = read_all(&mut accepted).await;
            end.unwrap();
            accepted.write_all(&bytes).await.unwrap();
        });
        dialled.write_all(&body).await.unwrap();
        dialled.shutdown().await.unwrap();
        let (back, end) = read_all(&mut dialled).await;
        end.unwrap();
        assert!(
            back == body,
            "{text}: {} of {} bytes came back",
            back.len(),
            body.len()
        );
        echo.await.unwrap();
        let report = proxy.stop().await;
        assert_eq!((report.bytes_up, report.bytes_down), (300_000, 300_000));
    }
}

#[tokio::test]
async fn a_cut_passes_exactly_the_bytes_before_it() {
    let folder = TempSocketDir::new().unwrap();
    for (target, text) in Target::all(&folder).await {
        for at in [0, 1, 777, 70_000] {
            let proxy = ChaosProxy::start(&text, once(Direction::Down, at, Act::Cut))
                .await
                .unwrap();
            let mut dialled = dial(proxy.endpoint()).await;
            let mut accepted = target.accept().await;
            let writing = tokio::spawn(async move {
                // The write fails when the cut comes first.
                let _ = accepted.write_all(&[7; 200_000]).await;
                let _ = read_all(&mut accepted).await;
            });
            let (bytes, _) = tokio::time::timeout(LONG, read_all(&mut dialled))
                .await
                .unwrap();
            // A reset may overtake bytes within the kernel, over TCP only.
            assert!(bytes.len() as u64 <= at, "{text} at {at}: {}", bytes.len());
            tokio::time::timeout(LONG, writing).await.unwrap().unwrap();
            let report = proxy.stop().await;
            assert_eq!((report.bytes_down, report.cuts), (at, 1), "{text}");
        }
    }
}

#[tokio::test]
async fn over_tcp_a_cut_is_a_reset_for_both_ends() {
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let text = format!("tcp:{}", target.local_addr().unwrap());
    let proxy = ChaosProxy::start(&text, once(Direction::Up, 2, Act::Cut))
        .await
        .unwrap();
    let mut dialled = dial(proxy.endpoint()).await;
    let mut accepted: Box<dyn Stream> = Box::new(target.accept().await.unwrap().0);
    dialled.write_all(b"ab").await.unwrap();
    for stream in [&mut dialled, &mut accepted] {
        let (_, end) = tokio::time::timeout(LONG, read_all(stream)).await.unwrap();
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn a_half_close_ends_one_direction_and_leaves_the_other() {
    let folder = TempSocketDir::new().unwrap();
    for (target, text) in Target::all(&folder).await {
        let script = once(Direction::Up, 5, Act::HalfClose);
        let proxy = ChaosProxy::start(&text, script).await.unwrap();
        let mut dialled = dial(proxy.endpoint()).await;
        let mut accepted = target.accept().await;
        dialled.write_all(b"0123456789").await.unwrap();
        let (bytes, end) = read_all(&mut accepted).await;
        end.unwrap();
        assert_eq!(bytes, b"01234");
        accepted.write_all(b"back").await.unwrap();
        let mut back = [0; 4];
        dialled.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"back");
        assert_eq!(proxy.report().half_closes, 1);
    }
}

#[tokio::test]
async fn a_stall_holds_the_bytes_behind_it_and_a_freeze_for_ever() {
    let folder = TempSocketDir::new().unwrap();
    for (target, text) in Target::all(&folder).await {
        let time = Duration::from_millis(60);
        let plan = Plan::pass().step(Direction::Up, 3, Act::Stall(time)).step(
            Direction::Up,
            6,
            Act::Freeze,
        );
        let proxy = ChaosProxy::start(&text, Script::pass().then(plan))
            .await
            .unwrap();
        let mut dialled = dial(proxy.endpoint()).await;
        let mut accepted = target.accept().await;
        let started = tokio::time::Instant::now();
        dialled.write_all(b"abcdefghi").await.unwrap();
        let mut six = [0; 6];
        accepted.read_exact(&mut six).await.unwrap();
        assert_eq!(&six, b"abcdef");
        assert!(started.elapsed() >= time);
        eventually(LONG, || proxy.report().freezes == 1).await;
        // Frozen, not closed: the end of the dialling side is not seen either.
        drop(dialled);
        let mut rest = [0; 1];
        let silent = tokio::time::timeout(time, accepted.read(&mut rest)).await;
        assert!(silent.is_err(), "{silent:?}");
        assert_eq!(proxy.report().bytes_up, 6);
        proxy.cut_all();
        let (bytes, _) = tokio::time::timeout(LONG, read_all(&mut accepted))
            .await
            .unwrap();
        assert_eq!(bytes, []);
        assert_eq!(proxy.stop().await.cuts, 1);
    }
}

#[tokio::test]
async fn a_delay_makes_each_piece_late_from_its_byte_on() {
    let folder = TempSocketDir::new().unwrap();
    for (target, text) in Target::all(&folder).await {
        let time = Duration::from_millis(30);
        let script = once(Direction::Up, 4, Act::Delay(time));
        let proxy = ChaosProxy::start(&text, script).await.unwrap();
        let mut dialled = dial(proxy.endpoint()).await;
        let mut accepted = target.accept().await;
        dialled.write_all(b"fast").await.unwrap();
        let mut four = [0; 4];
        accepted.read_exact(&mut four).await.unwrap();
        for _ in 0..2 {
            let started = tokio::time::Instant::now();
            dialled.write_all(b"slow").await.unwrap();
            accepted.read_exact(&mut four).await.unwrap();
            assert!(started.elapsed() >= time);
        }
        assert_eq!(proxy.report().delays, 1);
    }
}

#[tokio::test]
async fn each_connection_has_its_own_plan_and_the_rest_pass() {
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let text = format!("tcp:{}", target.local_addr().unwrap());
    let script: Script = "up[] down[half-close@1]; up[] down[half-close@2]"
        .parse()
        .unwrap();
    let proxy = ChaosProxy::start(&text, script).await.unwrap();
    for expected in ["h", "he", "hello"] {
        let mut dialled = dial(proxy.endpoint()).await;
        let (mut accepted, _) = target.accept().await.unwrap();
        accepted.write_all(b"hello").await.unwrap();
        accepted.shutdown().await.unwrap();
        let (bytes, end) = read_all(&mut dialled).await;
        end.unwrap();
        assert_eq!(bytes, expected.as_bytes());
    }
    assert_eq!(proxy.stop().await.connections, 3);
}

#[tokio::test]
async fn a_target_that_is_not_there_breaks_the_connection() {
    let folder = TempSocketDir::new().unwrap();
    let proxy = ChaosProxy::start(folder.address("nobody"), Script::pass())
        .await
        .unwrap();
    let mut dialled = dial(proxy.endpoint()).await;
    let (bytes, _) = tokio::time::timeout(LONG, read_all(&mut dialled))
        .await
        .unwrap();
    assert_eq!(bytes, []);
    eventually(LONG, || proxy.report().unreachable == 1).await;
    let error = ChaosProxy::start("local:1", Script::pass())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}

#[tokio::test]
async fn seeded_faults_take_place() {
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let text = format!("tcp:{}", target.local_addr().unwrap());
    let faults = Faults {
        connections: 50,
        span: 1_000,
        weights: [1, 1, 0, 0, 0],
        ..Faults::default()
    };
    let proxy = ChaosProxy::start(&text, Script::seeded(Seed::new(11), &faults))
        .await
        .unwrap();
    for _ in 0..faults.connections {
        let mut dialled = dial(proxy.endpoint()).await;
        let (mut accepted, _) = target.accept().await.unwrap();
        // Either write may meet the fault.
        let _ = dialled.write_all(&[1; 1_000]).await;
        let _ = accepted.write_all(&[2; 1_000]).await;
        drop(dialled);
        let _ = read_all(&mut (Box::new(accepted) as Box<dyn Stream>)).await;
    }
    let report = proxy.stop().await;
    assert_eq!(report.connections, 50);
    assert!(report.cuts >= 10 && report.half_closes >= 10, "{report:?}");
}

#[tokio::test]
async fn a_proxy_that_is_dropped_ends_its_connections_and_its_socket() {
    let folder = TempSocketDir::new().unwrap();
    let target = UnixListener::bind(folder.socket("target")).unwrap();
    let proxy = ChaosProxy::start(folder.address("target"), Script::pass())
        .await
        .unwrap();
    let endpoint = proxy.endpoint().clone();
    let Endpoint::Path(path) = &endpoint else {
        panic!("{endpoint} has no path")
    };
    let mut dialled = dial(&endpoint).await;
    let (_accepted, _) = target.accept().await.unwrap();
    drop(proxy);
    let (bytes, _) = tokio::time::timeout(LONG, read_all(&mut dialled))
        .await
        .unwrap();
    assert_eq!(bytes, []);
    eventually(LONG, || !path.exists()).await;
}
