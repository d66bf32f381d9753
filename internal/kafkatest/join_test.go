package kafkatest

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A member of a group speaks for itself, request by request.
type member struct {
	conn       net.Conn
	id         string
	generation int32
	owns       []byte // what it says of itself when it joins
}

const sessionLife = 6 * time.Second

// join asks to join the group.
func (m *member) join(t *testing.T) {
	t.Helper()
	req := kmsg.NewPtrJoinGroupRequest()
	req.Version = 2
	req.Group, req.MemberID, req.ProtocolType = "g", m.id, "consumer"
	req.SessionTimeoutMillis, req.RebalanceTimeoutMillis = int32(sessionLife/time.Millisecond), 60_000
	req.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range", Metadata: m.owns}}
	m.ask(t, req)
}

// joined waits until it has joined, and returns how many members the group has, which
// only the leader is told.
func (m *member) joined(t *testing.T) int {
	t.Helper()
	resp := &kmsg.JoinGroupResponse{Version: 2}
	m.hear(t, resp)
	if resp.ErrorCode != 0 {
		t.Fatal("JoinGroup: ", kerr.ErrorForCode(resp.ErrorCode))
	}
	m.id, m.generation = resp.MemberID, resp.Generation
	return len(resp.Members)
}

// sync asks what is assigned to it or, as the leader, tells.
func (m *member) sync(t *testing.T, leader bool) {
	t.Helper()
	req := kmsg.NewPtrSyncGroupRequest()
	req.Group, req.MemberID, req.Generation = "g", m.id, m.generation
	if leader {
		req.GroupAssignment = []kmsg.SyncGroupRequestGroupAssignment{{MemberID: m.id}}
	}
	m.ask(t, req)
}

// synced waits for the answer.
func (m *member) synced(t *testing.T) error {
	t.Helper()
	resp := &kmsg.SyncGroupResponse{}
	m.hear(t, resp)
	return kerr.ErrorForCode(resp.ErrorCode)
}

// leads waits until it has joined as the leader, tells the others, and returns how many
// members there are.
func (m *member) leads(t *testing.T) int {
	t.Helper()
	n := m.joined(t)
	m.sync(t, true)
	if err := m.synced(t); err != nil {
		t.Fatal("SyncGroup: ", err)
	}
	return n
}

// two returns the members of a group, who have joined and do not know yet who gets what.
func two(t *testing.T, c *Cluster) (leader, other *member) {
	t.Helper()
	leader, other = &member{conn: opened(t, c)}, &member{conn: opened(t, c)}
	leader.join(t)
	leader.leads(t)
	other.join(t)
	synctest.Wait()
	if err := leader.beat(t); !errors.Is(err, kerr.RebalanceInProgress) {
		t.Fatalf("the group says %v to a heartbeat", err)
	}
	leader.join(t)
	if n := leader.joined(t); n != 2 {
		t.Fatalf("%d members", n)
	}
	other.joined(t)
	return leader, other
}

// beat returns what the group says to a heartbeat.
func (m *member) beat(t *testing.T) error {
	t.Helper()
	req := kmsg.NewPtrHeartbeatRequest()
	req.Group, req.MemberID, req.Generation = "g", m.id, m.generation
	m.ask(t, req)
	resp := &kmsg.HeartbeatResponse{}
	m.hear(t, resp)
	return kerr.ErrorForCode(resp.ErrorCode)
}

func (m *member) ask(t *testing.T, req kmsg.Request) {
	t.Helper()
	if err := m.conn.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := m.conn.Write(kmsg.NewRequestFormatter().AppendRequest(nil, req, 7)); err != nil {
		t.Fatal(err)
	}
}

func (m *member) hear(t *testing.T, resp kmsg.Response) {
	t.Helper()
	var size [4]byte
	if _, err := io.ReadFull(m.conn, size[:]); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, binary.BigEndian.Uint32(size[:]))
	if _, err := io.ReadFull(m.conn, body); err != nil {
		t.Fatal(err)
	}
	if err := resp.ReadFrom(body[4:]); err != nil {
		t.Fatal(err)
	}
}

// A member that is cut off while its JoinGroup is held until the others have joined,
// too, is a member from then on; and as it says nothing, only until its session ends.
func TestCutOffWhileJoining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, Config{Virtual: true, Plaintext: true})
		stays, leaves := &member{conn: opened(t, c)}, &member{conn: opened(t, c)}
		stays.join(t)
		if n := stays.leads(t); n != 1 {
			t.Fatalf("%d members", n)
		}
		leaves.join(t)
		synctest.Wait()
		_ = leaves.conn.Close()
		synctest.Wait()
		if err := stays.beat(t); !errors.Is(err, kerr.RebalanceInProgress) {
			t.Fatalf("the group says %v to a heartbeat", err)
		}
		stays.join(t)
		if n := stays.leads(t); n != 2 {
			t.Errorf("%d members after the one was cut off, want 2", n)
		}
		joined := time.Now()
		for stays.beat(t) == nil && time.Since(joined) < 10*sessionLife {
			time.Sleep(time.Second)
		}
		stays.join(t)
		if n := stays.leads(t); n != 1 {
			t.Errorf("%d members after its session, want 1", n)
		}
		if took := time.Since(joined); took < sessionLife || took > sessionLife+time.Second {
			t.Errorf("its session lasted %v, want %v", took, sessionLife)
		}
	})
}

// A member waits for a leader that says nothing, is cut off and joins again: it is in the
// group alone as soon as the leader's session has ended.
func TestCutOffWhileSyncing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, Config{Virtual: true, Plaintext: true})
		_, other := two(t, c)
		joined := time.Now()
		time.Sleep(sessionLife / 2)
		if err := other.beat(t); err != nil {
			t.Fatal(err)
		}
		other.sync(t, false)
		synctest.Wait()
		_ = other.conn.Close()
		synctest.Wait()
		other.conn, other.owns = opened(t, c), []byte("nothing any more") // else it is where it was
		other.join(t)
		if n := other.leads(t); n != 1 {
			t.Errorf("%d members, want 1", n)
		}
		if took := time.Since(joined); took < sessionLife || took > sessionLife+time.Second {
			t.Errorf("the leader's session lasted %v, want %v", took, sessionLife)
		}
	})
}

// A member waits to join for longer than its session, since another says that it is
// there, and does not join: it is not left without an answer.
func TestSessionEndsWhileJoining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, Config{Virtual: true, Plaintext: true})
		leader, other := two(t, c)
		leader.sync(t, true)
		if err := leader.synced(t); err != nil {
			t.Fatal("SyncGroup: ", err)
		}
		other.owns = []byte("something else")
		other.join(t)
		synctest.Wait() // until the group has heard of it
		began := time.Now()
		told := make(chan time.Duration, 1)
		go func() {
			_, _ = io.ReadAll(other.conn)
			told <- time.Since(began)
		}()
		for time.Since(began) < 3*sessionLife {
			if err := leader.beat(t); !errors.Is(err, kerr.RebalanceInProgress) {
				t.Fatalf("the group says %v to a heartbeat", err)
			}
			time.Sleep(time.Second)
		}
		select {
		case after := <-told:
			if after > sessionLife+2*joinPoll {
				t.Errorf("the member's connection has ended after %v, its session is %v", after, sessionLife)
			}
		default:
			t.Error("the member has no answer")
		}
	})
}

// Members that wait for their leader are told when it has spoken.
func TestSyncBeforeTheLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, Config{Virtual: true, Plaintext: true})
		leader, other := two(t, c)
		other.sync(t, false)
		time.Sleep(time.Second)
		began := time.Now()
		leader.sync(t, true)
		for _, m := range []*member{leader, other} {
			if err := m.synced(t); err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(began); took > 2*syncPoll {
			t.Errorf("it took %v", took)
		}
	})
}

// To Kafka nobody is a member of a group that is not known.
func TestHeartbeatOfUnknownGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, Config{Virtual: true, Plaintext: true})
		m := &member{conn: opened(t, c), id: "nobody", generation: 1}
		if err := m.beat(t); !errors.Is(err, kerr.UnknownMemberID) {
			t.Errorf("the answer is %v", err)
		}
	})
}

// Who asks for a group while the cluster closes is not left waiting.
func TestGroupOfAClosedCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, Config{Virtual: true, Plaintext: true})
		two(t, c)
		if c.groupInfo("g") == nil {
			t.Fatal("no group")
		}
		c.Close()
		if g := c.groupInfo("g"); g != nil {
			t.Errorf("group %v", g)
		}
	})
}
