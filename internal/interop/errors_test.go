//go:build unix

package interop

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/gracedb-go/gracedb"
	"github.com/gracedb-go/gracedb/internal/testauth"
)

// kinds are all that an error can be of.
var kinds = map[string]error{
	"ErrKafka": gracedb.ErrKafka, "ErrProducer": gracedb.ErrProducer, "ErrDelivery": gracedb.ErrDelivery,
	"ErrTooLarge": gracedb.ErrTooLarge, "ErrOutcomeUnknown": gracedb.ErrOutcomeUnknown, "ErrConsumer": gracedb.ErrConsumer,
	"ErrAuthentication": gracedb.ErrAuthentication, "ErrToken": gracedb.ErrToken, "ErrConnection": gracedb.ErrConnection,
	"ErrTopic": gracedb.ErrTopic, "ErrClosed": gracedb.ErrClosed, "ErrConfig": gracedb.ErrConfig,
	"ErrEvent": gracedb.ErrEvent, "ErrNotUpload": gracedb.ErrNotUpload,
}

// checkKinds wants err to be of exactly these kinds, but for those with a question
// mark, in one line that says all of texts. Whether what a constructor says is
// ErrDelivery is of no interest: nothing was there to be delivered.
func checkKinds(t *testing.T, what string, err error, want string, texts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error, want %s", what, want)
		return
	}
	for name, kind := range kinds {
		if strings.Contains(want, name+"?") {
			continue
		}
		if wanted := strings.Contains(" "+want+" ", " "+name+" "); errors.Is(err, kind) != wanted {
			t.Errorf("%s: is %s: %v, want %v: %v", what, name, !wanted, wanted, err)
		}
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %q does not say %q", what, err, text)
		}
	}
	if strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "eyJ") || !strings.HasPrefix(err.Error(), "gracedb: ") {
		t.Errorf("%s: %q", what, err)
	}
}

// use returns the first error of a producer, and that of a consumer, from the
// constructor to a message in topic.
func use(ctx context.Context, cluster gracedb.Cluster, topic string) (producing, consuming error) {
	produce := func() error {
		p, err := gracedb.NewProducer(ctx, gracedb.ProducerConfig{Cluster: cluster, Topic: topic})
		if err != nil {
			return err
		}
		defer func() { _ = p.Close() }()
		_, err = p.ProduceSync(ctx, gracedb.Message{Topic: topic, Value: []byte("{}")})
		return err
	}
	consume := func() error {
		c, err := gracedb.NewConsumer(ctx, gracedb.ConsumerConfig{Cluster: cluster, Topics: []string{topic}, FromBeginning: true})
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		_, err = c.Poll(ctx)
		return err
	}
	return produce(), consume()
}

func TestRefusedTokensAreAuthenticationErrors(t *testing.T) {
	ctx, s := need(t)
	stranger, err := testauth.NewIssuer(s.kafka.Issuer.URL())
	must(t, err)
	forged, err := stranger.Token(testauth.Claims{})
	must(t, err)
	good := s.token(t, testauth.Claims{})
	head, sig := good[:strings.LastIndexByte(good, '.')+1], []byte(good[strings.LastIndexByte(good, '.')+1:])
	if sig[10]++; sig[10]&^0x20 < 'A' || sig[10]&^0x20 > 'Z' {
		sig[10] = 'A' // still a letter, but another
	}

	for name, token := range map[string]string{
		"wrong audience":       s.token(t, testauth.Claims{Audience: []string{"https://elsewhere.test"}}),
		"wrong issuer":         s.token(t, testauth.Claims{Extra: map[string]any{"iss": "https://elsewhere.test"}}),
		"signature of another": forged,
		"bad signature":        head + string(sig),
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
			defer cancel()
			cluster := s.cluster(t, testauth.Claims{})
			cluster.Token = gracedb.StaticToken(token)
			began := time.Now()
			producing, consuming := use(ctx, cluster, "test")
			checkKinds(t, "producer", producing, "ErrKafka ErrProducer ErrAuthentication", "invalid_token")
			checkKinds(t, "consumer", consuming, "ErrKafka ErrConsumer ErrAuthentication", "invalid_token")
			// Two constructors, which do not wait a refusal out.
			if took := time.Since(began); took > 2*5*time.Second {
				t.Errorf("took %v", took)
			} else {
				t.Logf("took %v", took)
			}
		})
	}
}

// An expired token is not sent: the broker never has to refuse it.
func TestExpiredTokensAreTokenErrors(t *testing.T) {
	ctx, s := need(t)
	hourAgo := testauth.Claims{IssuedAt: time.Now().Add(-2 * time.Hour), Expires: time.Now().Add(-time.Hour)}
	producing, consuming := use(ctx, s.cluster(t, hourAgo), "test")
	checkKinds(t, "producer", producing, "ErrKafka ErrProducer ErrAuthentication ErrToken", "expired 1h")
	checkKinds(t, "consumer", consuming, "ErrKafka ErrConsumer ErrAuthentication ErrToken", "expired 1h")
}

func TestTokensNotFoundAreTokenErrors(t *testing.T) {
	ctx, s := need(t)
	for _, name := range []string{"SCITOKEN", "SCITOKEN_FILE", "_CONDOR_CREDS", "BEARER_TOKEN"} {
		t.Setenv(name, "")
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "token")
	t.Setenv("BEARER_TOKEN_FILE", file)
	t.Setenv("XDG_RUNTIME_DIR", dir)
	t.Setenv("TMPDIR", dir)
	const hint = "htgettoken -a vault.ligo.org -i igwn"
	for _, tt := range []struct{ name, token, text string }{
		{"no token", "", "no such file"},
		{"an expired token", s.token(t, testauth.Claims{IssuedAt: time.Now().Add(-2 * time.Hour), Expires: time.Now().Add(-time.Hour)}), "expired"},
		{"not a token", "-", file},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_ = os.Remove(file)
			if tt.token != "" {
				must(t, os.WriteFile(file, []byte(tt.token), 0o600))
			}
			cluster := s.cluster(t, testauth.Claims{})
			cluster.Token = nil
			producing, consuming := use(ctx, cluster, "test")
			checkKinds(t, "producer", producing, "ErrKafka ErrProducer ErrAuthentication ErrToken", file, tt.text, hint)
			checkKinds(t, "consumer", consuming, "ErrKafka ErrConsumer ErrAuthentication ErrToken", file, tt.text, hint)
		})
	}
}

func TestTopicsMissingOrForbiddenAreTopicErrors(t *testing.T) {
	ctx, s := need(t)
	known := "topics of instance " + s.instance + ": "
	for _, tt := range []struct {
		name, user, topic string
		texts             []string
		cause             error
	}{
		{"a missing topic", "alice", "nosuch", []string{s.topic("nosuch"), known}, kerr.UnknownTopicOrPartition},
		// Whoever may not see a topic is not told whether it exists.
		{"a topic that may not be seen", "carol", "test", []string{s.topic("test"), "the token's sub is carol"}, kerr.TopicAuthorizationFailed},
		{"a missing topic that may not be seen", "carol", "nosuch", []string{s.topic("nosuch"), "carol"}, kerr.TopicAuthorizationFailed},
		{"a topic that may only be seen", "bob", "test", []string{s.topic("test"), "bob"}, kerr.TopicAuthorizationFailed},
		// Without the right to write to any topic there is no producer id either.
		{"topics that may only be seen", "dave", "test", []string{s.topic("test"), "dave"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
			defer cancel()
			producing, consuming := use(ctx, s.cluster(t, testauth.Claims{Subject: tt.user}), tt.topic)
			checkKinds(t, "producer", producing, "ErrKafka ErrProducer ErrDelivery? ErrTopic", tt.texts...)
			checkKinds(t, "consumer", consuming, "ErrKafka ErrConsumer ErrTopic", tt.texts...)
			for _, err := range []error{producing, consuming} {
				if tt.cause != nil && !errors.Is(err, tt.cause) {
					t.Errorf("%v is not %v", err, tt.cause)
				}
			}
		})
	}
}

func TestTokensThatGraceDBRefusesAreAuthenticationErrors(t *testing.T) {
	_, s := need(t)
	for name, tt := range map[string]struct {
		claims testauth.Claims
		want   string
		sent   bool
	}{
		"expired": {
			testauth.Claims{IssuedAt: time.Now().Add(-2 * time.Hour), Expires: time.Now().Add(-time.Hour)},
			"ErrAuthentication ErrToken", false,
		},
		"scope": {testauth.Claims{Scope: "read:/frames"}, "ErrAuthentication", true},
	} {
		t.Run(name, func(t *testing.T) {
			client, err := gracedb.NewClient(gracedb.ClientConfig{
				ServiceURL: s.grace.URL(), CAFile: s.caFile(t), Token: gracedb.StaticToken(s.token(t, tt.claims)),
			})
			must(t, err)
			_, err = client.Reserve(t.Context(), gracedb.Event{Group: "CBC", Pipeline: "gstlal", Filename: "coinc.xml", Data: []byte("<x/>")})
			checkKinds(t, "reserve", err, tt.want)
			if _, ok := errors.AsType[*gracedb.StatusError](err); ok != tt.sent {
				t.Errorf("%T: a *StatusError: %v, want %v", err, ok, tt.sent)
			}
		})
	}
}
