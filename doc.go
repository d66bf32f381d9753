// Package gracedb publishes gravitational-wave events to GraceDB over Kafka,
// consumes them, and uploads them over HTTP, authenticating with SciTokens.
//
// # Publishing an event
//
// A [Client] speaks to GraceDB over HTTP, a [Producer] to Kafka. PublishEvent
// reserves a graceid with the one, publishes the event with the other, and returns
// once a broker has acknowledged it:
//
//	client, err := gracedb.NewClient(gracedb.ClientConfig{ServiceURL: "https://gracedb-test.ligo.org/api/"})
//	producer, err := client.NewProducer(ctx, gracedb.ProducerConfig{
//		Cluster: gracedb.Cluster{Brokers: []string{"kafka.example.org:9092"}},
//		Topic:   "test",
//	})
//	defer producer.Close()
//	receipt, err := client.PublishEvent(ctx, producer, event, gracedb.PublishOptions{HTTPFallback: true})
//
// Make both once and keep them: they are safe for concurrent use, and a Producer
// stays connected and warm, so that the event after a quiet night is as fast as
// the one before. A constructor that returns is ready; what is wrong with the
// token, the network or the topics shows there, not at the first event.
//
// With HTTPFallback the event goes to the reserved graceid over HTTP when Kafka
// does not take it, and [Receipt].Fallback says why; so it does without a Producer, for
// a program that starts while NewProducer fails. An error after the reservation
// is a [*ReservedError], which holds the graceid.
//
// An event that Kafka took is uploaded to its graceid by GraceDB's supervisor, a
// little later. Until then, followers of GraceDB drop alerts about it, such as that
// of a label, for good: who writes the label that they wait for calls
// [Client.WaitUploaded] before. Who only publishes need not.
//
// # Consuming
//
// A [Consumer] yields messages. Whatever is published after NewConsumer has
// returned is received:
//
//	consumer, err := gracedb.NewConsumer(ctx, gracedb.ConsumerConfig{Cluster: cluster, Topics: []string{"gstlal", "pycbc"}})
//	defer consumer.Close()
//	for message, err := range consumer.Stream(ctx) {
//		if err != nil {
//			return err
//		}
//		upload, err := message.Upload()
//		...
//	}
//
// With a GroupID the position survives the program. A message counts as done when
// the next one is asked for; [Consumer.Commit] stores that earlier. A program that
// is killed, that panics or breaks out of the loop receives the message at hand
// again, and a producer that does not know what became of an event may send it twice:
// handle messages so that twice is harmless. [Upload.Save] is. [Upload.ID] names an
// event, those of PublishOnly without a graceid, too; remember it once the event was
// handled, not before, and as many of them as doubles may be apart.
//
// # Stopping
//
// This package catches no signals; the program that owns them ends the loop through
// the context, and Stream ends without an error:
//
//	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
//	defer stop()
//
// Close what was opened: a Producer waits, for at most FlushTimeout, for what is
// queued and says what was not delivered; a Consumer leaves its group.
//
// # Tokens
//
// Brokers and servers know you by a SciToken. Get one with
//
//	htgettoken -a vault.ligo.org -i igwn
//
// and it is found: a Token that is left nil is [FindToken], kept by [ReloadToken]
// until five minutes before it expires. FindToken looks, in this order, at
//
//   - the variable SCITOKEN, and the file that SCITOKEN_FILE names
//   - the *.use files in the directory that _CONDOR_CREDS names: HTCondor sets it in
//     jobs that ask for a token (use_oauth_services = igwn), and renews the files
//   - the variable BEARER_TOKEN, and the file that BEARER_TOKEN_FILE names
//   - bt_u<uid> in the directory that XDG_RUNTIME_DIR names, then in /tmp
//
// and takes the token that suits best: first by audience and scope, then by place.
// One that suits less is used, with a warning to the logger, if there is no other:
// the receiver decides what it is worth. One that has expired is never used, and
// nobody is ever anonymous without saying so. A place that holds something
// unusable does not hide the next one. If none has a token, the error, an
// [ErrToken], names each place and what is wrong there, and never shows a token.
//
// In Kubernetes, mount the secret and point BEARER_TOKEN_FILE at it; the links that
// Kubernetes swaps when it renews a secret are followed. Prefer files to variables
// everywhere: a variable cannot be renewed while the program runs, and can be read
// in /proc. Files should be yours and have mode 0600. Others' modes are warned of;
// in XDG_RUNTIME_DIR and /tmp, a file of another user's (other than root) is
// refused, as is a link in /tmp.
//
// Nothing has to be restarted or called when a token is renewed. ReloadToken asks
// where the token was found whenever the library connects, or authenticates again,
// within five minutes of the expiry, and after a refusal. A file that is missing,
// empty or half written at that moment does no harm: the old token serves until it
// expires, and the file is looked at again at most every five seconds. After that,
// calls wait for a new token (those of a Producer and PublishEvent for AuthGrace, a
// Client's others for 5 seconds), then fail with ErrToken, and work again as soon as
// there is one.
//
// A token from elsewhere is a function:
//
//	cluster.Token = gracedb.ReloadToken(func(ctx context.Context) (string, error) {
//		return vault.Read(ctx, "igwn")
//	}, 5*time.Minute)
//
// # Networks and containers
//
// Requests to GraceDB go through the proxy that HTTPS_PROXY names, unless NO_PROXY
// excepts GraceDB. Connections to brokers go through no proxy: they need a direct way
// to each broker, under the names that brokers give each other, or a Dial in [Cluster]
// that makes one.
//
// A program that is built with CGO_ENABLED=0 needs nothing of the system that it runs
// on but this, which an empty container (FROM scratch) does not have:
//
//   - certificate authorities: /etc/ssl/certs/ca-certificates.crt of the package
//     ca-certificates, or a file that SSL_CERT_FILE or CAFile names
//   - a token: a file that is mounted, and BEARER_TOKEN_FILE with its name
//   - /etc/resolv.conf, which container runtimes provide
//
// No /tmp, home directory or entry for the user is needed.
//
// # What becomes of a message
//
// Each message has one of three outcomes. It was acknowledged: then it is in the
// log, once. The error is [ErrDelivery]: then it was not written and will not be,
// and may be sent again. Or the error is [ErrOutcomeUnknown]: no answer came in
// time, and the message may have been written, or may still be until the Producer
// is closed. Sending it again may double it.
//
// Contexts bound every call, whatever brokers do. A Producer also waits out a
// refused or missing token for AuthGrace, since tokens are renewed by others; after
// that its calls fail with [ErrAuthentication] at once, while what is queued waits
// for a good token.
//
// # Errors
//
// Errors are in one line, name the topic, broker, file or limit that they are about,
// and hold no token. Test them with [errors.Is] for the kinds, such as [ErrTopic]
// or [ErrConnection], and with [errors.As] for [*ReservedError] and [*StatusError].
// An error has every kind that applies, and wraps the engine's own error.
//
// # Messages
//
// An event is the value of one record: a JSON object, whose members become an [Upload]
// by way of Message.Upload. The record's key is the graceid, or the content id if there
// is none, and it has no headers.
//
//	type                 "upload"; "new" of older producers   others are ErrNotUpload
//	gracedb_server       URL of the GraceDB it is for         Server
//	graceid              text, or null if only published      GraceID
//	submitter            text, or null                        Submitter
//	pipeline             text, in the submitter's case        Pipeline
//	gracedb_upload       false: only published                PublishOnly, turned round
//	skip_supervisor      true or false                        SkipSupervisor
//	labels               list of texts, or null               Labels
//	eventFile            list of name and contents in base64  Filename, Data
//	_producer_timestamp  seconds since 1970                   Time
//	content_id           UUID of the contents' SHA-256        ContentID
//	group                text                                 Group
//	search               text, left out if empty              Search
//	offline              left out if false                    Offline
//	replay_id            text, left out if empty              ReplayID
//	any other            undecoded                            Extra
//
// A ping, of Producer.Ping, has these:
//
//	type       "ping"
//	timestamp  seconds since 1970
//	client     "gracedb-go"
//	sub        the token's subject, or null
//	scope      the token's scope, or null
//
// docs/message.md in the repository has more, for consumers in other languages.
//
// # Compatibility
//
// Messages and requests are those of the Python package ligo-gracedb, whose
// consumers read what this package publishes and the other way round. A keyed
// message lands on the same partition from either. For each of that package's names,
// docs/from-python.md in the repository says what takes its place.
package gracedb
