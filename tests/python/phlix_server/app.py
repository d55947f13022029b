"""The application: a request in, an answer out. It answers its own HTTP port and the relay alike."""

import hashlib
import hmac
import json
import re
import struct
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from . import library, php

PIECE = 65_534
SECRET = b"the media server's own"
PATTERN = bytes(n % 251 for n in range(251 * 1024))

MANIFEST = b'<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"></MPD>\n'
PLAYLIST = "application/vnd.apple.mpegurl"


@dataclass
class Answer:
    status: int
    headers: dict = field(default_factory=dict)
    # All of it, or an asynchronous iterator of pieces.
    body: object = b""
    # What the head promises; `None` where it is not known.
    length: int | None = None

    def pieces(self):
        if isinstance(self.body, bytes):
            return whole(self.body)
        return self.body


async def whole(body):
    for at in range(0, len(body), PIECE):
        yield body[at : at + PIECE]


async def of_file(path, first, length):
    with path.open("rb") as file:
        file.seek(first)
        while length > 0:
            piece = file.read(min(PIECE, length))
            if not piece:
                return
            length -= len(piece)
            yield piece


async def of_pattern(first, length):
    """Byte `i` of a big file is `i mod 251`."""
    at = first
    while at < first + length:
        shift = at % 251
        piece = PATTERN[shift : shift + min(PIECE, first + length - at)]
        at += len(piece)
        yield piece


def json_answer(value, status=200):
    return fixed(status, "application/json", php.encode(value))


def fixed(status, content_type, body):
    headers = {"Content-Type": content_type, "Content-Length": str(len(body))}
    return Answer(status, headers, body, len(body))


def not_found(what="Item not found"):
    return json_answer({"error": what}, 404)


def unauthorized():
    return json_answer({"error": "Unauthorized", "code": "auth.required"}, 401)


def signed(path, query=""):
    """A URL that works without a session until it expires."""
    expires = str(int(time.time()) + 3600)
    end = f"exp={expires}&sig={signature(path, expires)}"
    return f"{path}?{query}&{end}" if query else f"{path}?{end}"


def signature(path, expires):
    return hmac.new(SECRET, f"{path}\n{expires}".encode(), hashlib.sha256).hexdigest()[:32]


def is_signed(path, query):
    expires, given = query.get("exp"), query.get("sig")
    return (
        isinstance(expires, str)
        and isinstance(given, str)
        and expires.isdigit()
        and int(expires) > time.time()
        and hmac.compare_digest(signature(path, expires), given)
    )


class App:
    def __init__(self, video, hls, old=False):
        self.video = Path(video)
        self.hls = Path(hls) if hls else None
        # An older server: its detail does not tell the library.
        self.old = old
        self.jobs = {}
        self.state = {}

    async def answer(self, request):
        query = php.query(request.query)
        known = request.user is not None or is_signed(request.path, query)
        reads = request.method in ("GET", "HEAD")
        match request.path.split("/")[1:]:
            case ["media", item, "stream"] if reads:
                return self.stream(request, item, query) if known else unauthorized()
            case ["hls" | "dash" as kind, job, *rest] if request.method == "GET" and rest:
                return self.segment(kind, job, "/".join(rest)) if known else unauthorized()
            # Has no gate on the server at all.
            case ["trickplay", item, name] if request.method == "GET":
                return self.trickplay(item, name)
            case ["api", "v1", *rest]:
                return self.api(request, rest, query) if known else unauthorized()
        return not_found("Not Found")

    def api(self, request, parts, query):
        match (request.method, *parts):
            case ("GET", "libraries"):
                rows = [row | {"item_count": len(library.ids(row["id"]))} for row in library.LIBRARIES]
                return json_answer({"libraries": rows})
            case ("GET", "libraries", found):
                row = library.library(found)
                return json_answer({"library": row}) if row else not_found("Library not found")
            case ("GET", "libraries", found, "items"):
                return json_answer({"items": items(library.ids(found)), "limit": 50, "offset": 0})
            case ("GET", "libraries", found, "collections"):
                rows = [library.collection(row) for row in library.COLLECTIONS if row["library_id"] == found]
                return json_answer({"collections": rows})
            case ("GET", "media"):
                return self.listing(query)
            case ("GET", "media", "letter-index"):
                names = [library.ITEMS[item][1] for item in listed(query)]
                count = sum(name.startswith("A ") for name in names)
                letters = [{"letter": "#", "offset": 0, "count": 0}, {"letter": "A", "offset": 0, "count": count}]
                return json_answer({"letters": letters, "total": len(names)})
            case ("GET", "media", "facets"):
                return json_answer({"genres": ["Drama"] if listed(query) else []})
            case ("GET", "media", "index"):
                total = len(listed(query))
                return json_answer({"field": "name", "buckets": [{"count": total, "offset": 0}], "total": total})
            case ("GET", "media", "search"):
                asked = str(query.get("q", ""))
                found = items([item for item in library.ids() if asked.lower() in library.ITEMS[item][1].lower()])
                return json_answer({"items": found, "query": asked, "total": len(found)})
            case (method, "media", item, *rest):
                return self.of_item(request, method, item, rest) if item in library.ITEMS else not_found()
            case ("GET", "collections"):
                return json_answer({"collections": [library.collection(row) for row in library.COLLECTIONS]})
            case ("GET", "music", kind) if kind in library.MUSIC:
                return json_answer(library.MUSIC[kind])
            case ("GET", "artwork", item) if item in library.ITEMS:
                return fixed(200, "image/png", picture(item))
            case ("GET", "transcode", job, "status") if job in self.jobs:
                return json_answer(job_told(job) | {"segments": 3, "playlist_ready": True, "progress": 10})
            case ("GET", "users", user, "avatar"):
                return fixed(200, "image/png", picture(user))
            case ("GET", "cast", "devices"):
                return json_answer({"devices": []})
            case ("POST", "playlists"):
                return json_answer({"collection": {"id": "c3", "name": parsed(request.body).get("name", "")}}, 201)
        return not_found("Not Found")

    def listing(self, query):
        asked = str(query.get("search", "")).lower()
        found = [item for item in listed(query) if asked in library.ITEMS[item][1].lower()]
        if "parentId" in query:
            # None of the items has children.
            found = []
        limit, offset = (int(query.get(name, default)) for name, default in (("limit", 50), ("offset", 0)))
        page = items(found[offset : offset + limit])
        return json_answer({"items": page, "total": len(found), "limit": limit, "offset": offset})

    def of_item(self, request, method, item, rest):
        fresh = {"favorite": False, "rating": None, "like_level": 0, "watched": False}
        # Per user, and the user is whom the relay stamped.
        state = self.state.setdefault((request.user, item), fresh)
        match (method, *rest):
            case ("GET",):
                return json_answer(library.detail(item, signed, state, self.old))
            case ("GET", "playback"):
                return json_answer(library.playback(item))
            case ("GET", "playback-info"):
                return json_answer(library.playback_info(item))
            case ("GET", "chapters"):
                return json_answer({"chapters": library.CHAPTERS})
            case ("GET", "trickplay"):
                sheet = f"/trickplay/{item}"
                return json_answer({"sprite_url": f"{sheet}/sprite.jpg", "timeline_url": f"{sheet}/timeline.json"})
            case ("POST", "transcode"):
                return self.transcode(item, php.query(request.query).get("profile", "default"))
            case ("POST", "watched" | "unwatched" as act):
                state["watched"] = act == "watched"
            case ("POST" | "DELETE", "favorite"):
                state["favorite"] = method == "POST"
            case ("PUT" | "DELETE", "rating"):
                state["rating"] = number(request.body, "rating") if method == "PUT" else None
            case ("PUT", "like"):
                state["like_level"] = number(request.body, "level")
            case _:
                return not_found("Not Found")
        return json_answer({"success": True, "user_data": state})

    def transcode(self, item, profile):
        job = "job-" + hashlib.sha256(f"{item} {profile} 1".encode()).hexdigest()[:16]
        reused = job in self.jobs
        self.jobs[job] = item
        return json_answer(job_told(job) | {"hls_url": signed(f"/hls/{job}/master.m3u8"), "reused": reused})

    def segment(self, kind, job, name):
        if job not in self.jobs:
            return not_found("Job not found")
        if name == "playlist":
            return json_answer({"playlist_url": f"/hls/{job}/master.m3u8", "job_id": job})
        if (kind, name) == ("dash", "manifest.mpd"):
            return fixed(200, "application/dash+xml", MANIFEST)
        if (kind, name) == ("hls", "master.m3u8"):
            lines = ["#EXTM3U", "#EXT-X-STREAM-INF:BANDWIDTH=2000000,RESOLUTION=640x360", "media_0.m3u8", ""]
            return fixed(200, PLAYLIST, "\n".join(lines).encode())
        if self.hls and (kind, name) == ("hls", "media_0.m3u8"):
            # Its segments are siblings by relative name.
            return fixed(200, PLAYLIST, (self.hls / "index.m3u8").read_bytes())
        if self.hls and kind == "hls" and re.fullmatch(r"part\d+\.ts", name) and (self.hls / name).exists():
            size = (self.hls / name).stat().st_size
            headers = {"Content-Type": "video/mp2t", "Content-Length": str(size)}
            return Answer(200, headers, of_file(self.hls / name, 0, size), size)
        return not_found("Segment not found")

    def trickplay(self, item, name):
        if item not in library.ITEMS:
            return not_found()
        if name == "sprite.jpg":
            return fixed(200, "image/jpeg", picture(item))
        if name == "timeline.json":
            return json_answer({"interval": 10, "tile_width": 1, "tile_height": 1, "frames": []})
        return not_found("Not Found")

    def stream(self, request, item, query):
        if item not in library.ITEMS:
            return not_found()
        if item == library.BIG:
            size = int(query.get("size", 64 << 20))
            content_type, body = "application/octet-stream", of_pattern
        else:
            size = self.video.stat().st_size
            content_type = "video/mp4"

            def body(first, length):
                return of_file(self.video, first, length)

        headers = {"Content-Type": content_type, "Accept-Ranges": "bytes"}
        found = re.fullmatch(r"bytes=(\d*)-(\d*)", request.header("range") or "")
        if not found or found.groups() == ("", ""):
            return Answer(200, headers | {"Content-Length": str(size)}, body(0, size), size)
        first, last = found.groups()
        if first == "":
            first, last = max(0, size - int(last)), size - 1
        else:
            first, last = int(first), min(int(last), size - 1) if last else size - 1
        if first >= size or last < first:
            return Answer(416, headers | {"Content-Range": f"bytes */{size}", "Content-Length": "0"}, b"", 0)
        length = last - first + 1
        headers |= {"Content-Range": f"bytes {first}-{last}/{size}", "Content-Length": str(length)}
        return Answer(206, headers, body(first, length), length)


def picture(name):
    """A poster of one colour: the smallest kind of PNG, 40 by 60."""
    colour = hashlib.sha256(name.encode()).digest()[:3]
    rows = (b"\0" + colour * 40) * 60

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 40, 60, 8, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def items(ids):
    return [library.list_item(item, signed) for item in ids]


def listed(query):
    """The items of a list: `libraryId` narrows it where it is one value and not blank."""
    wanted = query.get("libraryId")
    return library.ids(wanted if isinstance(wanted, str) and wanted.strip() else None)


def job_told(job):
    return {
        "job_id": job,
        "status": "running",
        "master_url": signed(f"/hls/{job}/master.m3u8"),
        "dash_url": signed(f"/dash/{job}/manifest.mpd"),
        "subtitles": [],
        "variants": None,
    }


def number(body, name):
    value = parsed(body).get(name)
    return value if isinstance(value, int) else 0


def parsed(body):
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
