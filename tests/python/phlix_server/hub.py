"""The media server's calls of the hub's HTTP API (API page s.7.1) and what it keeps of them."""

import asyncio
import http.client
import json
import os
import time
from urllib.parse import urlsplit

from . import php

TIMEOUT = 30
PUBLIC_KEY = {"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA"}


class Hub:
    """One base URL; calls block, so they run beside the loop."""

    def __init__(self, base, tls, records):
        self.base = base.rstrip("/")
        self.tls = tls
        self.records = records

    async def call(self, method, path, body=None, bearer=None):
        """Status and JSON object of the reply: what is no JSON is `{}`."""
        status, reply = await asyncio.to_thread(self._call, method, path, body, bearer)
        self.records.call(method, path, status, reply)
        return status, reply

    def _call(self, method, path, body, bearer):
        parts = urlsplit(self.base)
        if parts.scheme == "https":
            connection = http.client.HTTPSConnection(parts.hostname, parts.port, timeout=TIMEOUT, context=self.tls)
        else:
            connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=TIMEOUT)
        headers = {"Accept-Phlix-Protocol": "v1", "Content-Type": "application/json"}
        if bearer:
            headers["Authorization"] = f"Bearer {bearer}"
        try:
            connection.request(method, parts.path + path, None if body is None else php.encode(body), headers)
            answer = connection.getresponse()
            raw = answer.read()
        finally:
            connection.close()
        try:
            value = json.loads(raw)
        except ValueError:
            value = {}
        return answer.status, value if isinstance(value, dict) else {}


class Enrollment:
    """`hub-enrollment.json`."""

    def __init__(self, folder):
        self.path = folder / "hub-enrollment.json"
        self.subdomain_path = folder / "hub-subdomain.json"
        self.value = {}
        if self.path.exists():
            self.value = json.loads(self.path.read_text())

    @property
    def jwt(self):
        return self.value.get("enrollment_jwt")

    @property
    def server_id(self):
        return self.value.get("server_id")

    @property
    def hub_base_url(self):
        return self.value.get("hub_base_url")

    def store(self, **changes):
        self.value |= changes | {"enrolled_at": int(time.time())}
        with os.fdopen(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(self.value, file)


class Client:
    """What the server does at its hub."""

    def __init__(self, args, tls, enrollment, records):
        self.args = args
        self.tls = tls
        self.enrollment = enrollment
        self.records = records
        self.started = time.time()

    def hub(self, base=None):
        return Hub(base or self.enrollment.hub_base_url, self.tls, self.records)

    async def new_claim(self):
        key = PUBLIC_KEY | {"x": self.args.public_key}
        claim = {
            "serverName": self.args.name,
            "version": self.args.version,
            "publicKeysJwk": key,
            "hostnameCandidates": ["http://192.168.1.20:8096"],
            "protocolVersion": "v1",
        }
        status, reply = await self.hub(self.args.hub).call("POST", "/api/v1/server-claims/new", claim)
        if status // 100 != 2 or type(reply.get("expiresIn")) is not int:
            raise RuntimeError(f"no claim: {status} {reply}")
        return reply

    async def claimed(self, claim):
        """Polls until somebody has entered the code, and stores what comes."""
        while True:
            _, reply = await self.hub(self.args.hub).call("GET", f"/api/v1/server-claims/{claim['claimId']}")
            if reply.get("status") == "claimed":
                break
            if reply.get("status") == "expired":
                raise RuntimeError("the claim expired")
            await asyncio.sleep(self.args.poll)
        # The web pairing keeps the URL that the operator typed, the command line the hub's own.
        base = claim["hubBaseUrl"] if self.args.base_of_reply else self.args.hub
        names = ("enrollment_jwt", "hub_jwks_url", "server_id")
        self.enrollment.store(hub_base_url=base, **{name: reply[name] for name in names})

    async def of_server(self, method, step, body):
        path = f"/api/v1/servers/{self.enrollment.server_id}/{step}"
        return await self.hub().call(method, path, body, self.enrollment.jwt)

    async def heartbeat(self):
        beat = {
            "serverId": self.enrollment.server_id,
            "version": self.args.version,
            "timestamp": int(time.time()),
            "uptimeSeconds": int(time.time() - self.started),
            "activeSessions": 0,
            "activeTranscodes": 0,
            "hostnameCandidates": ["http://192.168.1.20:8096"],
            "libraries": self.libraries(),
        }
        return await self.of_server("POST", "heartbeat", beat)

    async def old_heartbeat(self):
        """As servers before July 2026 sent it."""
        beat = {
            "server_id": self.enrollment.server_id,
            "version": self.args.version,
            "timestamp": int(time.time()),
            "uptime_seconds": int(time.time() - self.started),
            "active_sessions": 0,
            "active_transcodes": 0,
            "hostname_candidates": ["http://192.168.1.20:8096"],
            "capabilities": {},
            "library_count": len(self.libraries()),
            "total_size_bytes": 123_456,
        }
        return await self.of_server("POST", "heartbeat", beat)

    def libraries(self):
        from .library import LIBRARIES

        return [{"library_id": row["id"], "library_name": row["name"]} for row in LIBRARIES]

    async def renew(self):
        status, reply = await self.of_server("POST", "renew", [])
        if status == 200 and isinstance(reply.get("enrollment_jwt"), str):
            self.enrollment.store(enrollment_jwt=reply["enrollment_jwt"])
        return status, reply

    async def subdomain(self):
        status, reply = await self.of_server("POST", "subdomain", [])
        if status == 200:
            self.enrollment.subdomain_path.write_text(json.dumps(reply))
        return status, reply

    async def release(self):
        return await self.of_server("DELETE", "subdomain", None)

    async def beat_for_ever(self):
        """The first one after a whole interval; the renewal goes before a heartbeat once it is due."""
        while True:
            await asyncio.sleep(self.args.hub_heartbeat)
            try:
                if time.time() - self.enrollment.value.get("enrolled_at", 0) >= 518_400:
                    await self.renew()
                await self.heartbeat()
            except OSError as error:
                self.records.errors.append(f"heartbeat: {error}")
