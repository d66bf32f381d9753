package kafkatest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A request is one frame from a client.
type request struct {
	key, version int16
	corr         int32
	clientID     *string
	frame        []byte // with its length
	body         []byte // after the header
	fault        *Injection
	login        *verdict // of a SaslAuthenticate that kfake is to confirm
	answered     atomic.Bool
	ends         map[place]*kfake.PartitionInfo // of an OffsetForLeaderEpoch, where the logs end
}

func parse(frame []byte) (*request, error) {
	b := kbin.Reader{Src: frame[4:]}
	r := &request{key: b.Int16(), version: b.Int16(), corr: b.Int32(), clientID: b.NullableString(), frame: frame}
	if !b.Ok() {
		return nil, errors.New("kafkatest: request without a header")
	}
	kind := kmsg.RequestForKey(r.key)
	if kind == nil {
		return nil, fmt.Errorf("kafkatest: request of unknown kind %d", r.key)
	}
	if kind.SetVersion(r.version); kind.IsFlexible() {
		kmsg.SkipTags(&b)
	}
	r.body = b.Src
	return r, nil
}

// decode returns the request with its fields.
func (r *request) decode() (kmsg.Request, error) {
	req := kmsg.RequestForKey(r.key)
	req.SetVersion(r.version)
	return req, req.ReadFrom(r.body)
}

// replace returns the frame of another request in r's place.
func (r *request) replace(req kmsg.Request) []byte {
	b := binary.BigEndian.AppendUint16(make([]byte, 4), uint16(r.key))
	b = binary.BigEndian.AppendUint16(b, uint16(r.version))
	b = binary.BigEndian.AppendUint32(b, uint32(r.corr))
	b = kbin.AppendNullableString(b, r.clientID)
	if req.IsFlexible() {
		b = append(b, 0)
	}
	return sized(req.AppendTo(b))
}

// respond returns the frame of a response to r.
func (r *request) respond(resp kmsg.Response) []byte {
	resp.SetVersion(r.version)
	b := binary.BigEndian.AppendUint32(make([]byte, 4), uint32(r.corr))
	if resp.IsFlexible() && r.key != int16(kmsg.ApiVersions) {
		b = append(b, 0)
	}
	return sized(resp.AppendTo(b))
}

// refusal returns a response to r that is an error and nothing else.
func (r *request) refusal(e *kerr.Error) kmsg.Response {
	resp := kmsg.ResponseForKey(r.key)
	resp.SetVersion(r.version)
	setErrors(resp, e.Code)
	return resp
}

// response returns the response in a frame of kfake's with its fields.
func (r *request) response(frame []byte) (kmsg.Response, error) {
	resp := kmsg.ResponseForKey(r.key)
	resp.SetVersion(r.version)
	b := frame[8:]
	if resp.IsFlexible() && r.key != int16(kmsg.ApiVersions) && len(b) > 0 {
		b = b[1:] // kfake sends no tags in the header
	}
	return resp, resp.ReadFrom(b)
}

func sized(frame []byte) []byte {
	binary.BigEndian.PutUint32(frame, uint32(len(frame)-4))
	return frame
}
