// Package cluster is what Producer and Consumer have in common: one Client each, which is a kgo
// client and what is known of its connections. It knows how to reach the brokers of one cluster
// (Config, its checks and options, TLS, who may be shown the token), how these are (Health), what
// Metadata says of topics, what an error of kgo or a broker means (EngineKinds), and how long to
// wait for all of that (Client.Await). It knows nothing of what is published or consumed. Tokens
// and the state of authentication are package sasl's.
//
// # A connection
//
//	kgo dials ──> redials ──> openings ─────> dial, TLS ────> pacedConn ───> framedConn ──> kgo
//	              50 ms after 16 at a time,   5 s at most,    a deadline     refuses answers
//	              a failure   12 of these to  only to hosts   for each       that are too large
//	                          strangers       that may see    piece of a     or count what they
//	                                          the token       large write    cannot hold
//
// # Await
//
// Await runs a function that talks to a broker on a goroutine of its own, since kgo may return long
// after the ctx of a request. The call ends with the first of: the function's result, the end of
// its ctx, Close, a refused token (at once when Starting, after the grace when Running) and, when
// Starting, that no broker can be connected to.
//
// # Goroutines
//
//	probe          one while authentication fails   a broker accepts a token, or the client is closed
//	that of Await  one a call                       its function returns: soon after the call's ctx ends,
//	                                                or Client.Shut closes kgo's client
//
// kgo's hooks (those of Health), its log, dial and the frames of a connection run on goroutines of kgo.
//
// # Locks
//
// Health.mu guards what is known of addresses; redials.mu guards when connecting to each failed
// last; openings.mu guards which addresses are no strangers; framedConn.mu, which the goroutines that
// write and read a connection share, guards the requests that wait for an answer; engineLog.mu guards what
// kgo has logged of late. None is held while another is taken, of this or another package, and
// none while something is read, written or logged. sasl.State has a mutex of its own.
package cluster
