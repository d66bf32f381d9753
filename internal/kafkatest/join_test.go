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
}

const sessionLife = 6 * time.Second

// join asks to join the group.
func (m *member) join(t *testing.T) {
	t.Helper()
	req := kmsg.NewPtrJoinGroupRequest()
	req.Version = 2
	req.Group, req.MemberID, req.ProtocolType = "g", m.id, "consumer"
	req.SessionTimeoutMillis, req.RebalanceTimeoutMillis = int32(sessionLife/time.Millisecond), 60_000
	req.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range"}}
	m.ask(t, req)
}

// joined waits until it has joined, and returns how many members the group has, which
// its first member, the leader, is told.
func (m *member) joined(t *testing.T) int {
	t.Helper()
	resp := &kmsg.JoinGroupResponse{Version: 2}
	m.hear(t, resp)
	if resp.ErrorCode != 0 {
		t.Fatal("JoinGroup: ", kerr.ErrorForCode(resp.ErrorCode))
	}
	m.id, m.generation = resp.MemberID, resp.Generation
	sync := kmsg.NewPtrSyncGroupRequest()
	sync.Group, sync.MemberID, sync.Generation = "g", m.id, m.generation
	m.ask(t, sync)
	m.hear(t, &kmsg.SyncGroupResponse{})
	return len(resp.Members)
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
		if n := stays.joined(t); n != 1 {
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
		if n := stays.joined(t); n != 2 {
			t.Errorf("%d members after the one was cut off, want 2", n)
		}
		joined := time.Now()
		for stays.beat(t) == nil && time.Since(joined) < 10*sessionLife {
			time.Sleep(time.Second)
		}
		stays.join(t)
		if n := stays.joined(t); n != 1 {
			t.Errorf("%d members after its session, want 1", n)
		}
		if took := time.Since(joined); took < sessionLife || took > sessionLife+time.Second {
			t.Errorf("its session lasted %v, want %v", took, sessionLife)
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
