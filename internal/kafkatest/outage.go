package kafkatest

import (
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Functions on nodes: with no ids, they concern all.

// Drop tears down all connections. Clients may connect again at once.
func (c *Cluster) Drop(how Cut, nodes ...int32) {
	for _, n := range c.pick(nodes) {
		n.drop(how)
	}
}

func (n *node) drop(how Cut) {
	n.mu.Lock()
	var conns []*conn
	for conn := range n.conns {
		conns = append(conns, conn)
	}
	n.mu.Unlock()
	for _, conn := range conns {
		conn.cut(how)
	}
}

// Refuse refuses new connections. Those that are open stay.
func (c *Cluster) Refuse(nodes ...int32) {
	for _, n := range c.pick(nodes) {
		n.shut()
	}
}

// Accept ends Refuse.
func (c *Cluster) Accept(nodes ...int32) error {
	for _, n := range c.pick(nodes) {
		n.mu.Lock()
		port, removed := n.port, n.removed
		n.mu.Unlock()
		if removed {
			continue // until Restart
		}
		if err := n.open(port); err != nil {
			return err
		}
	}
	return nil
}

// A Mute is a direction in which nothing gets through.
type Mute int

// The directions. MuteRequests|MuteResponses is both.
const (
	MuteRequests  Mute = 1 << iota // requests are swallowed before their work is done
	MuteResponses                  // responses are swallowed
)

// Mute makes brokers accept connections, TLS included, and swallow what crosses
// them. Mute(0) lifts it, for new connections: those that lost a frame stay silent
// for good, as they do behind a firewall that has forgotten them.
func (c *Cluster) Mute(m Mute, nodes ...int32) {
	for _, n := range c.pick(nodes) {
		n.mu.Lock()
		n.mute = m
		n.mu.Unlock()
	}
}

// Freeze lets no byte through in either direction, TLS handshakes included, as a
// broker that is stopped or a network that is cut. What is sent meanwhile arrives
// after Thaw.
func (c *Cluster) Freeze(nodes ...int32) {
	for _, n := range c.pick(nodes) {
		n.mu.Lock()
		if n.frozen == nil {
			n.frozen = make(chan struct{})
		}
		n.mu.Unlock()
	}
}

// Thaw ends Freeze.
func (c *Cluster) Thaw(nodes ...int32) {
	for _, n := range c.pick(nodes) {
		n.mu.Lock()
		if n.frozen != nil {
			close(n.frozen)
			n.frozen = nil
		}
		n.mu.Unlock()
	}
}

// Kill ends a broker as kill -9 does: its connections are reset, new ones refused,
// and the others take over its partitions. The last broker keeps them for its
// return.
func (c *Cluster) Kill(id int32) error {
	nodes := c.pick([]int32{id})
	if len(nodes) == 0 {
		return errNoNode
	}
	n := nodes[0]
	n.mu.Lock()
	removed := n.removed
	n.removed = true
	n.mu.Unlock()
	if removed {
		return nil
	}
	n.shut()
	n.drop(RST)
	c.appends.take()
	defer c.appends.give()
	c.appends.shutDoors(func(at door) bool { return at.node == id })
	if err := c.kfake.RemoveNode(id); err != nil {
		n.mu.Lock()
		n.removed = false // it is the last
		n.mu.Unlock()
	}
	return nil
}

// Restart brings a broker back that was killed.
func (c *Cluster) Restart(id int32) error {
	nodes := c.pick([]int32{id})
	if len(nodes) == 0 {
		return errNoNode
	}
	n := nodes[0]
	n.mu.Lock()
	port, removed := n.port, n.removed
	n.removed = false
	n.mu.Unlock()
	if !removed {
		return n.open(port)
	}
	_, _, err := c.kfake.AddNode(id, port)
	return err
}

// Advertise makes metadata name hostport as a broker's address; if it is empty,
// the true one again.
func (c *Cluster) Advertise(id int32, hostport string) {
	for _, n := range c.pick([]int32{id}) {
		n.mu.Lock()
		n.advertised = hostport
		n.mu.Unlock()
	}
}

// Move gives a broker another port. Its connections are cut, and Addrs names the
// new address.
func (c *Cluster) Move(id int32) error {
	for _, n := range c.pick([]int32{id}) {
		n.mu.Lock()
		port, removed := 0, n.removed
		if c.cfg.Virtual {
			port = n.port + 1000
		}
		n.mu.Unlock()
		if removed {
			return fmt.Errorf("kafkatest: node %d is not running", id)
		}
		n.shut()
		n.drop(FIN)
		if err := n.open(port); err != nil {
			return err
		}
	}
	return nil
}

var errInjected = errors.New("kafkatest: connection cut by a fault")

// setThrottle sets ThrottleMillis, if the response has it.
func setThrottle(resp kmsg.Response, d time.Duration) {
	if field := reflect.ValueOf(resp).Elem().FieldByName("ThrottleMillis"); field.IsValid() {
		field.SetInt(d.Milliseconds())
	}
}

// setErrors sets each error code in a response: of the whole and of all its parts.
func setErrors(resp kmsg.Response, code int16) { walkErrors(reflect.ValueOf(resp).Elem(), code) }

func walkErrors(v reflect.Value, code int16) {
	switch v.Kind() {
	case reflect.Slice:
		for n := range v.Len() {
			walkErrors(v.Index(n), code)
		}
	case reflect.Struct:
		for n := range v.NumField() {
			field := v.Field(n)
			if v.Type().Field(n).Name == "ErrorCode" && field.Kind() == reflect.Int16 {
				field.SetInt(int64(code))
			} else if field.CanSet() {
				walkErrors(field, code)
			}
		}
	}
}
