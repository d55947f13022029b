//! A real video, made by ffmpeg once for all stories: H.264 and AAC as MP4 and as HLS.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// How long the video is.
pub const SECONDS: u32 = 30;

/// A folder with `video.mp4`, `hls/index.m3u8` and the page `player.html`.
pub fn folder() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        // Kept beside the build, since each test binary is a process of its own.
        let test = std::env::current_exe().unwrap();
        let tmp = test.parent().unwrap().parent().unwrap().join("tmp");
        let done = tmp.join("phlix-media-2");
        if !done.exists() {
            fs::create_dir_all(&tmp).unwrap();
            let staged = tempfile::tempdir_in(&tmp).unwrap();
            make(staged.path());
            // Where another process was faster, its video is as good.
            if fs::rename(staged.path(), &done).is_ok() {
                let _ = staged.keep();
            }
        }
        done
    })
}

/// The MP4's bytes.
pub fn video() -> Vec<u8> {
    fs::read(folder().join("video.mp4")).unwrap()
}

const PLAYER: &str = "<!doctype html><title>Player</title><video src=\"video.mp4\" muted controls></video>";

fn make(folder: &Path) {
    fs::write(folder.join("player.html"), PLAYER).unwrap();
    let video = folder.join("video.mp4");
    let hls = folder.join("hls");
    fs::create_dir(&hls).unwrap();
    ffmpeg(
        Command::new("ffmpeg")
            .args(["-f", "lavfi", "-i", "testsrc2=size=640x360:rate=25"])
            .args(["-f", "lavfi", "-i", "sine=frequency=440"])
            .args(["-t", &SECONDS.to_string()])
            .args(["-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-g", "25"])
            .args(["-c:a", "aac", "-b:a", "96k", "-movflags", "+faststart"])
            .arg(&video),
    );
    ffmpeg(
        Command::new("ffmpeg")
            .arg("-i")
            .arg(&video)
            .args(["-c", "copy", "-hls_time", "4", "-hls_playlist_type", "vod"])
            .arg("-hls_segment_filename")
            .arg(hls.join("part%03d.ts"))
            .arg(hls.join("index.m3u8")),
    );
}

fn ffmpeg(command: &mut Command) {
    let out = command.args(["-loglevel", "error", "-nostdin", "-y"]).output().unwrap();
    assert!(out.status.success(), "ffmpeg: {}", String::from_utf8_lossy(&out.stderr));
}
