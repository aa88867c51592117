//! The directory in a real file system.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;

use super::*;

fn base() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    dir
}

/// What a host that was killed leaves: the directory, its lock file without a lock, a socket.
fn abandon(dir: &SocketDir) -> PathBuf {
    let path = dir.path().to_path_buf();
    drop(UnixListener::bind(dir.socket_path("left")).unwrap());
    dir.lock.lock().take();
    path
}

#[test]
fn a_new_directory_is_private_and_removed_with_everything_in_it() {
    let base = base();
    let dir = SocketDir::create_in(base.path()).unwrap();
    let path = dir.path().to_path_buf();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o700);
    let _listener = UnixListener::bind(dir.socket_path("a")).unwrap();
    assert_eq!(dir.sockets().unwrap(), [socket_name("a")]);
    dir.remove().unwrap();
    assert!(!path.exists());
}

#[test]
fn dropping_a_user_of_the_directory_leaves_it_in_place() {
    let base = base();
    let owner = SocketDir::create_in(base.path()).unwrap();
    drop(SocketDir::open(owner.path()).unwrap());
    assert!(owner.path().exists());
    let path = owner.path().to_path_buf();
    drop(owner);
    assert!(!path.exists());
}

#[test]
fn only_directories_of_dead_owners_are_swept() {
    let base = base();
    let living = SocketDir::create_in(base.path()).unwrap();
    let dead = abandon(&SocketDir::create_in(base.path()).unwrap());
    let strange = base.path().join("hyperactor-not-one-of-ours");
    std::fs::create_dir(&strange).unwrap();
    let empty = base
        .path()
        .join(format!("{DIR_PREFIX}{}", "a".repeat(DIR_RANDOM_LETTERS)));
    std::fs::create_dir(&empty).unwrap();
    std::fs::set_permissions(&empty, std::fs::Permissions::from_mode(0o700)).unwrap();
    let next = SocketDir::create_in(base.path()).unwrap();
    assert!(living.path().exists(), "a living owner was swept away");
    assert!(next.path().exists());
    assert!(!dead.exists(), "the dead owner's directory is still there");
    assert!(!empty.exists(), "half a directory is still there");
    assert!(strange.exists(), "somebody else's directory was removed");
}

#[test]
fn the_last_child_to_leave_a_dead_host_removes_the_directory() {
    let base = base();
    let path = abandon(&SocketDir::create_in(base.path()).unwrap());
    let first = SocketDir::open(&path).unwrap();
    let second = SocketDir::open(&path).unwrap();
    let _one = UnixListener::bind(first.socket_path("one")).unwrap();
    let _two = UnixListener::bind(second.socket_path("two")).unwrap();
    first.leave("one").unwrap();
    assert_eq!(
        second.sockets().unwrap(),
        [socket_name("two")],
        "the stale socket must go, the living stay"
    );
    second.leave("two").unwrap();
    assert!(!path.exists());
}

#[test]
fn what_is_no_socket_does_not_keep_the_directory_of_a_dead_host() {
    let base = base();
    let path = abandon(&SocketDir::create_in(base.path()).unwrap());
    let child = SocketDir::open(&path).unwrap();
    std::fs::write(path.join("core.1234"), "left by the host").unwrap();
    child.leave("one").unwrap();
    assert!(!path.exists());
}

#[test]
fn a_child_leaves_the_directory_of_a_living_host_alone() {
    let base = base();
    let host = SocketDir::create_in(base.path()).unwrap();
    let child = SocketDir::open(host.path()).unwrap();
    let _listener = UnixListener::bind(child.socket_path("one")).unwrap();
    child.leave("one").unwrap();
    assert!(host.path().exists());
    assert_eq!(host.sockets().unwrap(), Vec::<String>::new());
}

#[test]
fn the_last_child_of_an_ending_host_removes_the_directory_and_the_host_finds_nothing_to_do() {
    let base = base();
    let host = SocketDir::create_in(base.path()).unwrap();
    let child = SocketDir::open(host.path()).unwrap();
    let _backend = UnixListener::bind(host.backend_path()).unwrap();
    let _one = UnixListener::bind(child.socket_path("one")).unwrap();
    let _two = UnixListener::bind(child.socket_path("two")).unwrap();
    child.leave_last("one").unwrap();
    assert!(host.backend_path().exists(), "another proc still needs it");
    assert!(child.socket_path("two").exists());
    child.leave_last("two").unwrap();
    assert!(!host.path().exists());
    child.leave_last("two").unwrap();
    host.remove().unwrap();
}

#[test]
fn a_path_that_the_kernel_would_refuse_is_refused_first_with_the_limit() {
    let base = base();
    let long = base.path().join("x".repeat(80));
    let error = SocketDir::create_in(&long).unwrap_err();
    assert_eq!(error.code(), "path_too_long");
    let text = error.to_string();
    assert!(
        text.contains("107") && text.contains(long.to_str().unwrap()),
        "{text}"
    );
}

#[test]
fn directories_that_others_could_touch_are_refused() {
    let base = base();
    let open = base.path().join("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(SocketDir::create_in(&open).unwrap_err().code(), "exposed");
    assert_eq!(SocketDir::open(&open).unwrap_err().code(), "exposed");
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o1777)).unwrap();
    SocketDir::create_in(&open).expect("a sticky directory is as good as /tmp");
    let readable = base.path().join("readable");
    std::fs::create_dir(&readable).unwrap();
    std::fs::set_permissions(&readable, std::fs::Permissions::from_mode(0o750)).unwrap();
    assert_eq!(SocketDir::open(&readable).unwrap_err().code(), "exposed");
}

#[test]
fn links_files_and_relative_paths_are_refused() {
    let base = base();
    let real = SocketDir::create_in(base.path()).unwrap();
    let link = base.path().join("link");
    symlink(real.path(), &link).unwrap();
    assert_eq!(
        SocketDir::open(&link).unwrap_err().code(),
        "not_a_directory"
    );
    let file = base.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert_eq!(
        SocketDir::open(&file).unwrap_err().code(),
        "not_a_directory"
    );
    assert_eq!(
        SocketDir::create_in(&file).unwrap_err().code(),
        "not_a_directory"
    );
    assert_eq!(
        SocketDir::open("relative").unwrap_err().code(),
        "relative_path"
    );
    assert_eq!(
        SocketDir::open(base.path().join("none"))
            .unwrap_err()
            .code(),
        "io"
    );
}

#[test]
fn a_directory_removed_under_us_is_no_error_at_the_end() {
    let base = base();
    let dir = SocketDir::create_in(base.path()).unwrap();
    std::fs::remove_dir_all(dir.path()).unwrap();
    assert_eq!(dir.sockets().unwrap(), Vec::<String>::new());
    dir.remove().unwrap();
}

#[test]
fn a_kept_directory_has_one_host_and_goes_with_it() {
    let base = base();
    let path = base.path().join("keep");
    let host = SocketDir::keep(&path).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o700);
    assert_eq!(SocketDir::keep(&path).unwrap_err().code(), "in_use");
    let _listener = UnixListener::bind(host.backend_path()).unwrap();
    drop(host);
    assert!(!path.exists());
    SocketDir::keep(&path).expect("it can be made again");
}

#[test]
fn what_others_put_into_a_kept_directory_stays() {
    let base = base();
    let path = base.path().join("keep");
    let host = SocketDir::keep(&path).unwrap();
    drop(UnixListener::bind(host.socket_path("a")).unwrap());
    let theirs = path.join("notes.sock");
    std::fs::write(&theirs, "mine").unwrap();
    host.remove().unwrap();
    assert!(theirs.exists());
    let left: Vec<_> = std::fs::read_dir(&path).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn a_kept_directory_in_which_somebody_lives_on_stays_and_no_sweep_takes_it() {
    let base = base();
    // Named as one of those that are swept.
    let name = format!("{DIR_PREFIX}{}", "a".repeat(DIR_RANDOM_LETTERS));
    let path = base.path().join(name);
    let host = SocketDir::keep(&path).unwrap();
    let child = SocketDir::open_kept(&path).unwrap();
    child.enter_record("a", "{}").unwrap();
    child.outlives_host("a", true).unwrap();
    let _listener = UnixListener::bind(child.socket_path("a")).unwrap();
    drop(host);
    let _other = SocketDir::create_in(base.path()).unwrap();
    assert!(path.exists());
    child.leave("a").unwrap();
    assert!(!path.exists());
}

#[test]
fn a_proc_leaves_what_a_later_life_of_its_name_has() {
    let base = base();
    let host = SocketDir::keep(base.path().join("keep")).unwrap();
    let [first, second] = [(), ()].map(|()| SocketDir::open_kept(host.path()).unwrap());
    first.enter_record("a", "{}").unwrap();
    second.enter_record("a", "{}").unwrap();
    let _listener = UnixListener::bind(second.socket_path("a")).unwrap();
    assert!(!first.remove_socket("a").unwrap());
    assert!(second.socket_path("a").exists());
    assert!(second.remove_socket("a").unwrap());
    // One that never came to its record has nothing to remove either.
    let third = SocketDir::open_kept(host.path()).unwrap();
    drop(UnixListener::bind(host.socket_path("b")).unwrap());
    assert!(!third.remove_socket("b").unwrap());
    assert!(host.remove_socket("b").unwrap());
}

#[test]
fn places_where_no_directory_can_be_kept_are_refused() {
    let base = base();
    let code = |path: &Path| SocketDir::keep(path).unwrap_err().code();
    assert_eq!(code(Path::new("relative")), "relative_path");
    assert_eq!(code(Path::new("/")), "not_a_directory");
    assert_eq!(code(&base.path().join("x".repeat(80))), "path_too_long");
    assert_eq!(code(&base.path().join("none/keep")), "io");
    let open = base.path().join("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(code(&open), "exposed");
    symlink(&open, base.path().join("link")).unwrap();
    assert_eq!(code(&base.path().join("link")), "not_a_directory");
}
