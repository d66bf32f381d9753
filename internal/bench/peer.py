"""Does with ligo-gracedb what the Go program says: a JSON object a line in, one a line out."""
import base64
import json
import os
import sys
import threading
import time

answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(2, 1)

from igwn_auth_utils.scitokens import find_token  # noqa: E402
from ligo.gracedb.kafka import GraceDbKafkaConsumer, GraceDbKafkaProducer  # noqa: E402
from ligo.gracedb.kafka.auth import get_scitoken_for_kafka  # noqa: E402
from ligo.gracedb.rest import GraceDb  # noqa: E402

place = json.loads(sys.argv[1])
service_url = place.pop("service_url")
now = time.perf_counter


class Timed:
    """The producer of confluent_kafka, which says when a message was handed to it."""

    def __init__(self, inner):
        self.inner = inner

    def produce(self, *args, **kwargs):
        self.handed = now()
        return self.inner.produce(*args, **kwargs)

    def __getattr__(self, name):
        return getattr(self.inner, name)


class Peer:
    """The methods are the commands."""

    groups = 0
    files = {}

    def open(self, producer=False, consumer=None):
        start = now()
        if producer:
            self.client = GraceDb(service_url, api_version="v2")
            self.producer = GraceDbKafkaProducer(**place)
            self.reserve = self.client._reserve_graceid
            self.client._reserve_graceid = self.timed_reserve
        took = now() - start
        if consumer:
            self.background = GraceDbKafkaConsumer(topics=consumer, **place)
            threading.Thread(target=self.listen, daemon=True).start()
        return took

    def listen(self):
        for _ in self.background.stream():
            pass

    def timed_reserve(self, *args, **kwargs):
        start = now()
        try:
            return self.reserve(*args, **kwargs)
        finally:
            self.reserving = now() - start

    def file(self, path):
        if path not in self.files:
            with open(path, "rb") as f:
                self.files[path] = f.read()
        return self.files[path]

    def ping(self):
        start = now()
        self.producer.ping(topic="test")
        return now() - start

    def message(self, pipeline):
        start = now()
        self.producer.produce({"type": "message"}, topic=pipeline)
        self.producer.flush(timeout=15, strict=True)
        return now() - start

    def create(self, contents, pipeline):
        self.client.create_event("CBC", pipeline, "coinc.xml", search="AllSky", filecontents=contents, kafka=self.producer)

    def publish(self, path, pipeline):
        contents = self.file(path)
        inner = self.producer.producer
        self.producer.producer = timed = Timed(inner)
        try:
            start = now()
            self.create(contents, pipeline)
            end = now()
        finally:
            self.producer.producer = inner
        publish = end - timed.handed
        return {"Total": end - start, "Reserve": self.reserving, "Publish": publish,
                "Encode": end - start - self.reserving - publish}

    def burst(self, path, pipeline, n, callers):
        assert callers == 1, "create_event is not safe for concurrent use"
        contents = self.file(path)
        start = now()
        for _ in range(n):
            self.create(contents, pipeline)
        return now() - start

    def produce(self, path, pipeline, n, size):
        text = base64.b64encode(self.file(path)).decode()
        start = now()
        for i in range(n):
            at = i * 101 % (len(text) - size)
            self.producer.produce({"graceid": f"G{i}", "number": i, "time": time.time(),
                                   "eventFile": ["coinc.xml", text[at:at + size - 85]]}, topic=pipeline)
        self.producer.flush(timeout=60, strict=True)
        return now() - start

    def consume(self, topics, n, decode):
        self.groups += 1
        got = 0
        start = now()
        consumer = GraceDbKafkaConsumer(topics=topics, group_id=f"bench-{os.getpid()}-{self.groups}",
                                        auto_offset_reset="earliest", **place)
        opened = now() - start
        for message in consumer.stream(timeout=0.5, count=n):
            if got == 0:
                first = now() - start
            got += 1
            if decode:
                assert base64.b64decode(message["value"]["eventFile"][1])
        last = now() - start
        consumer.close()
        return {"Opened": opened, "First": first, "Last": last}

    def latency(self, pipeline, n):
        consumer = GraceDbKafkaConsumer(topics=pipeline, **place)
        took = []
        number = 0
        while len(took) < n:
            value = f"m{number}"
            number += 1
            start = now()
            self.producer.produce(value, topic=pipeline)
            self.producer.flush(timeout=15, strict=True)  # as create_event does: otherwise it lingers for 5 ms
            message = consumer.poll(timeout=0.5)
            while message is not None and message["value"] != value:
                message = consumer.poll(timeout=0.5)
            if message is not None:  # else it has no partition yet
                took.append(now() - start)
            time.sleep(0.005)
        consumer.close()
        return took

    def token(self, n):
        return {"Kafka": [self.once(lambda: get_scitoken_for_kafka("localhost:9092")) for _ in range(n)],
                "REST": [self.once(lambda: find_token("https://localhost", "gracedb.read")) for _ in range(n)]}

    def once(self, call):
        start = now()
        assert call()
        return now() - start


def main():
    peer = Peer()
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = {"result": getattr(peer, command["do"])(**command["args"])}
        except Exception as e:
            answer = {"error": [type(e).__name__], "message": str(e)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


main()
