#!/usr/bin/env bash
# Apache Kafka 4.3.1: a batch that is in the log already is refused with MESSAGE_TOO_LARGE when it is sent again.
#
# A producer sends a batch again (same producer id, epoch and sequence) if it never saw the answer; the broker recognises it,
# writes nothing and acknowledges it. But the broker looks at the topic's max.message.bytes before it looks whether it has the
# batch: if the limit was lowered below the batch's size in between, the answer is MESSAGE_TOO_LARGE, an error not to be retried
# that reads as "not written". The batch is in the log all the same, consumers get it, and with the old limit back it is
# recognised as before. A client that reports the refused batch as lost, or splits it and sends the parts, is wrong.
# (A broker is started on loopback and asked by Kafka's own classes on a plain socket. Needs a JDK 17 and Maven.)
#
# Seen (one batch of 2 kB):
#   sent: NONE, base_offset 0
#   sent again: NONE, base_offset 0
#   sent again with max.message.bytes=1000: MESSAGE_TOO_LARGE, base_offset -1
#   sent again with max.message.bytes=10000: NONE, base_offset 0
#   records in the topic: 1
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
import org.apache.kafka.common.config.ConfigResource;
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

    // send sends the batch to partition 0 of the topic, and again for up to a minute while the answer has one of these errors.
    static String send(MemoryRecords batch, Errors... passing) throws Exception {
        for (long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(60);; Thread.sleep(50)) {
            var partition = new ProduceRequestData.PartitionProduceData().setIndex(0).setRecords(batch);
            var topic = new ProduceRequestData.TopicProduceData().setName("t").setPartitionData(List.of(partition));
            var data = new ProduceRequestData().setAcks((short) -1).setTimeoutMs(10000);
            data.topicData().add(topic);
            var p = ask(new ProduceRequest(data, (short) 12)).data().responses().iterator().next().partitionResponses().get(0);
            Errors error = Errors.forCode(p.errorCode());
            if (!List.of(passing).contains(error)) return error + ", base_offset " + p.baseOffset();
            if (System.nanoTime() > end) throw new IllegalStateException("still " + error + " after a minute");
        }
    }

    // batch returns the batch of 2 kB that has this sequence.
    static MemoryRecords batch(int sequence) {
        return MemoryRecords.withIdempotentRecords(Compression.NONE, 7, (short) 0, sequence, new SimpleRecord(new byte[2000]));
    }

    // limit sets max.message.bytes and waits until it is in force. Another batch, far out of sequence, tells that: it is never
    // written, and is refused for its sequence while the limit lets it through.
    static void limit(Admin admin, int bytes, Errors before, Errors after) throws Exception {
        var topic = new ConfigResource(ConfigResource.Type.TOPIC, "t");
        var set = new AlterConfigOp(new ConfigEntry("max.message.bytes", "" + bytes), AlterConfigOp.OpType.SET);
        admin.incrementalAlterConfigs(Map.of(topic, List.of(set))).all().get(60, TimeUnit.SECONDS);
        String answer = send(batch(100), before);
        if (!answer.startsWith(after + ",")) throw new IllegalStateException("out of sequence: " + answer);
    }

    public static void main(String[] args) throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", "127.0.0.1:" + args[0], "default.api.timeout.ms", "300000"))) {
            // The broker may still be starting.
            admin.createTopics(List.of(new NewTopic("t", 1, (short) 1))).all().get(300, TimeUnit.SECONDS);
            broker = new Socket("127.0.0.1", Integer.parseInt(args[0]));
            broker.setSoTimeout(30000);
            MemoryRecords batch = batch(0);
            System.out.println("sent: " + send(batch, Errors.UNKNOWN_TOPIC_OR_PARTITION, Errors.NOT_LEADER_OR_FOLLOWER));
            System.out.println("sent again: " + send(batch));
            limit(admin, 1000, Errors.OUT_OF_ORDER_SEQUENCE_NUMBER, Errors.MESSAGE_TOO_LARGE);
            System.out.println("sent again with max.message.bytes=1000: " + send(batch));
            limit(admin, 10000, Errors.MESSAGE_TOO_LARGE, Errors.OUT_OF_ORDER_SEQUENCE_NUMBER);
            System.out.println("sent again with max.message.bytes=10000: " + send(batch));
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
sent: NONE, base_offset 0
sent again: NONE, base_offset 0
sent again with max.message.bytes=1000: MESSAGE_TOO_LARGE, base_offset -1
sent again with max.message.bytes=10000: NONE, base_offset 0
records in the topic: 1
EOP
