"""Drives ligo-gracedb for the Go tests: a JSON object a line in, a JSON object a line out.

{"do": name, "args": {...}} is answered by {"result": ...}, or by {"error": [class, its bases...],
"message": text}. Whatever the library prints goes to stderr.
"""

import base64
import json
import os
import sys
import threading
import time

answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(2, 1)

import confluent_kafka  # noqa: E402
from ligo.gracedb.kafka import GraceDbKafkaConsumer, GraceDbKafkaProducer  # noqa: E402
from ligo.gracedb.kafka.schema import validate_message  # noqa: E402
from ligo.gracedb.rest import GraceDb  # noqa: E402


class Peer:
    """The methods are the commands; client, producer and consumer are what was opened last."""

    client = producer = consumer = None

    def versions(self):
        return {"librdkafka": confluent_kafka.libversion()[0], "python": sys.version.split()[0]}

    def open_client(self, **options):
        self.client = GraceDb(api_version="v2", **options)

    def client_producer(self, **options):
        self.producer = self.client.create_kafka_producer(**options)
        return self._describe()

    def open_producer(self, **options):
        self.producer = GraceDbKafkaProducer(**options)
        return self._describe()

    def _describe(self):
        return {"instance_name": self.producer.instance_name, "default_topic": self.producer.default_topic}

    def open_consumer(self, **options):
        self.consumer = GraceDbKafkaConsumer(**options)

    def create_event(self, contents, kafka=True, **options):
        reply = self.client.create_event(
            filecontents=base64.b64decode(contents), kafka=self.producer if kafka else None, **options)
        return reply.json() if reply is not None else None

    def ping(self, **options):
        return self.producer.ping(**options)

    def produce(self, value, **options):
        self.producer.produce(value, **options)
        return self.producer.flush(timeout=15, strict=True)

    def place(self, keys, topic):
        """Produces a message for each key, and says on which partition each came to lie."""
        partitions = {}

        def delivered(err, msg):
            partitions[msg.key().decode()] = -1 if err else msg.partition()

        for key in keys:
            self.producer.produce({"key": key}, topic=topic, key=key, on_delivery=delivered)
        self.producer.flush(timeout=30, strict=True)
        return partitions

    def find(self, places, timeout):
        """Reads with stream() until the messages at places, [topic, partition, offset], have come."""
        wanted = {tuple(p) for p in places}
        found = []
        timer = threading.Timer(timeout, self.consumer.stop)
        timer.start()
        try:
            for message in self.consumer.stream(timeout=0.2):
                place = (message["topic"], message["partition"], message["offset"])
                if place in wanted:
                    wanted.remove(place)
                    found.append(message)
                if not wanted:
                    break
        finally:
            timer.cancel()
        if wanted:
            raise RuntimeError(f"not found: {sorted(wanted)}")
        return found

    def listen(self, seconds):
        """Polls for so long, and says what came: [partition, offset]."""
        came = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            message = self.consumer.poll(timeout=0.1)
            if message is not None:
                came.append([message["partition"], message["offset"]])
        return came

    def close_consumer(self):
        self.consumer.close()
        self.consumer = None

    def validate(self, message):
        validate_message(message)

    def close(self):
        for each in (self.producer, self.consumer):
            if each is not None:
                each.close()
        self.producer = self.consumer = None


def plain(value):
    """What json cannot say: bytes."""
    if isinstance(value, bytes):
        return {"$base64": base64.b64encode(value).decode()}
    raise TypeError(f"{type(value)} in an answer")


def main():
    peer = Peer()
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = {"result": getattr(peer, command["do"])(**command.get("args", {}))}
        except Exception as e:
            answer = {"error": [c.__name__ for c in type(e).__mro__], "message": str(e)}
        answers.write(json.dumps(answer, default=plain) + "\n")
        answers.flush()


main()
