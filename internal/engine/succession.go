// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds where requests go on whose config has ended, or ends while they wait.

package engine

// stay is where a request waits: on the view to which it came, and on the one that takes its place meanwhile. Either may be
// the first to know the next node.
type stay struct {
	first, heir *View           // the same until another one takes its place
	retired     <-chan struct{} // closed when the heir is in use no more, and then when there may be another one
}

// enter registers a request that waits, so that the view lives until it leaves. A request that came to a config after its
// end waits on the view that has taken its place. It returns nil if there is none.
func (p *Pool) enter(v *View) *stay {
	p.mu.Lock()
	defer p.mu.Unlock()
	if v.users+v.guests == 0 {
		if v = p.successor(v); v == nil {
			return nil
		}
	}
	v.guests++
	return &stay{v, v, v.retired}
}

// follow has the request wait on the view that has taken the place of the heir. Until there is one, it stays where it is.
func (s *stay) follow() {
	p, before := s.heir.pool, s.heir
	p.mu.Lock()
	switch heir := p.heir(before); {
	case before.users > 0: // again
		s.retired = before.retired
	case heir == nil:
		s.retired = p.arrival
	default:
		if heir != s.first { // where it is a guest already
			heir.guests++
		}
		s.heir, s.retired = heir, heir.retired
	}
	p.mu.Unlock()
	if s.heir != before && before != s.first {
		p.leave(before)
	}
	s.heir.Start()
}

// leave is called for each request that has entered.
func (s *stay) leave() {
	s.first.pool.leave(s.first)
	if s.heir != s.first {
		s.first.pool.leave(s.heir)
	}
}

// leave takes a request that waited off a view.
func (p *Pool) leave(v *View) {
	p.mu.Lock()
	v.guests--
	stop := p.drop(v)
	p.mu.Unlock()
	stop()
}

// heir returns the view that takes the place of one that has no users any more: of those on the same cluster that have come
// into use since, the one that is most like it. Where there are several sites on a cluster, one of another address may be
// that of other clients.
func (p *Pool) heir(v *View) (best *View) {
	most := 0
	for _, o := range p.views {
		switch {
		case o.users == 0, o.used <= v.config, !v.watcher.sameCluster(o.watcher):
		case (v.beside || o.beside) && v.Addressing != o.Addressing:
		default:
			if likeness := o.likeness(v.watcher, v.Config); best == nil || likeness >= most {
				best, most = o, likeness
			}
		}
	}
	return best
}

// successor returns the view that has taken the place of one that has ended.
func (p *Pool) successor(v *View) *View {
	if heir := p.heir(v); heir != nil {
		return heir
	}
	if _, same := p.find(v.watcher.discoverer.Key(), v.Config); same != nil {
		return same
	}
	return p.predecessor(v.watcher, v.Config, p.config+1)
}

// known returns what is known now, given the last state of a view that has ended: that of the view that has taken its
// place, or if there is none the last state itself.
func (p *Pool) known(v *View, last *State) *State {
	p.mu.Lock()
	defer p.mu.Unlock()
	if v = p.successor(v); v != nil {
		return v.current.Load()
	}
	return last
}
