#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

fn folder() -> (tempfile::TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("deep/agent");
    (parent, path)
}

fn enrollment() -> Enrollment {
    Enrollment {
        hub: "https://hub.example".into(),
        hub_key: None,
        server_id: ServerId::new(uuid::Uuid::from_u128(7)),
        jwks_path: "/.well-known/jwks.json".into(),
        owner_name: Some("ada".into()),
        token: "token".into(),
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn key_and_instance_are_made_once_and_are_private() {
    let (_parent, path) = folder();
    let (state, lock) = State::open(&path).unwrap();
    let (key, instance) = (state.server_key().unwrap(), state.instance().unwrap());
    drop(lock);
    let (state, _lock) = State::open(&path).unwrap();
    assert_eq!(state.server_key().unwrap().kid(), key.kid());
    assert_eq!(state.instance().unwrap(), instance);
    assert_eq!(mode(&path), 0o700);
    for name in [KEY, INSTANCE, LOCK] {
        assert_eq!(mode(&path.join(name)), 0o600, "{name}");
    }
}

#[test]
fn a_folder_that_others_can_read_is_closed() {
    let (_parent, path) = folder();
    fs::create_dir_all(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    State::open(&path).unwrap();
    assert_eq!(mode(&path), 0o700);
}

#[test]
fn a_second_agent_is_kept_out_until_the_first_is_gone() {
    let (_parent, path) = folder();
    let (_, first) = State::open(&path).unwrap();
    assert!(matches!(State::open(&path), Err(StateError::InUse { .. })));
    assert!(is_running(&path));
    drop(first);
    assert!(!is_running(&path));
    State::open(&path).unwrap();
}

#[test]
fn an_enrollment_survives_a_restart_and_can_be_forgotten() {
    let (_parent, path) = folder();
    let (state, _lock) = State::open(&path).unwrap();
    assert!(state.enrollment().unwrap().is_none());
    state.save_enrollment(&enrollment()).unwrap();
    assert!(state.enrollment().unwrap() == Some(enrollment()));
    assert_eq!(mode(&path.join(ENROLLMENT)), 0o600);
    let key = state.server_key().unwrap().kid();
    state.forget_enrollment().unwrap();
    assert!(state.enrollment().unwrap().is_none());
    assert_eq!(state.server_key().unwrap().kid(), key);
}

#[test]
fn a_damaged_enrollment_says_what_to_do_and_damaged_copies_are_passed_over() {
    let (_parent, path) = folder();
    let (state, _lock) = State::open(&path).unwrap();
    for (name, bytes) in [(ENROLLMENT, &b"{\"hub\":"[..]), (TICKET, b"\xff\xfe"), (KEYS, b"[]"), (KEY, b"short")] {
        fs::write(path.join(name), bytes).unwrap();
    }
    let error = state.enrollment().map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("enrollment.json is damaged") && error.contains("claim the server anew"), "{error}");
    let error = state.server_key().unwrap_err().to_string();
    assert!(error.contains("server-key is damaged"), "{error}");
    assert!(state.ticket().is_none());
    assert!(state.keys().is_none());
}

#[test]
fn a_write_that_fails_leaves_the_old_file() {
    let (_parent, path) = folder();
    let (state, _lock) = State::open(&path).unwrap();
    state.save_enrollment(&enrollment()).unwrap();
    // Stands for a full disk: the file beside can't be written, as root too.
    fs::create_dir(path.join("enrollment.new")).unwrap();
    let newer = Enrollment { token: "newer".into(), ..enrollment() };
    assert!(matches!(state.save_enrollment(&newer), Err(StateError::Write { .. })));
    assert!(state.enrollment().unwrap() == Some(enrollment()));
}

#[test]
fn a_file_of_absurd_length_is_not_read() {
    let (_parent, path) = folder();
    let (state, _lock) = State::open(&path).unwrap();
    File::create(path.join(ENROLLMENT)).unwrap().set_len(1 << 40).unwrap();
    assert!(matches!(state.enrollment(), Err(StateError::Read { .. })));
}

#[test]
fn a_status_is_read_back_with_whether_it_runs() {
    let (_parent, path) = folder();
    assert_eq!(status(&path).unwrap(), None);
    let (_, lock) = State::open(&path).unwrap();
    let written = Status { hub: "h".into(), stage: Stage::Connecting, ..Status::default() };
    write_status(&path, &written).unwrap();
    assert_eq!(status(&path).unwrap(), Some(Status { running: true, ..written.clone() }));
    drop(lock);
    assert_eq!(status(&path).unwrap(), Some(written));
}
