"""An unmodified Phlix media server's double: enrols at a hub, holds a tunnel to it, serves a real video.

    media_server.py --hub URL --tunnel ws://HOST:PORT --state FOLDER --video FILE [--hls FOLDER] ...

It knows the wire from its description alone and shares no code with the hub. `--ready-file` is written
anew at each change: {"claim_code", "server_id", "connected", "origin", "control", "pid"}; `origin` is its own
HTTP port (8096 at home), `control` a port where a story asks: GET /records; POST /do {"call": "heartbeat" |
"old_heartbeat" | "renew" | "subdomain" | "release"} gives {"status", "body"}; POST /do {"drop": true} cuts the
tunnel without a word. What it does wrong where it is asked to: `phlix_server/misbehaviour.py`.
"""

import argparse
import asyncio
import base64
import json
import os
import ssl
from pathlib import Path

from phlix_server import ed25519, port
from phlix_server.app import App, json_answer, not_found
from phlix_server.hub import Client, Enrollment
from phlix_server.records import Records
from phlix_server.tunnel import Settings, Tunnel

SESSION = "Bearer home-session"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hub", required=True, help="as the operator types it")
    parser.add_argument("--tunnel", required=True, help="PHLIX_RELAY_HUB_WS_URL: ws:// or wss://")
    parser.add_argument("--state", required=True, type=Path)
    parser.add_argument("--video", required=True, type=Path)
    parser.add_argument("--hls", type=Path, help="a folder with index.m3u8 and part*.ts")
    parser.add_argument("--ready-file", required=True, type=Path)
    parser.add_argument("--name", default="Living room")
    parser.add_argument("--version", default="0.97.3")
    parser.add_argument("--ca", type=Path, help="trusted for https:// and wss:// (else nothing is verified)")
    parser.add_argument("--poll", type=float, default=2, help="seconds between polls of a claim")
    parser.add_argument("--base-of-reply", action="store_true", help="keep the claim reply's hubBaseUrl")
    parser.add_argument("--hub-heartbeat", type=float, default=60, help="seconds between HTTP heartbeats")
    parser.add_argument("--heartbeat", type=float, default=30, help="PHLIX_RELAY_PING_INTERVAL")
    parser.add_argument("--reconnect-delay", type=float, default=5, help="PHLIX_RELAY_RECONNECT_DELAY")
    parser.add_argument("--reconnect-max-delay", type=float, default=300)
    parser.add_argument("--reconnect-jitter", type=float, default=0.3)
    parser.add_argument("--deadline", type=float, help="seconds for a relayed request (30 where it is kept)")
    parser.add_argument("--drops-full", action="store_true", help="the known defect: a file ends where the buffer is full")
    parser.add_argument("--empty-list", action="store_true", help="an empty map of headers as []")
    parser.add_argument("--old", action="store_true", help="a detail without library_id")
    return parser.parse_args()


class Server:
    def __init__(self, args):
        self.args = args
        self.records = Records()
        self.tls = ssl.create_default_context(cafile=args.ca)
        if not args.ca:
            self.tls.check_hostname, self.tls.verify_mode = False, ssl.CERT_NONE
        self.ready = {"claim_code": None, "server_id": None, "connected": False, "pid": os.getpid()}
        args.state.mkdir(parents=True, exist_ok=True)
        args.public_key = self.public_key()
        self.app = App(args.video, args.hls, args.old)
        self.enrollment = Enrollment(args.state)
        self.client = Client(args, self.tls, self.enrollment, self.records)
        self.tunnel = None

    def public_key(self):
        """One that stays. The hub asks this kind of server for no proof of it."""
        file = self.args.state / "seed"
        if not file.exists():
            file.write_bytes(os.urandom(32))
        return base64.urlsafe_b64encode(ed25519.public_key(file.read_bytes())).rstrip(b"=").decode()

    def tell(self, **changes):
        self.ready |= changes
        temporary = self.args.ready_file.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.ready))
        temporary.rename(self.args.ready_file)

    async def run(self):
        _origin, origin_port = await port.serve(self.at_home)
        _control, control_port = await port.serve(self.steered)
        self.tell(origin=origin_port, control=control_port)
        if not self.enrollment.jwt:
            claim = await self.client.new_claim()
            self.tell(claim_code=claim["claimCode"])
            await self.client.claimed(claim)
        self.tell(server_id=self.enrollment.server_id, claim_code=None)
        settings = Settings(self.args, self.tls)
        self.tunnel = Tunnel(settings, self.enrollment, self.app, origin_port, self.records)
        await asyncio.gather(self.tunnel.hold(), self.client.beat_for_ever(), self.watch())

    async def watch(self):
        """Tells when the tunnel comes and goes."""
        while True:
            connected = self.tunnel.connected.is_set()
            if connected != self.ready["connected"]:
                self.tell(connected=connected)
            await asyncio.sleep(0.02)

    async def at_home(self, request):
        """Its own port: whoever has a session of its own."""
        request.user = "local" if request.header("authorization") == SESSION else None
        return await self.app.answer(request)

    async def steered(self, request):
        if (request.method, request.path) == ("GET", "/records"):
            return json_answer(self.records.told())
        if (request.method, request.path) == ("POST", "/do"):
            asked = port.parsed(request)
            if asked.get("drop"):
                self.tunnel.drop()
                return json_answer({})
            status, body = await getattr(self.client, asked["call"])()
            return json_answer({"status": status, "body": body})
        return not_found("Not Found")


if __name__ == "__main__":
    asyncio.run(Server(arguments()).run())
