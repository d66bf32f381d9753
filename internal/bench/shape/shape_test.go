package shape

import (
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// through returns a client's connection to a server that notes when it has read so
// many bytes, through a proxy in virtual time.
func through(t *testing.T, l Link) (p *Proxy, client, server net.Conn) {
	t.Helper()
	p = &Proxy{sleep: time.Sleep, link: l, conns: make(map[*conn]struct{})}
	client, near := net.Pipe()
	far, server := net.Pipe()
	ended := make(chan struct{})
	go func() { defer close(ended); p.carry(near, far) }()
	t.Cleanup(func() { _ = client.Close(); _ = server.Close(); <-ended })
	synctest.Wait()
	time.Sleep(l.RoundTrip) // the handshake
	return p, client, server
}

// took returns how long size bytes take from one end to the other.
func took(t *testing.T, from, to net.Conn, size int) time.Duration {
	t.Helper()
	start := time.Now()
	go func() { _, _ = from.Write(make([]byte, size)) }()
	if _, err := io.CopyN(io.Discard, to, int64(size)); err != nil {
		t.Error(err)
	}
	end := time.Since(start)
	time.Sleep(time.Second / 10) // for the acknowledgements; less than patience
	return end
}

// From a small window, k round trips carry 14,600 x (2^k - 1) bytes.
func TestRoundTrips(t *testing.T) {
	const rtt = 40 * time.Millisecond
	for _, tt := range []struct {
		size  int
		trips int
	}{
		{1, 1}, {14_600, 1}, {14_601, 2}, {43_800, 2}, {43_801, 3}, {102_200, 3}, {102_201, 4}, {219_000, 4}, {219_001, 5}, {1_854_200, 7},
	} {
		for _, down := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				_, from, to := through(t, Link{RoundTrip: rtt})
				if down {
					from, to = to, from
				}
				want := time.Duration(tt.trips)*rtt - rtt/2
				if got := took(t, from, to, tt.size); got != want {
					t.Errorf("%d bytes: %v, want %v", tt.size, got, want)
				}
			})
		}
	}
}

// What has been sent leaves the window open, until it has been quiet for a round
// trip and 200 ms.
func TestIdle(t *testing.T) {
	const rtt = 40 * time.Millisecond
	const small, wide = 3*rtt - rtt/2, rtt - rtt/2 // for 102,200 bytes
	synctest.Test(t, func(t *testing.T) {
		p, client, server := through(t, Link{RoundTrip: rtt})
		step := func(what string, want time.Duration) {
			t.Helper()
			if got := took(t, client, server, 102_200); got != want {
				t.Errorf("%s: %v, want %v", what, got, want)
			}
		}
		step("new", small)
		step("the next", wide)
		time.Sleep(100 * time.Millisecond)
		step("soon", wide)
		time.Sleep(200 * time.Millisecond)
		step("after a while", small)
		p.Idle()
		step("after Idle", small)
		if got := took(t, server, client, 102_200); got != small {
			t.Errorf("the other direction: %v, want %v", got, small)
		}
	})
}

// A window that is not used does not grow: 100 small messages open nothing.
func TestSmallMessages(t *testing.T) {
	const rtt = 40 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		_, client, server := through(t, Link{RoundTrip: rtt})
		for range 100 {
			if got := took(t, client, server, 1000); got != rtt/2 {
				t.Fatalf("%v, want %v", got, rtt/2)
			}
		}
		if got, want := took(t, client, server, 14_601), 2*rtt-rtt/2; got != want {
			t.Errorf("%v, want %v", got, want)
		}
	})
}

// A rate delays what a window lets through, and fills the way once the window is
// wide: 40 ms of 100 Mbit/s are 500,000 bytes.
func TestRate(t *testing.T) {
	const rtt = 40 * time.Millisecond
	const rate = 100_000_000
	bits := func(bytes int) time.Duration { return time.Duration(bytes) * 8 * time.Second / rate }
	synctest.Test(t, func(t *testing.T) {
		_, client, server := through(t, Link{RoundTrip: rtt, Rate: rate})
		// A segment's acknowledgement lets two more leave: each train begins a
		// round trip and a segment's time after the one before.
		for _, tt := range []struct {
			size int
			want time.Duration
		}{
			{14_600, bits(14_600) + rtt/2},
			{1_000_000, 0}, // opens the window
			{1_000_000, bits(1_000_000) + rtt/2},
		} {
			if got := took(t, client, server, tt.size); got != tt.want && tt.want != 0 {
				t.Errorf("%d bytes: %v, want %v", tt.size, got, tt.want)
			}
		}
	})
	synctest.Test(t, func(t *testing.T) {
		_, client, server := through(t, Link{RoundTrip: rtt, Rate: rate})
		if got, want := took(t, client, server, 43_800), rtt+bits(segment)+bits(29_200)+rtt/2; got != want {
			t.Errorf("two trips: %v, want %v", got, want)
		}
	})
}

// A receiver's buffer is the most that is ever on its way.
func TestWindowLimit(t *testing.T) {
	const rtt = 40 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		_, client, server := through(t, Link{RoundTrip: rtt, Window: 29_200})
		if got, want := took(t, client, server, 14_600+3*29_200), 4*rtt-rtt/2; got != want {
			t.Errorf("%v, want %v", got, want)
		}
	})
}

// The zero Link is a proxy like another, and so is its counting.
func TestBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, client, server := through(t, Link{})
		if got := took(t, client, server, 1_000_000) + took(t, server, client, 1000); got != 0 {
			t.Errorf("%v", got)
		}
		for _, when := range []string{"open", "closed"} {
			if up, down := p.Bytes(); up != 1_000_000 || down != 1000 {
				t.Errorf("%s: %d up, %d down", when, up, down)
			}
			_ = client.Close()
			time.Sleep(time.Second)
		}
	})
}

// Over sockets: what goes in comes out, late by the round trip.
func TestProxy(t *testing.T) {
	server, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
		}
	}()
	p, err := Listen(t.Context(), server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	p.Set(Link{RoundTrip: 20 * time.Millisecond})
	client, err := p.Dial(t.Context(), "tcp", "ignored")
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		start := time.Now()
		if _, err := client.Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
		echo := make([]byte, 4)
		if _, err := io.ReadFull(client, echo); err != nil || string(echo) != "ping" {
			t.Fatalf("%q, %v", echo, err)
		}
		if got := time.Since(start); got < 20*time.Millisecond {
			t.Errorf("back after %v", got)
		}
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}
