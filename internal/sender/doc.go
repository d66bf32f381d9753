// Package sender publishes records to Kafka, each exactly once as far as that can be known,
// and says of each what became of it: it is in the log, it is not and will not be, or nobody
// can tell. It is an idempotent producer (KIP-98) on raw Produce requests. Connections,
// logins, throttles and the addresses of brokers are kgo's; kgo's own producer is not used.
//
// # A record
//
//	Send ──> waiting ──────> sealed ───────────────────────────> settled
//	         accumulator     in a batch     │                      │
//	            ^   │           │           │ written: not         └─> Config.Settle, once
//	            │   │           │           │ withdrawn any more
//	            │   └───────────┴─ Withdraw, or its context ends: settled, NotInLog
//	            └── unseal: the batch is certainly not in the log
//
// A topic places each record: by its key, or in any partition that works. Until brokers have
// described the topic it waits in topic.pending. Each partition sends by itself and waits for
// no other.
//
// # A batch
//
//	seal ──> prepare ──> issue ──> wrote ──> ended ──> judge
//	         compressed   a try    kgo asks   answer,     │
//	         if need be   begins   for the    or why      ├ inLog    settle
//	            ^            ^     bytes:     there is    ├ again    go back N: issue again
//	            │            │     sequence   none        ├ resend   unseal, new epoch
//	            │            └────────────────────────────┤ split    unseal, smaller or compressed
//	            └─────────────────────────────────────────┤ refused  settle those that are named
//	                                                      └ unknown  settle, new epoch
//
// What is known of a batch are facts, not guesses. kgo asks a request for its bytes in the
// moment in which it writes them (see produceRequest): a batch of which it did not ask was not
// sent. One that was sent is in the log if a broker says so; it is not if a broker has
// refused it with an error that comes before the append; else it is in doubt. A batch in
// doubt goes again with the same bytes under the same sequence, and a broker, which remembers
// the last five batches of each producer, appends it once. So an answer that is lost costs a
// round trip, and nobody has to know of it.
//
// Batches are written in the order of their sealing, up to five in flight where brokers are
// far or much waits, one where the partition's leader may not know this producer: it takes
// any first sequence, so it would take the second batch after it has refused the first. If
// the oldest fails, those behind it are waited for, and all are judged together (recover):
// all up to the last in doubt go again in order; what is behind that goes back to the
// accumulator. What was numbered and goes back begins a new epoch. Then a broker that has the
// old batch after all, or gets it late over a dead connection, cannot take it for what
// follows, nor what follows for it.
//
// # What ends a batch in doubt as Unknown
//
// An answer that says that it cannot be taken, which says nothing of the earlier try; the end
// of its topic; Close; and half a day, since brokers forget a producer after a day.
//
// # A topic that is made anew
//
// Its id is another. Its old partitions send nothing more. When each has judged what it had
// in flight, what is in no log moves to the new partitions, in order. These use another
// producer id: a sequence is never used twice with one id, since a broker would acknowledge
// the second as the first. For that reason a topic that was seen is never forgotten.
//
// # Locks and goroutines
//
// Sender.mu guards which topics there are, and is taken before any topic.mu. topic.mu guards
// all of a topic, its partitions, batches and records; nothing waits, asks or copies values
// while it is held. Sender.idMu guards the producer id, and is taken last. Config.Settle is
// called without locks.
//
// There are goroutines only while there is something to do, all in run.go: one for each try
// (which kgo bounds), one for each batch that is being compressed, one for each partition
// that comes back from a failure (pauses of a quarter second at most between tries), one for
// each topic that is asked about, and one for each that waits to be known. Close ends them.
package sender
