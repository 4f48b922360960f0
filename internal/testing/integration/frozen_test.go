// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package integration

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/harness"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// rawNode is something that answers each connection's first request as it likes, and then keeps it open.
type rawNode struct {
	listener net.Listener
	answered atomic.Int32 // answers that were begun
}

func startRawNode(t *testing.T, answer func(io.Writer)) *rawNode {
	t.Helper()
	n := new(rawNode)
	n.listener = standin.Serve(t, func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
			return
		}
		n.answered.Add(1)
		answer(c)
		<-t.Context().Done()
	})
	return n
}

// entry is how Consul shows the node: as the active one.
func (n *rawNode) entry() *api.ServiceEntry {
	host, port, _ := net.SplitHostPort(n.listener.Addr().String())
	number, _ := strconv.Atoi(port)
	return standin.Active("vault-1", standin.Address(host), standin.Port(number))
}

// strange are answers to a probe that are not Vault's.
var strange = map[string]func(io.Writer){
	"101 and silence": func(w io.Writer) {
		_, _ = io.WriteString(w, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: frozen\r\n\r\n")
	},
	"10 MiB of headers": func(w io.Writer) {
		_, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\n")
		line := "X-Header: " + strings.Repeat("x", 1012) + "\r\n"
		for range 10 << 10 {
			if _, err := io.WriteString(w, line); err != nil {
				return
			}
		}
		_, _ = io.WriteString(w, "\r\n")
	},
	"an endless body": func(w io.Writer) {
		_, err := io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{\"initialized\": true, \"x\": \"")
		for chunk := strings.Repeat("x", 64<<10); err == nil; {
			_, err = io.WriteString(w, chunk)
		}
	},
}

// strangely is a Caddyfile with probes every interval.
func strangely(consul *standin.Consul, interval, option string) string {
	return "{\n\tdefault_bind {ip}\n}\nhttp://{ip}:8080 {\n\tvault_redirect " + consul.Addr() + " {\n\t\tscheme http\n\t\tprobe " +
		interval + " {\n\t\t\ttimeout 500ms\n\t\t}\n\t\t" + option + "\n\t}\n}\n"
}

// goesOn waits until two more probes were answered. If they do not come the test goes on: what is stuck now is what the
// next steps are about.
func (n *rawNode) goesOn(t *testing.T) (ok bool) {
	t.Helper()
	before := n.answered.Load()
	ctx, cancel := context.WithTimeout(t.Context(), 2*promptly)
	defer cancel()
	err := wait.Poll(ctx, 10*time.Millisecond, "wait for two more probes", func(context.Context) error {
		if now := n.answered.Load(); now < before+2 {
			return fmt.Errorf("%d came", now-before)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return err == nil
}

func TestStrangeAnswersToProbesHoldUpNothing(t *testing.T) {
	t.Parallel()
	for name, answer := range strange {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			node := startRawNode(t, answer)
			consul := standin.RunConsul(t, node.entry())
			caddy := run(t, harness.Options{Caddyfile: strangely(consul, "100ms", "retry_after 1s")})
			alive := node.goesOn(t)
			// With the prober that runs, twice, and with another.
			for _, config := range []string{
				strangely(consul, "100ms", "retry_after 2s"), strangely(consul, "100ms", "max_stale 1m"), strangely(consul, "150ms", "max_stale 1m"),
			} {
				if !inTime(t, "caddy reload", func(ctx context.Context) error { return caddy.Reload(ctx, config) }) {
					break
				}
				alive = alive && node.goesOn(t)
			}
			inTime(t, "GET /config/", func(ctx context.Context) error {
				code, _, err := caddy.Ask(ctx, http.MethodGet, "/config/", "", "")
				if err == nil && code != http.StatusOK {
					err = fmt.Errorf("status %d", code)
				}
				return err
			})
			inTime(t, "the end after SIGTERM", func(ctx context.Context) error {
				if err := caddy.Signal(syscall.SIGTERM); err != nil {
					return err
				}
				_, err := caddy.Wait(ctx)
				return err
			})
		})
	}
}

// postAndLeave sends a POST with a small body by HTTP/1.1, and closes the connection without waiting for an answer.
func postAndLeave(ctx context.Context, _ *http.Transport, address string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(conn, "POST /v1/left HTTP/1.1\r\nHost: %s\r\nContent-Length: 4\r\n\r\n{ }\n", address)
	return errors.Join(err, conn.Close())
}

// h2c is a client of HTTP/2 without TLS.
func h2c() *http.Transport {
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	return transport
}

// postAndLeaveHTTP2 sends such a POST by HTTP/2, and resets its stream. The connection stays: if it were closed before
// the client has read all that the server says at its begin, the kernel would reset it, and the request might never come.
func postAndLeaveHTTP2(ctx context.Context, transport *http.Transport, address string) error {
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	sent := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) { leave() }})
	req, err := http.NewRequestWithContext(sent, http.MethodPost, "http://"+address+"/v1/left", strings.NewReader("{ }\n"))
	if err != nil {
		return err
	}
	resp, err := transport.RoundTrip(req)
	if err == nil { // rejected before it could leave
		return resp.Body.Close()
	}
	if !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// In TestClientsThatHaveGoneTakeNoPlace, 60 clients come and go while requests are held, of which 20 find a place: a tenth
// of all, since they have one address.
func TestClientsThatHaveGoneTakeNoPlace(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name      string
		leave     func(ctx context.Context, transport *http.Transport, address string) error
		transport *http.Transport
	}{
		{"HTTP/1.1", postAndLeave, &http.Transport{DisableKeepAlives: true}},
		{"HTTP/2", postAndLeaveHTTP2, h2c()},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			consul := standin.RunConsul(t, standin.Active("vault-1", standin.Address("127.10.0.1")))
			caddy := runCaddy(t, "\tservers {\n\t\tprotocols h1 h2c\n\t}", "http://{ip}:8080 {\n\tlog\n\tvault_redirect "+consul.Addr()+
				" {\n\t\thold 30s\n\t\thold_max 200\n\t}\n}\n")
			address := caddy.IP + ":8080"
			caddy.awaitTarget("http://"+address, "https://127.10.0.1:8200")
			consul.Set("vault", standin.Standby("vault-1", standin.Address("127.10.0.1")))
			caddy.awaitReason("http://"+address, "no_active")

			for range 60 {
				if err := row.leave(timeout(t), row.transport, address); err != nil {
					t.Fatal(err)
				}
			}
			// Caddy logs a request when it is done with it: long before the 30 seconds are over.
			inTime(t, "to be done with 60 requests whose clients have gone", func(ctx context.Context) error {
				return wait.Poll(ctx, 20*time.Millisecond, "wait", func(context.Context) error {
					if done := strings.Count(caddy.Log(), `"uri":"/v1/left"`); done < 60 {
						return fmt.Errorf("%d are done", done)
					}
					return nil
				})
			})
			got := make(chan string, 1)
			go func() { got <- oneAnswer(row.transport, "http://"+address+"/v1/stays") }()
			caddy.await("the next request is held, or rejected", func() bool {
				return len(got) > 0 || caddy.goroutines().In(inHandler) > 0
			})
			consul.Set("vault", standin.Active("vault-2", standin.Address("127.10.0.2")))
			if answer := <-got; answer != "307 https://127.10.0.2:8200/v1/stays" {
				t.Errorf("the next request got %s", answer)
			}
		})
	}
}
