// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package load

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestRelay passes on what comes, in order, to the end, and not too early.
func TestRelay(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body)
	}))
	defer server.Close()
	for _, roundTrip := range []time.Duration{0, 20 * time.Millisecond} {
		relay, err := NewRelay(server.Listener.Addr().String(), roundTrip)
		if err != nil {
			t.Fatal(err)
		}
		c, err := Connect(relay.Addr(), nil)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			began := time.Now()
			res, length, err := c.Ask([]byte("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"))
			if took := time.Since(began); err != nil || res.StatusCode != 200 || length != 5 || took < roundTrip {
				t.Errorf("round trip %s: %v, %d bytes, %v, after %s", roundTrip, res, length, err, took)
			}
		}
		c.Close()
		large := bytes.Repeat([]byte("0123456789"), 200_000)
		res, err := http.Post("http://"+relay.Addr(), "text/plain", bytes.NewReader(large))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(res.Body); err != nil || !bytes.Equal(got, large) {
			t.Errorf("round trip %s: %d bytes of %d, %v", roundTrip, len(got), len(large), err)
		}
		res.Body.Close()
		if err := relay.Close(); err != nil {
			t.Error(err)
		}
		if c, err := net.Dial("tcp", relay.Addr()); err == nil {
			c.Close()
			t.Error("a closed relay takes connections")
		}
	}
}

// TestRelayEnds lets each side see that the other one has ended.
func TestRelayEnds(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	relay, err := NewRelay(listener.Addr().String(), 2*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	defer relay.Close()
	client, err := net.Dial("tcp", relay.Addr())
	if err != nil {
		t.Fatal(err)
	}
	server, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Write([]byte("question\n")); err != nil {
		t.Fatal(err)
	}
	if err := client.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(server); string(got) != "question\n" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := server.Write([]byte("answer\n")); err != nil { // one direction has ended
		t.Fatal(err)
	}
	if got, err := bufio.NewReader(client).ReadString('\n'); got != "answer\n" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	server.Close()
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the server has ended: %v", err)
	}
	client.Close()
}

func TestPaced(t *testing.T) {
	var n atomic.Int32
	ask := func() error { n.Add(1); return nil }
	took, err := Paced(t.Context(), 1000, 30*time.Millisecond, []func() error{ask, ask, ask})
	if err != nil || len(took) != 30 || n.Load() != 30 || !slices.IsSorted(took) || took[0] < 0 {
		t.Errorf("%d, %v: %v", n.Load(), err, took)
	}
	failed := errors.New("it failed")
	if _, err := Paced(t.Context(), 1000, 10*time.Millisecond, []func() error{ask, func() error { return failed }}); !errors.Is(err, failed) {
		t.Error(err)
	}
}

func TestAlarm(t *testing.T) {
	a, err := NewAlarm()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	for _, d := range []time.Duration{-time.Second, 0, 100 * time.Microsecond, 3 * time.Millisecond} {
		until := time.Now().Add(d)
		if a.Until(until); time.Now().Before(until) {
			t.Errorf("%s: too early", d)
		}
	}
}

// TestRates reads what the programs print.
func TestRates(t *testing.T) {
	if rate, err := rateIn(wrkRate, []byte("  100 requests in 1.00s, 1MB read\nRequests/sec:  81234.56\nTransfer/sec: 1MB\n")); err != nil || rate != 81234.56 {
		t.Error(rate, err)
	}
	if rate, err := rateIn(h2loadRate, []byte("finished in 3.00s, 144980.33 req/s, 8.16MB/s\n")); err != nil || rate != 144980.33 {
		t.Error(rate, err)
	}
	if _, err := rateIn(wrkRate, []byte("nothing")); err == nil {
		t.Error("a rate of nothing")
	}
	for d, want := range map[time.Duration]string{0: "1", 200 * time.Millisecond: "1", 2600 * time.Millisecond: "3"} {
		if got := Seconds(d); got != want {
			t.Errorf("%s: %s", d, got)
		}
	}
	if !wrkErrors.MatchString(strings.Join([]string{"x", "  Non-2xx or 3xx responses: 7", "y"}, "\n")) {
		t.Error("failed requests of wrk are not noticed")
	}
}
