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
		return title + " over TLS", cluster + ", TLS everywhere except to Consul; this plugin does not trust the nodes' CA"
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
		b.WriteString("\nThe columns are explained under [Failovers](#failovers). The cluster itself:\n\n")
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

- Each front has %d clients, which read and write a secret in turn, one operation every %s. They follow one redirect, do not
  retry, and wait for up to %.0fs. They keep connections open as Go's HTTP client does, which repeats a read by itself if the
  connection that it had kept breaks. An operation has failed if it ended with a transport error, a status other than 200 or 204,
  or a secret that is not the one written last.
- A step-down is made by Vault's API, kill -9 ends the process, stop is SIGTERM, as an upgrade or systemctl sends it. After a kill
  or a stop, the node is started again and unsealed before the next failover.
- In flight: failed operations that had been sent to the active node before it was gone. It is gone when its connections break
  (kill -9), when it closes its listener (stop), or when it first says that it is not active (step-down; stop, on connections that
  are kept). While Vault steps down, it leaves all requests unanswered, health checks included, and then fails them. A proxy does
  not show where it sent an operation: all that it had received by then count.
- Beyond: all other failures, counted with the failover that began last. Operations that begin while no node is active are among
  them, unless the front makes them wait.
- Late: those beyond that began more than %s after a stopped node closed its listener.
- Slowest: the longest operation, failed or not. A front that makes requests wait has this in place of failures.
- New active to first right answer: from the new node's first 200 for /v1/sys/health to the front's first answer that names that
  node; both are checked every %s. Negative: the front named the node before the node said so itself.
- Dead node still named: from the kill to the front's last answer that names the dead node.
- Simulated: the benchmark plays a part of the front, as its note says.

The cluster itself:

`
