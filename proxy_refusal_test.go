// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/engine"
	"github.com/vault-redirector/caddy-vault-redirect/internal/registry"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// Errors of Vault.
const (
	noActiveNode = "local node not active but active cluster node not found"
	noInstance   = "no active Vault instance found"
	stepsDown    = "active context canceled after getting state lock"
	sealed       = "Vault is sealed"
)

func vaultErrors(texts ...string) string {
	return `{"errors":["` + strings.Join(texts, `","`) + `"]}` + "\n"
}

// answerOf is an answer of a node in a table.
type answerOf struct {
	code         int
	body         string
	header       [2]string
	chunked      bool
	reads, write bool         // these are sent again
	reason       engine.Retry // by which they are counted
}

// Each of Vault's answers that says that a node is not active is tried once at a node that is active after that: sent again is what
// Vault's source proves to have done nothing, a read also where it does not. All else passes as it comes.
func TestProxySendsAgainWhatWasRefused(t *testing.T) {
	rows := map[string]answerOf{
		"no active node":                  {code: 500, body: vaultErrors(noActiveNode), reads: true, write: true, reason: engine.RetryNotActive},
		"no active node, with more in it": {code: 500, body: `{"warnings": null, "errors": ["` + noActiveNode + `"]}`, reads: true, write: true, reason: engine.RetryNotActive},
		"step-down":                       {code: 500, body: vaultErrors(stepsDown), reads: true, write: true, reason: engine.RetryNotActive},
		"no instance":                     {code: 503, body: vaultErrors(noInstance), reads: true, write: true, reason: engine.RetryNotActive},
		"redirect":                        {code: 307, header: [2]string{"Location", "https://vault-9.example.com:8200/v1{path}"}, reads: true, write: true, reason: engine.RetryNotActive},
		"redirect into a namespace":       {code: 307, header: [2]string{"Location", "https://vault-9.example.com:8200/v1/ns/team{path}"}, reads: true, write: true, reason: engine.RetryNotActive},
		"redirect of a websocket":         {code: 307, header: [2]string{"Location", "wss://vault-9.example.com:8200/v1{path}"}, reads: true, write: true, reason: engine.RetryNotActive},
		"sealed":                          {code: 503, body: vaultErrors(sealed), reads: true, reason: engine.RetrySealed},

		"no error":                    {code: 500, body: `{"errors":[]}`},
		"another error":               {code: 500, body: vaultErrors("1 error occurred:\\n\\t* " + noActiveNode + "\\n\\n")},
		"another error of a seal":     {code: 503, body: vaultErrors("1 error occurred:\\n\\t* " + sealed + "\\n\\n")},
		"two errors":                  {code: 500, body: vaultErrors(noActiveNode, noActiveNode)},
		"not the leader":              {code: 500, body: vaultErrors("node is not the leader")},
		"canceled":                    {code: 500, body: vaultErrors("context canceled")},
		"overloaded":                  {code: 503, body: vaultErrors("overloaded, try again later")},
		"API locked":                  {code: 503, body: vaultErrors("API access to this namespace has been locked by an administrator")},
		"namespace sealed":            {code: 503, body: vaultErrors("Namespace is sealed")},
		"sealed, by another code":     {code: 500, body: vaultErrors(sealed)},
		"not active, by another":      {code: 503, body: vaultErrors(noActiveNode)},
		"quota":                       {code: 429, body: vaultErrors(noActiveNode), header: [2]string{"Retry-After", "7"}},
		"eventually consistent":       {code: 412, body: vaultErrors("required index state not present")},
		"of a DR secondary":           {code: 472, body: vaultErrors(noActiveNode)},
		"of a performance standby":    {code: 473, body: vaultErrors(noActiveNode)},
		"of a cut off standby":        {code: 474, body: vaultErrors(noActiveNode)},
		"good":                        {code: 200, body: vaultErrors(noActiveNode)},
		"bad":                         {code: 400, body: vaultErrors(noActiveNode)},
		"bad gateway":                 {code: 502, body: vaultErrors(noActiveNode)},
		"no JSON":                     {code: 500, body: noActiveNode},
		"health of a sealed node":     {code: 503, body: `{"initialized":true,"sealed":true,"standby":true}`},
		"long":                        {code: 500, body: vaultErrors(noActiveNode) + strings.Repeat(" ", 4<<10)},
		"long header":                 {code: 500, body: vaultErrors(noActiveNode), header: [2]string{"X-Long", strings.Repeat("x", 4<<10)}},
		"of unknown length":           {code: 500, body: vaultErrors(noActiveNode), chunked: true},
		"empty":                       {code: 500},
		"to itself, another path":     {code: 307, header: [2]string{"Location", "/ui/"}},
		"of a login, to another site": {code: 307, header: [2]string{"Location", "https://login.example.com/authorize"}},
		"without a place to go":       {code: 307},
		"by another code than Vault":  {code: 308, header: [2]string{"Location", "https://vault-9.example.com:8200/v1/x"}},
	}
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(protocol[:6], func(t *testing.T) {
			var mu sync.Mutex
			times, last := map[string]int{}, http.Header{}
			node := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				mu.Lock()
				defer mu.Unlock()
				last = r.Header
				if times[r.URL.Path]++; times[r.URL.Path] > 1 || r.Proto != protocol {
					fmt.Fprintf(w, "%s %s %s", r.Proto, r.Method, body)
					return
				}
				row := rows[r.URL.Query().Get("row")]
				if row.header[0] != "" {
					w.Header().Set(row.header[0], strings.ReplaceAll(row.header[1], "{path}", strings.TrimPrefix(r.URL.Path, "/v1")))
				}
				w.Header().Set("X-Of-The-Node", "yes")
				w.WriteHeader(row.code)
				if row.chunked {
					flush(w, "")
				}
				_, _ = io.WriteString(w, row.body)
			}))
			node.EnableHTTP2 = protocol == "HTTP/2.0"
			node.StartTLS()
			r := proxyTrusting(t, node, fmt.Sprintf(`{"ca": %q}`, authorityOf(t, node)), `, "hold": "1m"`, "")
			stats := registry.Clusters()[0].View.Stats()
			n := 0
			for name, row := range rows {
				for _, method := range []string{"GET", "LIST", "PUT", "DELETE"} {
					n++
					path, body := "/v1/x"+strconv.Itoa(n), ""
					if method == "PUT" {
						body = "a body"
					}
					before := stats.Retries.Count(row.reason)
					req := r.request(t.Context(), t, method, path, strings.NewReader(body))
					query := req.URL.Query()
					query.Set("row", name)
					req.URL.RawQuery = query.Encode()
					resp, err := new(http.Transport).RoundTrip(req)
					if err != nil {
						t.Fatal(err)
					}
					got, err := io.ReadAll(resp.Body)
					if err != nil {
						t.Errorf("%s %s: %v", method, name, err)
					}
					resp.Body.Close()
					mu.Lock()
					tried, header := times[path], last
					mu.Unlock()
					again := row.write
					if isRead := method == "GET" || method == "LIST"; isRead {
						again = row.reads
					}
					switch retries := stats.Retries.Count(row.reason) - before; {
					case again && (tried != 2 || retries != 1 || resp.StatusCode != http.StatusOK || string(got) != protocol+" "+method+" "+body):
						t.Errorf("%s %s: status %d after %d times, %d counted: %s; want it to be sent again", method, name, resp.StatusCode, tried, retries, got)
					case !again && (tried != 1 || resp.StatusCode != row.code || string(got) != row.body || resp.Header.Get("X-Of-The-Node") != "yes" ||
						row.header[0] != "" && resp.Header.Get(row.header[0]) != row.header[1]):
						t.Errorf("%s %s: status %d after %d times, %v: %s; want it as it came", method, name, resp.StatusCode, tried, resp.Header, got)
					}
					if header.Get("X-Vault-Token") != plantedToken || header.Get("X-Vault-No-Request-Forwarding") == "" {
						t.Errorf("%s %s: the node got %v", method, name, header)
					}
				}
			}
			if lines := r.logged(t, "sending a proxied request again"); len(lines) == 0 || !strings.Contains(lines[0], `"reason":"`) || strings.Contains(lines[0], "/v1/x") {
				t.Errorf("logged %d times: %s", len(lines), lines[:min(1, len(lines))])
			}
			wait.Until(t, "all are counted", func() bool { return answered(engine.Proxied) == uint64(n) })
		})
	}
}

// A node that refuses for ever is tried after ever longer pauses, until hold is over. The client then has the node's own answer.
func TestProxyOfANodeThatRefusesForEver(t *testing.T) {
	for name, row := range map[string]struct {
		code int
		body string
	}{
		"not active": {500, vaultErrors(noActiveNode)},
		"sealed":     {503, vaultErrors(sealed)},
	} {
		t.Run(name, func(t *testing.T) {
			var times atomic.Int32
			r := proxyTo(t, served(func(w http.ResponseWriter, r *http.Request) {
				times.Add(1)
				w.Header().Set("X-Of-The-Node", "yes")
				w.WriteHeader(row.code)
				_, _ = io.WriteString(w, row.body)
			}), `, "hold": "1s"`, "")
			code, header, body := r.send(t, "GET", "/v1/x", "")
			if code != row.code || body != row.body || header.Get("X-Of-The-Node") != "yes" || header.Get("Retry-After") != "" {
				t.Errorf("status %d, %v: %s", code, header, body)
			}
			// Pauses of 50, 100, 200, 400 and 800 ms.
			if n := times.Load(); n < 2 || n > 6 {
				t.Errorf("the node has got it %d times", n)
			}
			wait.Until(t, "it is counted", func() bool { return answered(engine.Proxied) == 1 })
		})
	}
}

// The same if the node is not active any more, and no other one becomes active.
func TestProxyOfTheLastNodeThatRefuses(t *testing.T) {
	refused := make(chan bool, 100)
	r := proxyTo(t, served(func(w http.ResponseWriter, r *http.Request) {
		refused <- true
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, vaultErrors(noActiveNode))
	}), `, "hold": "3s"`, "")
	answer := make(chan string, 1)
	go func() {
		code, _, body := r.send(t, "PUT", "/v1/x", "a body")
		answer <- fmt.Sprint(code, " ", body)
	}()
	<-refused
	r.lose(t)
	if got, want := <-answer, "500 "+vaultErrors(noActiveNode); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// A redirect that is never followed by an active node is not for the client of a proxy.
func TestProxyOfANodeThatRedirectsForEver(t *testing.T) {
	r := proxyTo(t, served(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://127.0.0.99:8200"+r.URL.Path, http.StatusTemporaryRedirect)
	}), `, "hold": "1s"`, "")
	code, header, body := r.send(t, "PUT", "/v1/x", "a body")
	if code != http.StatusServiceUnavailable || header.Get("Retry-After") != "1" || !strings.Contains(body, "the request was not carried out: the Vault node is a standby") {
		t.Errorf("status %d, %v: %s", code, header, body)
	}
}

// Without hold, nothing is sent again.
func TestProxyOfRefusalsWithoutHold(t *testing.T) {
	var times atomic.Int32
	r := proxyTo(t, served(func(w http.ResponseWriter, r *http.Request) {
		times.Add(1)
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, vaultErrors(noActiveNode))
	}), `, "hold": 0`, "")
	if code, _, body := r.send(t, "GET", "/v1/x", ""); code != http.StatusInternalServerError || body != vaultErrors(noActiveNode) || times.Load() != 1 {
		t.Errorf("status %d after %d times: %s", code, times.Load(), body)
	}
}

// A body that goes to the node as it comes cannot be sent again: the client gets the node's own answer, and at once.
func TestProxyOfRefusedStreams(t *testing.T) {
	var times atomic.Int32
	r := proxyTo(t, served(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		times.Add(1)
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, vaultErrors(noActiveNode))
	}), `, "hold": "5m"`, "")
	for name, body := range map[string]io.Reader{
		"long":              strings.NewReader(strings.Repeat("x", maxBuffered+1)),
		"of unknown length": io.MultiReader(strings.NewReader("a body")),
	} {
		times.Store(0)
		resp, err := new(http.Transport).RoundTrip(r.request(t.Context(), t, "PUT", "/v1/x", body))
		if err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusInternalServerError || string(got) != vaultErrors(noActiveNode) || times.Load() != 1 {
			t.Errorf("%s: status %d after %d times: %s", name, resp.StatusCode, times.Load(), got)
		}
	}
}

// A long answer with the status of a refusal streams, as all others do.
func TestProxyStreamsLongErrors(t *testing.T) {
	read := make(chan struct{})
	r := proxyTo(t, served(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(1<<20))
		w.WriteHeader(http.StatusInternalServerError)
		flush(w, "first ")
		<-read
		_, _ = io.WriteString(w, strings.Repeat("x", 1<<20-len("first ")))
	}), "", "")
	resp, err := new(http.Transport).RoundTrip(r.request(t.Context(), t, "GET", "/v1/x", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	first := make([]byte, len("first "))
	if _, err := io.ReadFull(resp.Body, first); err != nil || string(first) != "first " {
		t.Errorf("%q, %v", first, err)
	}
	close(read)
	if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) != 1<<20-len(first) {
		t.Errorf("%d bytes more, %v", len(rest), err)
	}
}

// An error that breaks off is no answer; one that hangs ends when its node is replaced.
func TestProxyOfHalfAnError(t *testing.T) {
	var times atomic.Int32
	half := func(w http.ResponseWriter) {
		w.Header().Set("Content-Length", "100")
		w.WriteHeader(http.StatusInternalServerError)
		flush(w, `{"errors":`)
	}
	hung := make(chan bool, 10)
	node := served(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		switch times.Add(1); {
		case r.URL.Path == "/v1/hang":
			half(w)
			hung <- true
			<-r.Context().Done()
		case times.Load() == 1:
			half(w)
			panic(http.ErrAbortHandler)
		default:
			_, _ = io.WriteString(w, "answer")
		}
	})
	r := proxyTo(t, node, `, "hold": "2m"`, "")
	if code, _, body := r.send(t, "GET", "/v1/x", ""); code != http.StatusOK || body != "answer" || times.Load() != 2 {
		t.Errorf("GET: status %d after %d times: %s", code, times.Load(), body)
	}
	times.Store(0)
	if code, _, body := r.send(t, "PUT", "/v1/x", "a body"); code != http.StatusBadGateway || !strings.Contains(body, "may have carried out") || times.Load() != 1 {
		t.Errorf("PUT: status %d after %d times: %s", code, times.Load(), body)
	}
	answers := make(chan string, 1)
	go func() {
		code, _, body := r.send(t, "GET", "/v1/hang", "")
		answers <- fmt.Sprint(code, " ", body)
	}()
	<-hung
	host, port := hostPortOf(t, node.Listener.Addr().String())
	name, at, of := nextNode(t)
	r.consul.Set("vault", standin.Standby("vault-1", standin.Address(host), standin.Port(port)), standin.Active(name, at, of))
	if got := <-answers; got != "200 next GET" {
		t.Errorf("GET of what hangs: %s", got)
	}
}

// An answer to HEAD has no body that could be looked at.
func TestProxyOfRefusedHead(t *testing.T) {
	r := proxyTo(t, served(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(vaultErrors(sealed))))
		w.WriteHeader(http.StatusServiceUnavailable)
	}), `, "hold": "5m"`, "")
	resp, err := new(http.Transport).RoundTrip(r.request(t.Context(), t, "HEAD", "/v1/sys/health", nil))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable || resp.ContentLength != int64(len(vaultErrors(sealed))) {
		t.Errorf("status %d, length %d", resp.StatusCode, resp.ContentLength)
	}
}

// Trailers and interim answers come as they are.
func TestProxyOfRefusalsWithTrailers(t *testing.T) {
	r := proxyTo(t, served(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("Trailer", "X-Trailer")
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, vaultErrors(noActiveNode))
		w.Header().Set("X-Trailer", "yes")
	}), `, "hold": "5m"`, "")
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "GET /v1/x HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n")
	reader := bufio.NewReader(c)
	for _, code := range []int{http.StatusEarlyHints, http.StatusInternalServerError} {
		resp, err := http.ReadResponse(reader, nil)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != code || code == http.StatusInternalServerError && (string(body) != vaultErrors(noActiveNode) || resp.Trailer.Get("X-Trailer") != "yes") {
			t.Errorf("status %d, %v: %s", resp.StatusCode, resp.Trailer, body)
		}
	}
}

// The connection of a refused request is used again.
func TestProxyKeepsTheConnectionOfARefusal(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprint("HTTP/2 ", h2), func(t *testing.T) {
			var times, connections atomic.Int32
			node := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if times.Add(1)%2 == 1 {
					w.WriteHeader(http.StatusInternalServerError)
					_, _ = io.WriteString(w, vaultErrors(noActiveNode))
				}
			}))
			node.EnableHTTP2 = h2
			node.Config.ConnState = func(_ net.Conn, s http.ConnState) {
				if s == http.StateNew {
					connections.Add(1)
				}
			}
			node.StartTLS()
			r := proxyTrusting(t, node, fmt.Sprintf(`{"ca": %q}`, authorityOf(t, node)), `, "hold": "1m"`, "")
			for range 10 {
				if code, _, body := r.send(t, "PUT", "/v1/x", "a body"); code != http.StatusOK {
					t.Errorf("status %d: %s", code, body)
				}
			}
			if n := connections.Load(); n != 1 {
				t.Errorf("%d connections for 20 requests", n)
			}
		})
	}
}

// Where all nodes share one address, a standby's redirect leads there again. Then standbys may forward, as they may at a node that is
// taken for the active one, but goes on redirecting.
func TestProxyLetsStandbysForward(t *testing.T) {
	for name, row := range map[string]struct {
		to    func(r *http.Request) string
		first int32 // requests until one may be forwarded
	}{
		"one address": {func(r *http.Request) string {
			return "http://" + r.Context().Value(http.LocalAddrContextKey).(net.Addr).String()
		}, 2},
		"marked for no reason": {func(*http.Request) string { return "http://127.0.0.99:8200" }, 7},
	} {
		t.Run(name, func(t *testing.T) {
			var times atomic.Int32
			r := proxyTo(t, served(func(w http.ResponseWriter, r *http.Request) {
				times.Add(1)
				if r.Header.Get("X-Vault-No-Request-Forwarding") != "" {
					w.Header().Set("Location", row.to(r)+r.URL.Path)
					w.WriteHeader(http.StatusTemporaryRedirect)
					return
				}
				if r.URL.Path == "/v1/fails" { // so does a standby whose connection to the active node has broken
					w.Header().Set("Location", row.to(r)+r.URL.Path)
					w.WriteHeader(http.StatusTemporaryRedirect)
					return
				}
				_, _ = io.WriteString(w, "forwarded")
			}), `, "hold": "1m"`, "")
			for i, want := range []int32{row.first, 1, 1} {
				times.Store(0)
				if code, _, body := r.send(t, "PUT", "/v1/x", "a body"); code != http.StatusOK || body != "forwarded" || times.Load() != want {
					t.Errorf("write %d: status %d after %d times, want %d: %s", i, code, times.Load(), want, body)
				}
			}
			times.Store(0)
			if code, header, body := r.send(t, "PUT", "/v1/fails", "a body"); code != http.StatusBadGateway || times.Load() != 1 || header.Get("Location") != "" || !strings.Contains(body, "may have carried it out") {
				t.Errorf("a write that may have been forwarded: status %d after %d times, %v: %s", code, times.Load(), header, body)
			}
			// Another node is active: it is no standby that was taken for one.
			name, at, of := nextNode(t)
			r.consul.Set("vault", standin.Active(name, at, of))
			wait.Until(t, "the next one", func() bool { return registry.Clusters()[0].View.State().Node.Name == name })
			r.consul.Set("vault", r.node)
			wait.Until(t, "the first one", func() bool { return registry.Clusters()[0].View.State().Node.Name == "vault-1" })
			times.Store(0)
			if code, _, body := r.send(t, "PUT", "/v1/x", "a body"); code != http.StatusOK || body != "forwarded" || times.Load() != row.first {
				t.Errorf("after an election: status %d after %d times, want %d: %s", code, times.Load(), row.first, body)
			}
		})
	}
}

// Two nodes that refuse in turns, while discovery calls now this one active and now that, are tried no more than some times a second.
func TestProxyOfNodesThatRefuseInTurns(t *testing.T) {
	var times atomic.Int32
	refuse := func(w http.ResponseWriter, _ *http.Request) {
		times.Add(1)
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, vaultErrors(noActiveNode))
	}
	r := proxyTo(t, served(refuse), `, "hold": "2s"`, "")
	other := served(refuse)
	defer other.Close()
	host, port := hostPortOf(t, other.Listener.Addr().String())
	end, ended := make(chan bool), make(chan int)
	go func() {
		turns := 0
		for ; ; turns++ {
			select {
			case <-end:
				ended <- turns
				return
			case <-time.After(100 * time.Millisecond):
			}
			if turns%2 == 0 {
				r.consul.Set("vault", standin.Standby("vault-1"), standin.Active("vault-2", standin.Address(host), standin.Port(port)))
			} else {
				r.consul.Set("vault", r.node)
			}
		}
	}()
	code, _, body := r.send(t, "PUT", "/v1/x", "a body")
	close(end)
	if turns := <-ended; code != http.StatusInternalServerError || body != vaultErrors(noActiveNode) || int(times.Load()) > turns+10 {
		t.Errorf("status %d after %d times in %d turns: %s", code, times.Load(), turns, body)
	}
}
