// Package produce is what a Producer does, with kgo's records instead of messages: it accepts
// records, bounds how many bytes are under way, gives them to package sender, words what became
// of each, and keeps connections, logins and what it knows of topics ready for the next one.
// How a record gets into the log is package sender's; what brokers, tokens and connections
// are like is package cluster's.
//
// # A delivery
//
// A record is a delivery from its call until its outcome is told:
//
//	Produce ──> checked ──> waits for room ──> queued ─────────> released ───> told ─────> taken out
//	               │             │             package sender    its bytes     Config.Tell, of queue; now
//	               │             │             has the record    are free      if there    Flush, Close and
//	               │             │                               again         is an owner ProduceSync go on
//	               └─────────────┴─> the call returns an error, and nothing more is told: the record
//	                                 is no good; ctx or the grace ends before there is room; Close
//
// What leads from queued to released is the outcome that the sender gives to settle: acknowledged,
// not in the log and never will be (ErrDelivery), or unknown (ErrOutcomeUnknown). There is exactly
// one, at the latest during Close.
//
// A ProduceSync whose ctx or grace ends withdraws its record. If that is not settled at once, the call
// returns ErrOutcomeUnknown (givenUp), and the delivery goes the same way without anybody who hears of it.
//
// # Goroutines
//
//	keepWarm                one of each Producer   Close, when it has flushed, closes Life.Closing
//	those of warm,          one for each request   the request ends: the broker answers, or the call's
//	pingLeaders and ask     that goes beside       ctx ends; the function that began it waits for it
//	                        another
//
// settle, and with it Config.Tell, runs on goroutines of the sender, several at a time. Close waits
// for what they do, but gives up on a Tell that blocks for a second.
//
// # Locks
//
// queue.mu guards which deliveries there are and who waits; Producer.knownMu guards what brokers
// have said of topics; compressor.mu guards the latest round trips. None is held while another is
// taken, a function of another package is called, or a broker is asked. A delivery's err is written
// by settle before settled is closed, and is read after that.
package produce
