"""Times the Python peer's token look-ups: a number n on standard input, n times in
nanoseconds of each kind, as one line of JSON, on standard output."""
import json
import sys
import time

from cryptography.hazmat.primitives.serialization import load_pem_public_key
from igwn_auth_utils.scitokens import find_token
from ligo.gracedb.kafka.auth import get_scitoken_for_kafka
from scitokens.utils.keycache import KeyCache

issuer, kid, key_file, token_file = sys.argv[1:]
with open(key_file, "rb") as f:
    key = load_pem_public_key(f.read())
# Otherwise every look-up waits for the issuer's name to be looked up.
KeyCache().addkeyinfo(issuer, kid, key, cache_timer=86400, next_update=3600)
with open(token_file) as f:
    token = f.read().strip()


def kafka():
    assert get_scitoken_for_kafka("kafka.test:9092") == token


def rest():
    assert find_token("kafka.test", "gracedb.read")["sub"] == "alice"


def measure(call, n):
    times = []
    for _ in range(n):
        start = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - start)
    return times


for line in sys.stdin:
    n = int(line)
    print(json.dumps({"kafka": measure(kafka, n), "rest": measure(rest, n)}), flush=True)
