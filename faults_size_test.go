// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

// endless writes an answer of 300 MiB, unless it is no longer read.
func endless(w io.Writer, first, chunk string) {
	if _, err := io.WriteString(w, first); err != nil {
		return
	}
	for sent := 0; sent < 300<<20; sent += len(chunk) {
		if _, err := io.WriteString(w, chunk); err != nil {
			return
		}
	}
}

// sizeFault is an answer that is too large.
type sizeFault struct {
	name   string
	answer func(w http.ResponseWriter, out io.Writer)
	reason discovery.Reason
	detail string
	limit  int64 // of bytes on the wire; beyond it, buffers of the kernel are filled
}

// The rows run one after the other, and no other test beside them: memory is that of the process.
func TestFaultsOfSize(t *testing.T) {
	if testing.Short() {
		t.Skip("sends some hundred MiB, which keeps a core busy")
	}
	entries := strings.Repeat(strings.Trim(lie(), "[]")+",", 64)
	for _, row := range []sizeFault{
		{"instances", func(_ http.ResponseWriter, out io.Writer) { endless(out, "[", entries) }, discovery.ReasonConsulError, "too large", maxAnswer},
		{"one string", func(_ http.ResponseWriter, out io.Writer) { endless(out, `["`, strings.Repeat("x", 1<<16)) }, discovery.ReasonConsulError, "too large", maxAnswer},
		{"blanks", func(_ http.ResponseWriter, out io.Writer) { endless(out, "", strings.Repeat(" ", 1<<16)) }, discovery.ReasonConsulError, "too large", maxAnswer},
		{"zipped", func(w http.ResponseWriter, out io.Writer) {
			w.Header().Set("Content-Encoding", "gzip")
			endless(out, zip("["), zip(strings.Repeat(" ", 1<<20)))
		}, discovery.ReasonConsulError, "too large", maxAnswer},
		{"an error page", func(w http.ResponseWriter, out io.Writer) {
			w.WriteHeader(http.StatusInternalServerError)
			endless(out, "", strings.Repeat("no cluster leader ", 4096))
		}, discovery.ReasonConsulError, "no cluster leader", maxErrorAnswer},
		{"headers", func(w http.ResponseWriter, _ io.Writer) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			endless(conn, "HTTP/1.1 200 OK\r\n", "X-Padding: "+strings.Repeat("x", 4096)+"\r\n")
		}, discovery.ReasonConsulUnreachable, "exceeded", 10 << 20},
	} {
		t.Run(row.name, row.test)
	}
}

// test makes a site suffer the fault, and checks how much of it was read and kept.
func (f sizeFault) test(t *testing.T) {
	const (
		grow = 32 << 20  // what may be left afterwards
		peak = 200 << 20 // what the heap may grow by meanwhile, garbage included
	)
	consul := standin.RunConsul(t, truthBefore()...)
	s := newSite(t, consul, "")
	s.follows(t, time.Now(), "vault-1", 1)
	before, highest := heap(), new(atomic.Uint64)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go watchHeap(ctx, highest)

	var most atomic.Int64 // bytes of one answer that left
	s.suffer(t, fault{begin: func(c *standin.Consul) {
		on(func(w http.ResponseWriter, _ *http.Request) {
			out := &counter{Writer: w}
			f.answer(w, out)
			for n := most.Load(); out.n > n && !most.CompareAndSwap(n, out.n); n = most.Load() {
			}
		})(c)
	}, reason: f.reason, detail: f.detail})
	cancel()
	if n, limit := most.Load(), f.limit+16<<20; n > limit {
		t.Errorf("%d bytes were read or buffered, want at most %d", n, limit)
	}
	if high := highest.Load(); high > before+peak {
		t.Errorf("the heap grew from %d MiB to %d MiB", before>>20, high>>20)
	}
	if after := heap(); after > before+grow {
		t.Errorf("%d MiB before, %d MiB after", before>>20, after>>20)
	}
}

// zip compresses. Compressed texts one after the other are one compressed text.
func zip(text string) string {
	var out strings.Builder
	w := gzip.NewWriter(&out)
	_, _ = io.WriteString(w, text)
	_ = w.Close()
	return out.String()
}

// counter counts what is written.
type counter struct {
	io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	c.n += int64(n)
	return n, err
}

// heap returns what is in use.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// watchHeap keeps the most that the heap has held, garbage included.
func watchHeap(ctx context.Context, highest *atomic.Uint64) {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		metrics.Read(sample)
		highest.Store(max(highest.Load(), sample[0].Value.Uint64()))
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}
