// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// clientTimeout is how long a client waits for one operation.
const clientTimeout = 60 * time.Second

// failure is an operation that failed.
type failure struct {
	write bool
	start time.Time
	sent  time.Time // when its last request was written, to a node or to a proxy; zero: it was not
	end   time.Time
	node  string // host:port of the node that it was sent to, "" where a proxy hides that
	text  string
}

// tally is what the operations of one front came to.
type tally struct {
	mu       sync.Mutex
	count    int
	failures []failure
	slowest  time.Duration
}

func (t *tally) add(start, end time.Time, f *failure) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count++
	t.slowest = max(t.slowest, end.Sub(start))
	if f != nil {
		t.failures = append(t.failures, *f)
	}
}

// worker is one client of a front. It writes and reads a secret of its own, in turn.
type worker struct {
	front  *front
	client *http.Client
	path   string
	token  string
	n      int
	values map[string]bool // that a read may return: the last that was written, and those whose write failed since
}

func newWorker(f *front, i int, token string) *worker {
	return &worker{front: f, client: f.newClient(), path: fmt.Sprintf("/v1/bench/%s-%d", f.key, i), token: token, values: map[string]bool{}}
}

// run works until the context ends.
func (w *worker) run(ctx context.Context, every, first time.Duration) {
	defer w.client.CloseIdleConnections()
	if wait.Sleep(ctx, first) != nil {
		return
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		start := time.Now()
		f := w.operate(ctx)
		if ctx.Err() != nil {
			return // cut off by the end of the run
		}
		w.front.tally.add(start, time.Now(), f)
	}
}

// operate does one operation and returns nil if it succeeded.
func (w *worker) operate(ctx context.Context) *failure {
	f := &failure{write: w.n%2 == 0, start: time.Now()}
	method, value := http.MethodGet, ""
	var body []byte
	if f.write {
		method, value = http.MethodPut, strconv.Itoa(w.n)
		body, _ = json.Marshal(map[string]string{"value": value})
		w.values[value] = true
	}
	w.n++
	ctx, cancel := context.WithTimeout(ctx, clientTimeout)
	defer cancel()
	code, location, answer, err := w.send(ctx, f, method, w.front.url+w.path, body)
	if err == nil && code == http.StatusTemporaryRedirect { // a standby redirects, too, if it cannot forward
		var u *url.URL
		if u, err = url.Parse(location); err == nil {
			f.node = u.Host
			code, _, answer, err = w.send(ctx, f, method, location, body)
		}
	}
	f.end = time.Now()
	switch {
	case err != nil:
		if failed := (*url.Error)(nil); errors.As(err, &failed) {
			err = failed.Err
		}
		f.text = err.Error()
		return f
	case f.write && code == http.StatusNoContent:
		w.values = map[string]bool{value: true}
		return nil
	case !f.write && code == http.StatusOK:
		var secret struct{ Data struct{ Value string } }
		if json.Unmarshal(answer, &secret) == nil && w.values[secret.Data.Value] {
			return nil
		}
		f.text = "200 with a wrong body: "
	default:
		f.text = strconv.Itoa(code) + ": "
	}
	f.text += string(bytes.TrimSpace(answer[:min(len(answer), 200)]))
	return f
}

// send sends one request and notes when it was written, and to which node.
func (w *worker) send(ctx context.Context, f *failure, method, target string, body []byte) (code int, location string, answer []byte, err error) {
	var mu sync.Mutex // the trace may be called late
	var sent time.Time
	var peer string
	defer func() {
		mu.Lock()
		defer mu.Unlock()
		if f.sent = sent; w.front.direct {
			f.node = peer
		}
	}()
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(i httptrace.GotConnInfo) {
			mu.Lock()
			defer mu.Unlock()
			peer = i.Conn.RemoteAddr().String()
		},
		WroteRequest: func(i httptrace.WroteRequestInfo) {
			mu.Lock()
			defer mu.Unlock()
			if sent.IsZero() && i.Err == nil {
				sent = time.Now()
			}
		},
	}), method, target, bytes.NewReader(body))
	if err != nil {
		return 0, "", nil, err
	}
	req.Header.Set("X-Vault-Token", w.token)
	res, err := w.client.Do(req)
	if err != nil {
		return 0, "", nil, err
	}
	defer res.Body.Close()
	answer, err = io.ReadAll(res.Body)
	return res.StatusCode, res.Header.Get("Location"), answer, err
}

// newHTTPClient returns a client that keeps its connections and follows no redirect by itself.
func (b *bench) newHTTPClient() *http.Client {
	return &http.Client{
		Transport:     &http.Transport{TLSClientConfig: b.trust.Clone()}, // without HTTP/2: what fails is a request, not a connection
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// trusting returns the trust in one CA, without HTTP/2.
func trusting(file string) (*tls.Config, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("no certificate in %s", file)
	}
	return &tls.Config{RootCAs: roots}, nil
}
