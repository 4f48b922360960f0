// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/bench/page"
)

// plainName is the name of the setting that tells how to read all of them.
const plainName = "benchfailover"

// name is that of the setting on the page: each has a place of its own.
func (o *options) name() string {
	return plainName + o.settingFlags()
}

// settingFlags are the flags of the setting, as far as it is not the default.
func (o *options) settingFlags() (flags string) {
	if o.tls {
		flags += " -tls"
	}
	if o.storage != "raft" {
		flags += " -storage " + o.storage
	}
	return flags
}

// setting tells in words what the cluster is.
func (o *options) setting() (title, cluster string) {
	title, cluster = storages[o.storage].title, storages[o.storage].describe
	if o.tls {
		return title + " over TLS", cluster + ", TLS everywhere but at Consul, this plugin without trust in the nodes' CA"
	}
	return title, cluster + ", without TLS"
}

func (r *report) markdown(o options) string {
	var b strings.Builder
	title, cluster := o.setting()
	fmt.Fprintf(&b, "## %s\n\n%d failovers of a real cluster (%s) in %d runs, in turn: %s; all fronts at once under load. Made by `benchfailover%s` on %s.\n\n",
		title, len(r.rounds()), cluster, len(r.runs), strings.Join(o.kinds, ", "), o.flags(), r.machine.Date.UTC().Format(time.DateOnly))
	fmt.Fprintf(&b, "Failed operations, as *beyond + in flight*, for a stop also those that began late: the least and the most of a run, each "+
		"of %d failovers of a kind:\n\n", o.failovers)
	b.WriteString(page.Table(columns, r.cells()))
	b.WriteString("\nOf the same runs:\n\n")
	b.WriteString(page.Table(loadColumns, r.loadCells()))
	if o.name() == plainName {
		fmt.Fprintf(&b, howToRead, o.clients, o.every, clientTimeout.Seconds(), lateAfter, watchEvery)
	} else {
		b.WriteString("\nTo be read as the table of [Failovers](#failovers). The cluster itself:\n\n")
	}
	for _, line := range r.outages() {
		fmt.Fprintf(&b, "- %s\n", line)
	}
	b.WriteString("\n" + r.machine.String())
	return b.String()
}

// flags are those that make the run again.
func (o *options) flags() string {
	return fmt.Sprintf(" -n %d -runs %d", o.failovers, o.runs) + o.settingFlags()
}

const howToRead = `
How to read it:

- Each front has %d clients of its own, each with one operation every %s, a read and a write of a secret in turn. They follow
  one redirect, do not retry, and wait up to %.0fs. They keep their connections as Go's HTTP client does, which by itself
  sends a read once more if the connection that it had kept breaks. An operation fails by a transport error, a status other
  than 200 or 204, or a secret that is not the one last written.
- Kinds: a step-down by Vault's API; kill -9 of the process; stop is SIGTERM, as an upgrade or systemctl does. After a kill or a
  stop the node is started again and unsealed before the next failover.
- In flight: failed operations that had begun before the active node was gone, and went to it. Gone means: its connections
  broke (kill -9), it closed its listener (stop), or it first said of itself that it is not active (step-down, and stop on
  connections that are kept). While it steps down, Vault leaves every request unanswered, that for its health too, and then
  fails them. A proxy does not say what it had sent where: all that it had been asked by then counts.
- Beyond: all other failures, by the failover that was the last to begin. Operations that begin after the node is gone and
  before another is active fail here, unless the front holds them.
- Late: those beyond that began more than %s after a stopped node closed its listener.
- Slowest: the longest operation, failed or not. A front that waits for the next active node has this in place of failures.
- New active to first right answer: from the new node's first 200 of /v1/sys/health to the front's first answer that names it;
  both are looked at every %s. Below zero: the front named it before it said so itself.
- Dead node still named: from the kill to the front's last answer that names the dead node.
- Simulated: a part of the front is played inside the benchmark, as its note says.

The cluster itself:

`
