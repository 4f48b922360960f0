// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestOutcomes(t *testing.T) {
	const (
		vault   = `{"initialized":true,"sealed":false,"standby":false,"cluster_id":"x"}`
		standby = `{"initialized":true,"sealed":false,"standby":true,"cluster_id":"y"}`
	)
	for _, row := range []struct {
		code int
		body string
		want Result
	}{
		{200, vault, ResultActive},
		{200, `{"initialized":true,"sealed":false,"standby":true}`, ResultStandby},
		{200, `{"initialized":true,"sealed":true,"standby":false}`, ResultSealed},
		{200, `{"initialized":false,"sealed":false,"standby":false}`, ResultUninitialized},
		{200, `{"initialized":true,"sealed":false,"standby":false,"cluster_id":"x","version":1,"server_time_utc":1.8e9}`, ResultActive}, // by what passes answers on
		{200, `{"initialized":true,"sealed":false}`, ResultInvalid},
		{200, `{}`, ResultInvalid},
		{200, `null`, ResultInvalid},
		{200, `[]`, ResultInvalid},
		{200, `<html>It works!</html>`, ResultInvalid},
		{200, ``, ResultInvalid},
		{204, vault, ResultInvalid},
		{307, vault, ResultInvalid},
		{404, vault, ResultInvalid},
		{429, standby, ResultStandby},
		{472, standby, ResultStandby},
		{473, standby, ResultStandby},
		{474, standby, ResultStandby},
		{501, `{"initialized":false,"sealed":true,"standby":true}`, ResultUninitialized},
		{503, `{"initialized":true,"sealed":true,"standby":true}`, ResultSealed},
		{530, standby, ResultRemoved},
		// A code without Vault's own document says nothing of a node.
		{429, ``, ResultInvalid},
		{429, `<html>slow down</html>`, ResultInvalid},
		{503, `no server is available to handle this request`, ResultInvalid},
		{503, `{"errors":[]}`, ResultInvalid},
		{501, `{}`, ResultInvalid},
		// A document of errors is Vault's, and says nothing of its state.
		{429, `{"errors":["request path \"sys/health\": rate limit quota exceeded"]}`, ResultUnclear},
		{400, `{"errors":["missing x-forwarded-for header and configured to reject when not present"]}`, ResultUnclear},
		{403, `{"errors":["permission denied"]}`, ResultUnclear},
		{500, `{"errors":["internal error"]}`, ResultUnclear},
		{503, `{"errors":["Vault is sealed"]}`, ResultUnclear},
		{200, `{"errors":["x"]}`, ResultUnclear},
	} {
		f := outcomeOf(row.code, []byte(row.body))
		if f.Result != row.want || f.Code != row.code || !f.Result.answered() {
			t.Errorf("%d %s: %+v", row.code, row.body, f)
		}
		if active := row.want == ResultActive; active != (f.Detail == "") || !active && !strings.HasPrefix(f.Detail, fmt.Sprint(row.code)) {
			t.Errorf("%d %s: detail %q", row.code, row.body, f.Detail)
		}
		if (f.ClusterID == "x") != (row.want == ResultActive) {
			t.Errorf("%d %s: cluster %q", row.code, row.body, f.ClusterID)
		}
	}
}

// countedConn counts what a node has written.
type counted struct {
	w io.Writer
	n int
}

func (c *counted) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += n
	return n, err
}

// Answers are bounded in time and in size, whatever they are.
func TestAnswersAreBounded(t *testing.T) {
	fill := func(w writer) {
		for range 10 << 10 { // 10 MiB
			if _, err := w.Write([]byte(strings.Repeat("x", 1<<10))); err != nil {
				return
			}
		}
	}
	for name, row := range map[string]struct {
		raw  func(writer)
		want Result
		took time.Duration
	}{
		"101":            {writes("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"), ResultInvalid, 0},
		"redirect":       {writes("HTTP/1.1 302 Found\r\nLocation: http://b:8200/v1/sys/health\r\nContent-Length: 0\r\n\r\n"), ResultInvalid, 0},
		"great headers":  {func(w writer) { writes("HTTP/1.1 200 OK\r\nX: ")(w); fill(w) }, ResultInvalid, 0},
		"great body":     {func(w writer) { writes("HTTP/1.1 200 OK\r\n\r\n")(w); fill(w) }, ResultInvalid, 0},
		"great chunks":   {func(w writer) { writes("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n")(w); fill(w) }, ResultInvalid, 0},
		"no body":        {writes("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"), ResultTimeout, time.Second},
		"a body at last": {func(w writer) { writes("HTTP/1.1 200 OK\r\n\r\n")(w); trickle(w) }, ResultTimeout, time.Second},
		"silence":        {func(writer) {}, ResultTimeout, time.Second},
		"no HTTP":        {writes("SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"), ResultInvalid, 0},
		"interim answers": {func(w writer) {
			for err := error(nil); err == nil; {
				_, err = w.Write([]byte("HTTP/1.1 103 Early Hints\r\n\r\n"))
			}
		}, ResultInvalid, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, p := newNetwork(t)
				sent := new(counted)
				n.node("a").set(func(v *vault) {
					v.raw = func(w writer) {
						sent.w = w
						row.raw(sent)
					}
				})
				f := asks(t, newDialer(p.dial, nil, "a"), "http://a:8200", func() {})
				if f.Result != row.want || f.Took != row.took || f.Detail == "" {
					t.Errorf("%+v, want %s after %s", f, row.want, row.took)
				}
				settle(100 * time.Millisecond)
				if c := n.node("a").connections(); c != 0 {
					t.Errorf("%d connections are left", c)
				}
				if most := 3*maxProbeAnswer + streamMost; sent.n > most {
					t.Errorf("%d bytes were taken, want at most %d", sent.n, most)
				}
				if n.tries() != 1 || n.node("b").probes() != 0 {
					t.Errorf("%d connections", n.tries())
				}
			})
		})
	}
}

// trickle writes a byte now and then, until the other end is gone.
func trickle(w writer) {
	for err := error(nil); err == nil; _, err = w.Write([]byte("x")) {
		time.Sleep(100 * time.Millisecond)
	}
}

func TestLeaderAddress(t *testing.T) {
	for _, row := range []struct{ leader, scheme, want, wrong string }{
		{"https://10.0.0.1:8200", "https", "10.0.0.1:8200", ""},
		{"https://vault.example.com", "https", "vault.example.com:443", ""},
		{"http://[::1]:8200/", "http", "::1:8200", ""},
		{"http://vault", "http", "vault:80", ""},
		{"http://10.0.0.1:8200", "https", "", "is not https"},
		{"", "https", "", "not a URL"},
		{"https://u:p@vault", "https", "", "not a URL"},
		{"https://vault:99999999999999999999", "https", "", "port"},
	} {
		host, port, err := parseLeader(row.leader, row.scheme)
		if row.wrong != "" {
			if err == nil || !strings.Contains(err.Error(), row.wrong) {
				t.Errorf("%s: %v, want %q", row.leader, err, row.wrong)
			}
			continue
		}
		if got := fmt.Sprintf("%s:%d", host, port); err != nil || got != row.want {
			t.Errorf("%s: %s, %v", row.leader, got, err)
		}
	}
}
