"""What is in the media server: the shapes of the library page s.7, two libraries with five items."""

FILMS = "11111111-1111-4111-8111-111111111111"
PRIVATE = "22222222-2222-4222-8222-222222222222"


def item_id(letter, number):
    return f"{letter * 8}-0000-4000-8000-{number:012d}"


# The real video.
EXAMPLE = item_id("a", 1)
# As many bytes as the query's `size` says.
BIG = item_id("a", 2)

LIBRARIES = [
    {"id": FILMS, "name": "Films", "type": "movie", "paths": ["/srv/films"], "options": {}},
    {"id": PRIVATE, "name": "Private", "type": "series", "paths": ["/srv/private"], "options": {}},
]

ITEMS = {
    EXAMPLE: (FILMS, "The Example", "movie"),
    BIG: (FILMS, "A Big File", "movie"),
    item_id("b", 1): (PRIVATE, "Home, First Winter", "episode"),
    item_id("b", 2): (PRIVATE, "Home, Second Winter", "episode"),
    item_id("b", 3): (PRIVATE, "Home, Third Winter", "episode"),
}

COLLECTIONS = [
    {"id": "c1", "name": "Set", "library_id": FILMS},
    {"id": "c2", "name": "Winters", "library_id": PRIVATE},
]


def library(found):
    return next((row for row in LIBRARIES if row["id"] == found), None)


def ids(library_id=None):
    return [item for item, (home, _, _) in ITEMS.items() if library_id in (None, home)]


def list_item(item, sign):
    home, name, kind = ITEMS[item]
    folder = library(home)["paths"][0]
    return {
        "id": item,
        "name": name,
        "sort_title": name.removeprefix("The ").removeprefix("A "),
        "type": kind,
        "path": f"{folder}/{name}.mp4",
        "poster_url": sign(f"/api/v1/artwork/{item}", "size=w342"),
        "poster_srcset": None,
        "backdrop_url": None,
        "backdrop_srcset": None,
        "genres": ["Drama"],
        "year": 2001,
        "rating": "PG",
        "runtime": 90,
        "duration": 5400,
        "overview": "Ein Beispiel, schön erzählt",
        "actors": ["A B"],
        "director": "C D",
        "parent_id": None,
        "season_number": None,
        "episode_number": None,
        "episode_title": None,
        "air_date": None,
        "artist": None,
        "album": None,
        "created_at": "2026-01-01 00:00:00",
        "updated_at": "2026-01-01 00:00:00",
    }


def detail(item, sign, state, old):
    """The one shape that tells an item's library; an `old` server has none there."""
    found = list_item(item, sign) | {
        "library_id": ITEMS[item][0],
        "metadata": {},
        "streams": [
            {
                "id": "s1",
                "media_item_id": item,
                "stream_index": 0,
                "stream_type": "video",
                "codec": "h264",
                "language": None,
                "bitrate": None,
                "width": 1920,
                "height": 1080,
            }
        ],
        "cast": [{"name": "A B", "role": "R", "profile_url": None}],
        "crew": [{"name": "C D", "job": "Director", "profile_url": None}],
        "tags": [],
        "production_companies": [],
        "studio": None,
        "backdrop_url_large": None,
        "theme_audio_url": None,
        "trailer_url": None,
        "trailer_key": None,
        "trailer_site": None,
        "logo_url": None,
        "external_ids": {"tmdb": "1"},
        "stream_url": sign(f"/media/{item}/stream", ""),
        "user_data": state,
    }
    if old:
        del found["library_id"]
    return {"item": found}


def playback(item):
    home, name, kind = ITEMS[item]
    path = f"{library(home)['paths'][0]}/{name}.mp4"
    source = {"id": "default", "container": "mp4", "path": path, "direct_play": True}
    return {
        "playback_info": {
            "id": item,
            "name": name,
            "type": kind,
            "media_sources": [source],
            "markers": {},
            "audio_tracks": [],
            "subtitle_tracks": [],
        }
    }


def playback_info(item):
    return {
        "item_id": item,
        "intro_marker": {"start_seconds": 1, "end_seconds": 9},
        "outro_marker": None,
        "chapters": CHAPTERS,
        "skip_button_spec": {},
        "quality_ladder": None,
        "audio_tracks": [],
        "subtitle_tracks": [],
        "crossfade": {"enabled": False, "duration": 0, "fade_out": 0, "fade_in": 0},
    }


CHAPTERS = [{"start_seconds": 0, "end_seconds": 60, "title": "One"}]


def collection(row):
    return row | {
        "smart_playlist_id": None,
        "parent_id": None,
        "sort_order": 0,
        "is_smart": False,
        "created_at": "2026-01-01 00:00:00",
        "updated_at": "2026-01-01 00:00:00",
    }


def track(number):
    return {
        "id": item_id("d", number),
        "name": f"Track {number}",
        "artist": "X",
        "album": "Y",
        "duration_secs": 200,
        "track_number": number,
    }


MUSIC = {
    "artists": {"artists": [{"name": "X", "album_count": 1, "track_count": 2, "albums": ["Y"]}]},
    "albums": {"albums": [{"name": "Y", "artist": "X", "year": 2000, "track_count": 2, "tracks": []}]},
    "tracks": {"tracks": [track(1), track(2)], "limit": 100, "offset": 0, "total": 2},
}
