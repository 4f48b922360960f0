// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package engine

import "slices"

// Views returns the views that are in use now, in the order in which they were made. One that merely lives on for
// requests that wait is not among them.
func (p *Pool) Views() []*View {
	return slices.DeleteFunc(p.all(), func(v *View) bool { return v.users == 0 })
}

// running returns how many views are derived, be it for nothing but requests that wait.
func (p *Pool) running() int {
	return len(slices.DeleteFunc(p.all(), func(v *View) bool { return !v.started() }))
}

func (p *Pool) all() (views []*View) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.clusters {
		views = append(views, c.views...)
	}
	return views
}

func (v *View) pool() *Pool { return v.cluster.pool }
