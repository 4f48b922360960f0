// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"fmt"
	"net/http/httptrace"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// writesPerKey is how often a secret is written before the client takes another one, so that few versions have to be looked at.
const writesPerKey = 25

// operation is one read or write of a secret.
type operation struct {
	write      bool
	key, value string // of a write
	start, end time.Time
	tries      []try
	text       string // why it failed; "" if it did not
	times      int    // how often the write was carried out, see countWrites
}

func (o *operation) failed() bool { return o.text != "" }

// went reports whether the operation sent a request to a node, or wanted to.
func (o *operation) went(node string) bool {
	return slices.ContainsFunc(o.tries, func(t try) bool { return t.address == node })
}

// try is one request of an operation.
type try struct {
	address string    // host:port of the node, or of the front
	begin   time.Time // when it wanted a connection
	sent    time.Time // when it was written; zero: it was not
}

// trace notes the requests of an operation, those that a client repeats by itself included.
type trace struct {
	mu    sync.Mutex // it may be called late
	tries []try
}

func (t *trace) last() *try { return &t.tries[len(t.tries)-1] }

// in returns a context whose requests are noted.
func (t *trace) in(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(address string) {
			t.mu.Lock()
			defer t.mu.Unlock()
			t.tries = append(t.tries, try{address: address, begin: time.Now()})
		},
		GotConn: func(i httptrace.GotConnInfo) {
			t.mu.Lock()
			defer t.mu.Unlock()
			t.last().address = i.Conn.RemoteAddr().String() // of a name, too
		},
		WroteRequest: func(i httptrace.WroteRequestInfo) {
			t.mu.Lock()
			defer t.mu.Unlock()
			if i.Err == nil {
				t.last().sent = time.Now()
			}
		},
	})
}

func (t *trace) all() []try {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.tries)
}

// worker is one client of a front, with connections of its own. It writes and reads a secret in turn.
type worker struct {
	front  *front
	client client
	name   string // begin of the secrets' keys
	shift  int    // every other client begins with a read
	done   []*operation

	key string
	may map[string]bool // what a read may return: what was last written, and what writes that failed since may have written; "" for no secret
}

func (b *bench) newWorker(p *phase, f *front, i int) (*worker, error) {
	c, err := p.user.open(b, f)
	if err != nil {
		return nil, fmt.Errorf("%s, client %s: %w", f.name, p.user.name, err)
	}
	return &worker{front: f, client: c, name: fmt.Sprintf("%s-%s-%d", f.key, p.user.key, i), shift: i % 2}, nil
}

// run works until it is told to stop, and finishes what it has begun then. ctx cuts that off, too.
func (w *worker) run(ctx, working context.Context, every, first time.Duration) {
	defer w.client.close()
	if wait.Sleep(working, first) != nil {
		return
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-tick.C:
		case <-working.Done():
			return
		}
		w.done = append(w.done, w.operate(ctx, n))
	}
}

// operate does the operation of number n, counted from 0.
func (w *worker) operate(ctx context.Context, n int) *operation {
	if n%(2*writesPerKey) == 0 {
		w.key, w.may = w.name+"/"+strconv.Itoa(n/(2*writesPerKey)), map[string]bool{"": true}
	}
	var t trace
	o := &operation{write: (n+w.shift)%2 == 0, start: time.Now()}
	var err error
	if o.write {
		o.key, o.value = w.key, strconv.Itoa(n)
		w.may[o.value] = true
		if err = w.client.write(t.in(ctx), o.key, o.value); err == nil {
			w.may = map[string]bool{o.value: true}
		}
	} else {
		var value string
		if value, err = w.client.read(t.in(ctx), w.key); err == nil && !w.may[value] {
			err = fmt.Errorf("wrong secret: %q", value)
		}
	}
	o.end, o.tries = time.Now(), t.all()
	if err != nil {
		o.text = explain(err)
	}
	return o
}
