// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package standin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	healthPath  = "/v1/health/service/"
	defaultWait = 5 * time.Minute
	maxWait     = 10 * time.Minute
)

// ServeHTTP answers as an agent would; it is exported for net/http's sake.
func (c *Consul) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	service, isQuery := strings.CutPrefix(r.URL.Path, healthPath)
	fault, faults := c.arrive(r, isQuery)
	if isQuery {
		defer c.leave()
	}
	if fault != nil && fault(w, r) {
		return
	}
	switch {
	case isQuery && r.Method == http.MethodGet && service != "":
		c.query(w, r, service, faults)
	case r.URL.Path == "/v1/status/leader" && r.Method == http.MethodGet:
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, "%q", c.Addr())
	case isQuery && service != "":
		http.Error(w, fmt.Sprintf("method %s not allowed", r.Method), http.StatusMethodNotAllowed)
	default:
		http.NotFound(w, r)
	}
}

// arrive notes the request and returns the fault of that moment.
func (c *Consul) arrive(r *http.Request, isQuery bool) (func(http.ResponseWriter, *http.Request) bool, uint64) {
	query := r.URL.Query()
	index, _ := strconv.ParseUint(query.Get("index"), 10, 64)
	wait, _ := time.ParseDuration(query.Get("wait"))
	defer c.stir.fire()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests = append(c.requests, Request{
		Time: time.Now(), Method: r.Method, Path: r.URL.Path, RawQuery: r.URL.RawQuery,
		Index: index, Wait: wait, Token: r.Header.Get("X-Consul-Token"), RemoteAddr: r.RemoteAddr,
	})
	if isQuery {
		c.queries++
		c.open++
	}
	return c.fault, c.faults
}

func (c *Consul) leave() {
	c.mu.Lock()
	c.open--
	c.mu.Unlock()
	c.stir.fire()
}

// query blocks until the index has passed the one asked for, the wait is over, or the client has gone.
// met is the number of the fault that the request has been shown already.
func (c *Consul) query(w http.ResponseWriter, r *http.Request, service string, met uint64) {
	index, wait, complaint := blocking(r)
	if complaint != "" {
		http.Error(w, complaint, http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), wait)
	defer cancel()

	c.mu.Lock()
	epoch := c.epoch
	c.mu.Unlock()
	for over := false; ; {
		next := c.wake.next()
		c.mu.Lock()
		fault, faults := c.fault, c.faults
		done := over || index == 0 || c.index > index || c.epoch != epoch
		body, current, header := c.services[service], c.index, c.header
		c.mu.Unlock()

		if faults != met {
			met = faults
			if fault != nil && fault(w, r) {
				return
			}
		}
		if done {
			answer(w, body, current, index > 0, header)
			return
		}
		select {
		case <-next:
		case <-ctx.Done():
			if r.Context().Err() != nil {
				return
			}
			over = true
		}
	}
}

// blocking reads index and wait with Consul's own defaults, bounds and complaints.
func blocking(r *http.Request) (index uint64, wait time.Duration, complaint string) {
	var err error
	query := r.URL.Query()
	if s := query.Get("wait"); s != "" {
		if wait, err = time.ParseDuration(s); err != nil {
			return 0, 0, "Invalid wait time"
		}
	}
	if s := query.Get("index"); s != "" {
		if index, err = strconv.ParseUint(s, 10, 64); err != nil {
			return 0, 0, "Invalid index"
		}
	}
	if wait <= 0 {
		wait = defaultWait
	}
	return index, min(wait, maxWait), ""
}

func answer(w http.ResponseWriter, body json.RawMessage, index uint64, blocking bool, edit func(http.Header)) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Consul-Index", strconv.FormatUint(index, 10))
	h.Set("X-Consul-Lastcontact", "0")
	// Queries with an index are answered from a stream of events, which knows neither of leaders nor of what was filtered.
	h.Set("X-Consul-Knownleader", strconv.FormatBool(!blocking))
	h.Set("X-Consul-Query-Backend", "blocking-query")
	if blocking {
		h.Set("X-Consul-Query-Backend", "streaming")
	}
	if edit != nil {
		edit(h)
	}
	if body == nil {
		body = json.RawMessage("[]")
	}
	_, _ = w.Write(body)
}
