"""Runs Autobahn's WebSocket cases, by kosoku, and prints the verdicts.

    autobahn.py server URL [--case GLOB]... [--without GLOB]...   the server at URL is tested
    autobahn.py client [--case GLOB]... [--without GLOB]...       prints {"port": N} and tests the client that comes

The last line is JSON: {"cases": N, "verdicts": {"OK": N, ...}, "failed": [{"case", "behavior", "close", "why"}, ...]}.
"""

import argparse
import asyncio
import json
from collections import Counter

from kosoku import FailureError, run_fuzzingclient, run_fuzzingserver


async def run(args):
    try:
        if args.mode == "server":
            return await run_fuzzingclient(args.url, args.case or None, args.without or None)
        async with run_fuzzingserver(args.case or None, args.without or None, port=0) as server:
            print(json.dumps({"port": server.port}), flush=True)
            return await server.get_result()
    except FailureError as failure:
        return failure.results


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=["server", "client"])
    parser.add_argument("url", nargs="?")
    parser.add_argument("--case", action="append", default=[])
    parser.add_argument("--without", action="append", default=[])
    results = asyncio.run(run(parser.parse_args()))
    failed = [
        {
            "case": result.case_id,
            "behavior": result.behavior.value,
            "close": result.behavior_close.value,
            "why": f"{result.result} {result.result_close} {result.was_not_clean_reason or ''}".strip(),
        }
        for result in results
        if not result.passed
    ]
    verdicts = Counter(result.behavior.value for result in results)
    print(json.dumps({"cases": len(results), "verdicts": verdicts, "failed": failed}), flush=True)


if __name__ == "__main__":
    main()
