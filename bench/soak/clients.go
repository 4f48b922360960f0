// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"golang.org/x/time/rate"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// startClients sends requests through Caddy until the context ends, and follows no redirect.
func (s *soak) startClients(ctx context.Context, group *sync.WaitGroup) {
	limiter := rate.NewLimiter(rate.Limit(s.rate), s.clients)
	for i := range s.clients {
		group.Go(func() {
			transport := &http.Transport{}
			defer transport.CloseIdleConnections()
			for n := 0; limiter.Wait(ctx) == nil; n++ {
				path := fmt.Sprintf("/v1/secret/data/client%%2F%d?n=%d", i, n)
				at, what, target := request(ctx, transport, s.caddy.site(), path)
				if ctx.Err() != nil {
					return
				}
				s.score.add(at, what, target)
			}
		})
	}
}

// clientTimeout is that of Vault's own clients. It is longer than the default of hold: what waits is answered.
const clientTimeout = time.Minute

// request sends one and returns when it was answered, with what, and where to.
func request(ctx context.Context, transport *http.Transport, site, path string) (at time.Time, what verdict, target string) {
	ctx, cancel := context.WithTimeout(ctx, clientTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, site+path, nil)
	if err != nil {
		return time.Now(), lost, err.Error()
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return time.Now(), lost, err.Error()
	}
	defer resp.Body.Close()
	at = time.Now()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return at, lost, err.Error()
	}
	location := resp.Header.Get("Location")
	switch target, ok := strings.CutSuffix(location, path); {
	case resp.StatusCode == http.StatusServiceUnavailable:
		return at, unavailable, ""
	case resp.StatusCode != http.StatusTemporaryRedirect:
		return at, lost, resp.Status
	case !ok:
		return at, wrong, location
	default:
		return at, pending, target
	}
}

// verdict is what an answer was worth.
type verdict int

const (
	right verdict = iota
	late
	wrong
	unavailable // 503
	lost        // no answer, or one that means nothing
	verdicts    // how many there are
	pending     = verdicts
)

// score counts verdicts, for each fault.
type score struct {
	mu      sync.Mutex
	phase   string            // the fault of now
	order   []string          // of first appearance
	counts  map[string]*count // by phase
	waiting []answer          // to be judged
	good    time.Time         // when the last 307 came that was not wrong
	notes   []string          // the first answers that were wrong or lost
}

type count struct {
	times int
	by    [verdicts]int
	gap   time.Duration // the longest time without a redirect that was right
}

// answer is a redirect that is not judged yet.
type answer struct {
	at     time.Time
	phase  string
	target string
}

func newScore() *score {
	s := &score{counts: map[string]*count{}}
	s.begin("no fault yet")
	return s
}

// begin makes all that follows count as an effect of a fault.
func (s *score) begin(phase string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.phase = phase
	if s.counts[phase] == nil {
		s.counts[phase] = new(count)
		s.order = append(s.order, phase)
	}
	s.counts[phase].times++
}

func (s *score) add(at time.Time, what verdict, target string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := answer{at, s.phase, target}
	if what == pending {
		s.waiting = append(s.waiting, a)
		return
	}
	s.count(a, what)
}

// count is called with the lock held.
func (s *score) count(a answer, what verdict) {
	c := s.counts[a.phase]
	c.by[what]++
	switch what {
	case right:
		if !s.good.IsZero() {
			c.gap = max(c.gap, a.at.Sub(s.good))
		}
		s.good = a.at
	case wrong, lost:
		if len(s.notes) < 20 {
			s.notes = append(s.notes, fmt.Sprintf("%s %s, %s: %s", a.at.Format("15:04:05.000"), map[verdict]string{wrong: "wrong", lost: "lost"}[what], a.phase, a.target))
		}
	}
}

// run judges what has waited long enough.
func (s *score) run(ctx context.Context, o *oracle) {
	for wait.Sleep(ctx, askEvery) == nil {
		s.judge(o, time.Now().Add(-slack))
	}
}

// settle judges the rest. The oracle has ended: what came in its last moments is judged by what it knew then.
func (s *score) settle(o *oracle) { s.judge(o, time.Now()) }

func (s *score) judge(o *oracle, until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.SortStableFunc(s.waiting, func(a, b answer) int { return a.at.Compare(b.at) })
	n := 0
	for n < len(s.waiting) && !s.waiting[n].at.After(until) {
		s.count(s.waiting[n], o.judge(s.waiting[n].target, s.waiting[n].at))
		n++
	}
	s.waiting = slices.Delete(s.waiting, 0, n)
}

func (s *score) total() (sum count) {
	for _, c := range s.counts {
		for i, n := range c.by {
			sum.by[i] += n
		}
		sum.times += c.times
		sum.gap = max(sum.gap, c.gap)
	}
	sum.times -= s.counts[s.order[0]].times // no fault yet
	return sum
}

func (s *score) print(out io.Writer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, note := range s.notes {
		fmt.Fprintln(out, note)
	}
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "fault\ttimes\trequests\t307 right\t307 late\t307 wrong\t503\tlost\tlongest without right\t")
	line := func(name string, c count) {
		requests := 0
		for _, n := range c.by {
			requests += n
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t\n", name, c.times, requests,
			c.by[right], c.by[late], c.by[wrong], c.by[unavailable], c.by[lost], c.gap.Round(10*time.Millisecond))
	}
	for _, phase := range s.order {
		line(phase, *s.counts[phase])
	}
	line("all", s.total())
	w.Flush()
}

// verdict is an error if a redirect was wrong or a request was lost, or if there were none.
func (s *score) verdict() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum := s.total()
	if n := sum.by[wrong] + sum.by[lost]; n > 0 || sum.by[right] == 0 {
		return fmt.Errorf("%d redirects were wrong, %d requests were lost, %d redirects were right", sum.by[wrong], sum.by[lost], sum.by[right])
	}
	return nil
}
