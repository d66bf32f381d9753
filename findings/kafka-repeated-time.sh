#!/usr/bin/env bash
# Apache Kafka 4.3.1: the same batch is acknowledged without an append time at first, and with one when it is sent again.
#
# The protocol's log_append_time_ms is documented as -1 if the topic has message.timestamp.type=CreateTime. So says the broker's
# first answer. If the producer sends the batch again (same producer id, epoch and sequence, as one does that never saw that
# answer), the broker recognises it, writes nothing and acknowledges it with log_append_time_ms set: not a time of the
# broker's, but the largest timestamp that the producer gave in the batch. A client that infers LogAppendTime from it is misled.
# (A broker is started on loopback and asked by Kafka's own classes on a plain socket. Needs a JDK 17 and Maven.)
#
# Seen (topic with CreateTime; a batch of two records, of the times 1700000005000 and 1700000000000):
#   sent: NONE, base_offset 0, log_append_time_ms -1
#   sent again: NONE, base_offset 0, log_append_time_ms 1700000005000
#   records in the topic: 2
set -euo pipefail
work=$(mktemp -d)
trap '{ kill -9 $(jobs -p) && wait; } 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"
cat >pom.xml <<'EOP'
<project><modelVersion>4.0.0</modelVersion><groupId>ask</groupId><artifactId>ask</artifactId><version>1</version>
<dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>4.3.1</version></dependency>
<dependency><groupId>org.slf4j</groupId><artifactId>slf4j-nop</artifactId><version>1.7.36</version></dependency>
</dependencies></project>
EOP
timeout 900 mvn -q -B -Dmaven.repo.local="$work/m2" dependency:copy-dependencies -DoutputDirectory=lib
cat >Ask.java <<'EOP'
import java.io.*;
import java.net.Socket;
import java.nio.ByteBuffer;
import java.util.*;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.message.*;
import org.apache.kafka.common.protocol.*;
import org.apache.kafka.common.record.internal.*;
import org.apache.kafka.common.requests.*;

public class Ask {
    static Socket broker;

    // ask sends a request as it is and returns the broker's answer.
    static ProduceResponse ask(ProduceRequest request) throws IOException {
        RequestHeader header = new RequestHeader(ApiKeys.PRODUCE, request.version(), "ask", 1);
        ByteBuffer bytes = request.serializeWithHeader(header);
        DataOutputStream out = new DataOutputStream(broker.getOutputStream());
        out.writeInt(bytes.remaining());
        out.write(bytes.array(), bytes.arrayOffset() + bytes.position(), bytes.remaining());
        DataInputStream in = new DataInputStream(broker.getInputStream());
        byte[] answer = new byte[in.readInt()];
        in.readFully(answer);
        return (ProduceResponse) AbstractResponse.parseResponse(ByteBuffer.wrap(answer), header);
    }

    // send sends the batch to partition 0 of the topic, and again while the partition has no leader yet.
    static String send(MemoryRecords batch) throws Exception {
        for (long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(60);; Thread.sleep(50)) {
            var partition = new ProduceRequestData.PartitionProduceData().setIndex(0).setRecords(batch);
            var topic = new ProduceRequestData.TopicProduceData().setName("t").setPartitionData(List.of(partition));
            var data = new ProduceRequestData().setAcks((short) -1).setTimeoutMs(10000);
            data.topicData().add(topic);
            var p = ask(new ProduceRequest(data, (short) 12)).data().responses().iterator().next().partitionResponses().get(0);
            Errors error = Errors.forCode(p.errorCode());
            if (error != Errors.UNKNOWN_TOPIC_OR_PARTITION && error != Errors.NOT_LEADER_OR_FOLLOWER || System.nanoTime() > end)
                return error + ", base_offset " + p.baseOffset() + ", log_append_time_ms " + p.logAppendTimeMs();
        }
    }

    public static void main(String[] args) throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", "127.0.0.1:" + args[0], "default.api.timeout.ms", "300000"))) {
            // The broker may still be starting. The times are old: the topic is to keep them.
            admin.createTopics(List.of(new NewTopic("t", 1, (short) 1).configs(
                Map.of("message.timestamp.type", "CreateTime", "retention.ms", "-1")))).all().get(300, TimeUnit.SECONDS);
            broker = new Socket("127.0.0.1", Integer.parseInt(args[0]));
            broker.setSoTimeout(30000);
            MemoryRecords batch = MemoryRecords.withIdempotentRecords(Compression.NONE, 7, (short) 0, 0,
                new SimpleRecord(1700000005000L, "later".getBytes()), new SimpleRecord(1700000000000L, "sooner".getBytes()));
            System.out.println("sent: " + send(batch));
            System.out.println("sent again: " + send(batch));
            TopicPartition t = new TopicPartition("t", 0);
            System.out.println("records in the topic: "
                + admin.listOffsets(Map.of(t, OffsetSpec.latest())).partitionResult(t).get(60, TimeUnit.SECONDS).offset());
        }
    }
}
EOP
free() { while port=$((15000 + RANDOM % 15000)); (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done; echo "$port"; }
port=$(free) controller=$(free)
cat >server.properties <<EOP
node.id=1
process.roles=broker,controller
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
controller.listener.names=CONTROLLER
controller.quorum.voters=1@127.0.0.1:$controller
log.dirs=$work/data
EOP
timeout 300 java -XX:TieredStopAtLevel=1 -cp 'lib/*' kafka.tools.StorageTool format -t MkU3OEVBNTcwNTJENDM2Qg -c server.properties >log 2>&1 ||
  { cat log; exit 1; }
java -Xmx512m -XX:TieredStopAtLevel=1 -cp 'lib/*' kafka.Kafka server.properties >>log 2>&1 &
timeout 900 java -XX:TieredStopAtLevel=1 -cp 'lib/*' Ask.java "$port" | tee seen
diff seen - <<'EOP'
sent: NONE, base_offset 0, log_append_time_ms -1
sent again: NONE, base_offset 0, log_append_time_ms 1700000005000
records in the topic: 2
EOP
