// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/bench/page"
)

// markdown returns the tables. costs are those over http and over TLS.
func markdown(o options, m *page.Machine, costs [2][]cost, loads [2][]load, spans []time.Duration) string {
	var b strings.Builder
	fmt.Fprintf(&b, "## What many redirectors cost\n\nMade by `benchprobe` on %s.\n\n", m.Date.UTC().Format(time.DateOnly))
	fmt.Fprintf(&b, "CPU time that the probes of so many redirectors take at a Vault node, in per cent of one core, beyond what the node uses "+
		"without them; each over %s, with the default probes and no other traffic: twice a second at the active node, every 5 s at each standby, each over "+
		"a new connection, over TLS with sessions resumed. A standby that serves reads (option `standby`) is probed like the active node:\n\n", o.span)
	var lines [][]string
	for i, plain := range costs[0] {
		secure := costs[1][i]
		lines = append(lines, []string{
			fmt.Sprint(plain.redirectors), percent(plain.active), percent(plain.standby), percent(secure.active), percent(secure.standby),
		})
	}
	b.WriteString(page.Table([]string{"redirectors", "http: active node", "a standby", "TLS: active node", "a standby"}, lines))
	loadTables(&b, o, loads)
	slices.Sort(spans)
	fmt.Fprintf(&b, "\n%d redirectors (with `probe off`, each with a blocking query of its own, all in one Caddy) on one Consul agent: "+
		"from the registration of another active node until the last of them redirects to it, which includes asking each, %d times: "+
		"median %d ms, worst %d ms.\n\n", o.watchers, len(spans), spans[len(spans)/2].Milliseconds(), spans[len(spans)-1].Milliseconds())
	b.WriteString(m.String())
	return b.String()
}

// loadTables writes the tables of what probes cost under load.
func loadTables(b *strings.Builder, o options, loads [2][]load) {
	fmt.Fprintf(b, "\nUnder load: each client asks a redirector, follows to the active node over a connection of its own (over TLS with a full handshake), "+
		"reads a secret there and leaves. What the clients cost the node is measured with redirectors that do not probe, and what probes cost is "+
		"what it uses beyond that, in per cent of one core; each over %s.\n", o.span)
	for i, scheme := range []string{"http", "TLS"} {
		fmt.Fprintf(b, "\n%d reads a second over %s, spread over all redirectors:\n\n", o.rate[i], scheme)
		var lines [][]string
		for _, l := range loads[i] {
			lines = append(lines, []string{
				fmt.Sprint(l.redirectors), fmt.Sprintf("%.0f", l.reads), fmt.Sprintf("%.1f", l.probes), percent(l.clients), percent(l.probing),
				fmt.Sprintf("%.2f", l.share()),
			})
		}
		b.WriteString(page.Table([]string{"redirectors", "reads a second", "probes a second", "CPU for clients", "CPU for probes", "one probe : one client"}, lines))
	}
}

// percent tells a part of a core. Differences of less than a tenth of a per cent are noise.
func percent(part float64) string {
	if part < 0.0005 {
		return "less than 0.1 %"
	}
	return fmt.Sprintf("%.1f %%", 100*part)
}
