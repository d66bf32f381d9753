package kafkatest

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/gracedb-go/gracedb/internal/testauth"
)

// A session is what Kafka's SaslServerAuthenticator remembers of a connection.
type session struct {
	stage     stage
	versions  bool      // ApiVersions is answered, which is done once before the handshake
	subject   string    // the principal; empty until the first login
	expires   time.Time // a request after it ends the connection
	reauth    time.Time // when the last re-authentication began
	challenge string    // the JSON that the client has still to answer with %x01
}

type stage int

const (
	fresh      stage = iota // ApiVersions or SaslHandshake
	handshaken              // SaslAuthenticate
	open                    // anything, until the session expires
)

// A Login is an attempt to authenticate.
type Login struct {
	At       time.Time
	Node     int32
	Conn     int64
	Again    bool          // on a connection that was authenticated before
	Subject  string        // if it is known
	Lifetime time.Duration // of the session; zero if refused
	Refused  string        // why, or empty
}

// A Refusal is how tokens are turned down although they may be good.
type Refusal struct {
	// Status, Scope and OpenIDConfiguration are the members of the JSON
	// challenge; Status is "invalid_token" if empty, the others are left out.
	Status, Scope, OpenIDConfiguration string
	// Direct is error 58 at once, without a challenge, as for a first message
	// that Kafka cannot read.
	Direct bool
	// Match chooses among the tokens that are good; if nil, all.
	Match func(token string, claims testauth.Claims) bool
	// Count is how many are refused; if zero, all until AcceptTokens.
	Count int
}

// logins is how tokens are judged at the moment, and what came of it.
type logins struct {
	mu       sync.Mutex
	refusal  *Refusal
	lifetime *int64
	list     []Login
	accepted int
	refused  int
}

// keptLogins bounds what a cluster that runs for weeks remembers.
const keptLogins = 10_000

// RefuseTokens turns tokens down from now on. Sessions that are open go on until
// they have to authenticate again.
func (c *Cluster) RefuseTokens(r Refusal) {
	c.logins.mu.Lock()
	defer c.logins.mu.Unlock()
	c.logins.refusal = &r
}

// AcceptTokens ends RefuseTokens.
func (c *Cluster) AcceptTokens() {
	c.logins.mu.Lock()
	defer c.logins.mu.Unlock()
	c.logins.refusal = nil
}

// TellLifetime makes the broker say that sessions last for ms milliseconds,
// whatever that is. They end when they would have ended.
func (c *Cluster) TellLifetime(ms int64) {
	c.logins.mu.Lock()
	defer c.logins.mu.Unlock()
	c.logins.lifetime = &ms
}

// TellTrueLifetime ends TellLifetime.
func (c *Cluster) TellTrueLifetime() {
	c.logins.mu.Lock()
	defer c.logins.mu.Unlock()
	c.logins.lifetime = nil
}

// Logins returns the attempts to authenticate, oldest first, the latest 10,000.
func (c *Cluster) Logins() []Login {
	c.logins.mu.Lock()
	defer c.logins.mu.Unlock()
	return slices.Clone(c.logins.list)
}

// LoginCounts returns how many attempts to authenticate there were.
func (c *Cluster) LoginCounts() (accepted, refused int) {
	c.logins.mu.Lock()
	defer c.logins.mu.Unlock()
	return c.logins.accepted, c.logins.refused
}

func (l *logins) add(entry Login) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if entry.Refused == "" {
		l.accepted++
	} else {
		l.refused++
	}
	if len(l.list) == 2*keptLogins {
		l.list = slices.Delete(l.list, 0, keptLogins)
	}
	l.list = append(l.list, entry)
}

// state returns the connection's session.
func (c *conn) state() session {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.session
}

func (c *conn) update(change func(*session)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.session)
}

var (
	errSequence = errors.New("kafkatest: not what Kafka answers in a SASL exchange")
	errExpired  = errors.New("kafkatest: session expired")
)

// admit decides what kfake is to see of a request: nothing if conn has answered.
// An error ends the connection. What Kafka does is recorded in exchange_test.go.
func (c *conn) admit(r *request) ([]byte, error) {
	s, key := c.state(), kmsg.Key(r.key)
	switch s.stage {
	case fresh:
		switch {
		case key == kmsg.SASLHandshake:
			return c.handshake(r, s)
		case key == kmsg.ApiVersions && !s.versions:
			return r.frame, nil
		}
		return nil, errSequence
	case handshaken:
		if key == kmsg.SASLAuthenticate {
			return c.authenticate(r, s)
		}
		return nil, c.dismiss(r, r.refusal(kerr.IllegalSaslState))
	}
	now := time.Now()
	if key == kmsg.SASLHandshake && now.Sub(s.reauth) >= time.Second {
		return c.handshake(r, s)
	}
	if !now.Before(s.expires) {
		return nil, errExpired
	}
	switch key {
	case kmsg.SASLHandshake: // not more than one a second
		return nil, c.answer(r, r.refusal(kerr.IllegalSaslState))
	case kmsg.SASLAuthenticate:
		resp := kmsg.NewPtrSASLAuthenticateResponse()
		resp.ErrorCode = kerr.IllegalSaslState.Code
		resp.ErrorMessage = new("SaslAuthenticate request received after successful authentication")
		return nil, c.answer(r, resp)
	}
	return r.frame, nil
}

// handshake begins an authentication, or one more on a connection that is
// authenticated.
func (c *conn) handshake(r *request, s session) ([]byte, error) {
	req, err := r.decode()
	if err != nil {
		return nil, err
	}
	handshake := req.(*kmsg.SASLHandshakeRequest)
	if handshake.Mechanism != "OAUTHBEARER" {
		if s.stage == open {
			return nil, errSequence
		}
		resp := kmsg.NewPtrSASLHandshakeResponse()
		resp.ErrorCode = kerr.UnsupportedSaslMechanism.Code
		resp.SupportedMechanisms = []string{"OAUTHBEARER"}
		return nil, c.dismiss(r, resp)
	}
	c.update(func(s *session) {
		if s.stage == open {
			s.reauth = time.Now()
		}
		s.stage = handshaken
	})
	handshake.Mechanism = "PLAIN"
	return r.replace(handshake), nil
}

// authenticate judges a token. kfake gets to see only a good one, in the shape of
// a user name and the password that goes with all of them.
func (c *conn) authenticate(r *request, s session) ([]byte, error) {
	req, err := r.decode()
	if err != nil {
		return nil, err
	}
	auth := req.(*kmsg.SASLAuthenticateRequest)
	resp := kmsg.NewPtrSASLAuthenticateResponse()
	if s.challenge != "" && bytes.Equal(auth.SASLAuthBytes, []byte{1}) {
		resp.ErrorCode, resp.ErrorMessage = kerr.SaslAuthenticationFailed.Code, &s.challenge
		return nil, c.dismiss(r, resp)
	}
	login, refused := c.n.c.judge(auth.SASLAuthBytes, s.subject)
	login.At, login.Node, login.Conn, login.Again = time.Now(), c.n.id, c.id, s.subject != ""
	if refused != nil {
		c.n.c.logins.add(login.Login)
		if refused.direct != "" {
			resp.ErrorCode, resp.ErrorMessage = kerr.SaslAuthenticationFailed.Code, &refused.direct
			return nil, c.dismiss(r, resp)
		}
		if refused.challenge == "" {
			return nil, errSequence
		}
		c.update(func(s *session) { s.challenge = refused.challenge })
		resp.SASLAuthBytes = []byte(refused.challenge)
		return nil, c.answer(r, resp)
	}
	c.update(func(s *session) { s.challenge = "" })
	r.login = &login
	auth.SASLAuthBytes = []byte("\x00" + c.n.c.user(login.Subject) + "\x00" + password)
	return r.replace(auth), nil
}

// finish completes in kfake's answer what kfake does not know.
func (c *conn) finish(r *request, frame []byte) ([]byte, error) {
	switch kmsg.Key(r.key) {
	default:
		return frame, nil
	case kmsg.ApiVersions: // of whatever version, the error code is the first member
		if len(frame) >= 10 && frame[8] == 0 && frame[9] == 0 {
			c.update(func(s *session) { s.versions = true })
		}
		return frame, nil
	case kmsg.SASLHandshake, kmsg.SASLAuthenticate, kmsg.Heartbeat, kmsg.Metadata,
		kmsg.OffsetForLeaderEpoch, kmsg.InitProducerID, kmsg.DescribeGroups:
	}
	resp, err := r.response(frame)
	if err != nil {
		return nil, err
	}
	switch resp := resp.(type) {
	case *kmsg.MetadataResponse:
		c.n.c.leaderless.tell(resp)
		hideRights(resp)
		if err := c.n.c.lag.tell(c.n.id, r, resp); err != nil {
			return nil, err
		}
	case *kmsg.DescribeGroupsResponse:
		for i := range resp.Groups {
			if resp.Groups[i].ErrorCode != 0 {
				resp.Groups[i].AuthorizedOperations = notTold
			}
		}
	case *kmsg.OffsetForLeaderEpochResponse:
		if err := r.endEpochs(resp); err != nil {
			return nil, err
		}
	case *kmsg.InitProducerIDResponse:
		if err := c.giveProducer(r, resp); err != nil {
			return nil, err
		}
	case *kmsg.HeartbeatResponse: // a group without members is none to kfake
		if resp.ErrorCode == kerr.GroupIDNotFound.Code {
			resp.ErrorCode = kerr.UnknownMemberID.Code
			if !c.mayReadGroup(r) { // which Kafka looks at first
				resp.ErrorCode = kerr.GroupAuthorizationFailed.Code
			}
		}
	case *kmsg.SASLHandshakeResponse:
		resp.SupportedMechanisms = []string{"OAUTHBEARER"}
	case *kmsg.SASLAuthenticateResponse:
		if resp.ErrorCode == 0 && r.login != nil {
			c.openSession(r, resp)
		}
	}
	return r.respond(resp), nil
}

// openSession notes that the client is logged in, and tells how long its session lasts.
func (c *conn) openSession(r *request, resp *kmsg.SASLAuthenticateResponse) {
	now := time.Now()
	life := max(0, r.login.expires.Sub(now))
	if m := c.n.c.cfg.MaxSession; m > 0 {
		life = min(life, m)
	}
	r.login.Lifetime = life
	c.update(func(s *session) {
		s.stage, s.subject, s.expires = open, r.login.Subject, now.Add(life)
	})
	c.n.c.logins.add(r.login.Login)
	resp.SessionLifetimeMillis = life.Milliseconds()
	c.n.c.logins.mu.Lock()
	if told := c.n.c.logins.lifetime; told != nil {
		resp.SessionLifetimeMillis = *told
	}
	c.n.c.logins.mu.Unlock()
}

// failureDelay is connection.failed.authentication.delay.ms: Kafka thinks it over
// before it answers, and then closes the connection.
const failureDelay = 100 * time.Millisecond

var errDismissed = errors.New("kafkatest: authentication failed")

func (c *conn) dismiss(r *request, resp kmsg.Response) error {
	if err := c.wait(failureDelay); err != nil {
		return err
	}
	return errors.Join(errDismissed, c.answer(r, resp))
}

// notTold stands for the operations that Kafka does not tell: those on what it answers an error
// for. kfake tells them.
const notTold = math.MinInt32

func hideRights(resp *kmsg.MetadataResponse) {
	for i := range resp.Topics {
		if t := &resp.Topics[i]; t.ErrorCode == kerr.TopicAuthorizationFailed.Code {
			t.AuthorizedOperations = notTold
		}
	}
}

// mayReadGroup reports whether who sent a Heartbeat has the right READ on the group.
func (c *conn) mayReadGroup(r *request) bool {
	if c.n.c.cfg.Subjects == nil {
		return true
	}
	beat, err := r.decode()
	if err != nil {
		return true // kfake says what is wrong
	}
	req := kmsg.NewPtrDescribeGroupsRequest()
	req.Groups, req.IncludeAuthorizedOperations = []string{beat.(*kmsg.HeartbeatRequest).Group}, true
	req.SetVersion(5)
	for _, n := range c.n.c.nodes { // one of them coordinates the group
		answer, err := c.n.c.askAs(n, c.n.c.user(c.state().subject), req)
		if err != nil {
			continue
		}
		for _, g := range answer.(*kmsg.DescribeGroupsResponse).Groups {
			if g.ErrorCode == 0 || g.ErrorCode == kerr.GroupAuthorizationFailed.Code {
				return g.ErrorCode == 0 && g.AuthorizedOperations&(1<<kmsg.ACLOperationRead) != 0
			}
		}
	}
	return true
}
