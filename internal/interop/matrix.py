"""Publishes one event with ligo-gracedb, for one cell of the matrix: see matrix_test.go.

The first line in is the task. A line out says that producer and client are ready, the next line in
starts the call, and a line out says what came of it. One more line in waits for what is still queued.
"""

import json
import os
import re
import sys

answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(2, 1)

from ligo.gracedb.rest import GraceDb  # noqa: E402


def say(text):
    answers.write(json.dumps(text) + "\n")
    answers.flush()


def told(reply):
    """What the caller gets to know from an answer."""
    if reply is None:
        return "success by Kafka, no answer"
    way = "Kafka" if reply.url.endswith("/reserve/") else "HTTP"
    try:
        return f'success by {way}, graceid "{reply.json()["graceid"]}"'
    except Exception:
        return f"success by {way}, answer {reply.text!r} with status {reply.status_code}"


def failed(e):
    """Which error it is, with the status and the graceid if it has them."""
    reply = getattr(e, "response", None)
    status = f" {reply.status_code}" if reply is not None else ""
    graceid = re.search(r"\bG\d{4}\b", str(e))
    return f"error: {type(e).__name__}{status}" + (f", names {graceid[0]}" if graceid else "")


def main():
    task = json.loads(sys.stdin.readline())
    client = GraceDb(api_version="v2", service_url=task["service_url"])
    producer = client.create_kafka_producer(**task["producer"])
    client.groups  # the root document
    say("ready")
    sys.stdin.readline()
    contents = os.urandom(task["size"])
    try:
        say(told(client.create_event(filecontents=contents, kafka=producer, **task["event"])))
    except Exception as e:
        say(failed(e))
    sys.stdin.readline()
    say(f"{producer.producer.flush(task['settle'])} left")
    os._exit(0)


main()
