"""What PHP does to JSON and to query strings."""

import json
from urllib.parse import unquote_plus

# `max_input_vars`: what comes after is dropped.
MAX_VARIABLES = 1000


def encode(value):
    """As `json_encode`: `/` as `\\/`, everything beyond ASCII as `\\uXXXX`."""
    # A slash stands in strings only, so escaping all of them keeps the JSON.
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True).replace("/", "\\/").encode("ascii")


def query(text):
    """As `parse_str` (library page s.4): the last one wins, `name[]` makes a list of it."""
    found = {}
    for part in text.split("&")[:MAX_VARIABLES]:
        name, _, value = part.partition("=")
        name = unquote_plus(name).lstrip(" ").split("\0")[0]
        value = unquote_plus(value)
        base, bracket, rest = name.partition("[")
        if not base:
            continue
        if bracket and "]" in rest:
            earlier = found.get(base)
            found[base] = (earlier if isinstance(earlier, list) else []) + [value]
        else:
            found[name.replace("[", "_")] = value
    return found
