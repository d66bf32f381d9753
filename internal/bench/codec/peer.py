"""Publishes events with ligo-gracedb: says its versions, then takes a JSON object a line and answers
with the seconds it took, all as JSON."""
import json
import os
import sys
import time

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

import importlib.metadata  # noqa: E402

import confluent_kafka  # noqa: E402
from ligo.gracedb.rest import GraceDb  # noqa: E402

options = json.loads(sys.argv[1])
client = GraceDb(options.pop("service_url"), api_version="v2")
producer = client.create_kafka_producer(**options)

answers.write(json.dumps(
    f"ligo-gracedb {importlib.metadata.version('ligo-gracedb')}, librdkafka {confluent_kafka.libversion()[0]}, "
    f"Python {sys.version.split()[0]}") + "\n")
answers.flush()
for line in sys.stdin:
    event = json.loads(line)
    with open(event.pop("path"), "rb") as f:
        contents = f.read()
    start = time.perf_counter()
    reply = client.create_event(filecontents=contents, kafka=producer, **event)
    took = time.perf_counter() - start
    answers.write(f"{took}\n")
    answers.flush()
os._exit(0)
