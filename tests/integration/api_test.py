"""The API as a foreign gRPC client sees it: Debian's python3-grpcio against tests/integration/api_server.c.

Run by ctest; by hand: api_test.py --server PATH --descriptors PATH [name of a test ...]
"""
import argparse
import sys
import time
import traceback

import api_admin
import api_hostile
import api_listeners
import api_requests
from api_rig import ARGS, TESTS, load_descriptors

MODULES = [api_requests, api_admin, api_hostile, api_listeners]  # their tests are in TESTS


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True)
    parser.add_argument("--descriptors", required=True)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, no memory figures: for sanitizers")
    parser.add_argument("names", nargs="*")
    parser.parse_args(namespace=ARGS)
    load_descriptors(ARGS.descriptors)
    failed = 0
    for function in TESTS:
        if ARGS.names and function.__name__ not in ARGS.names:
            continue
        begun = time.time()
        try:
            function()
            print("ok      %s (%.2f s)" % (function.__name__, time.time() - begun), flush=True)
        except Exception:
            failed += 1
            print("FAILED  %s" % function.__name__, flush=True)
            traceback.print_exc()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
