// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/bench/page"
	"github.com/vault-redirector/caddy-vault-redirect/internal/words"
)

// plainName is the name of the setting that tells how to read all of them.
const plainName = "benchfailover"

// name is that of the setting on the page: each has a place of its own.
func (o *options) name() string {
	return plainName + o.settingFlags()
}

// settingFlags are the flags of the setting, as far as it is not the default.
func (o *options) settingFlags() (flags string) {
	if o.busy {
		flags += " -busy"
	}
	if o.redirects > 0 {
		flags += fmt.Sprintf(" -redirects %d", o.redirects)
	}
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
	if o.busy {
		title += " with busy clients"
	}
	if o.redirects > 0 {
		title += fmt.Sprintf(" beside %d redirects a second", o.redirects)
	}
	if o.tls {
		return title + " over TLS", cluster + ", TLS everywhere except to Consul; the redirects of this plugin do not trust the nodes' CA"
	}
	return title, cluster + ", without TLS"
}

func (r *report) markdown(o options) string {
	var b strings.Builder
	o.runs, o.users = len(r.runs), r.users() // with those of earlier processes
	title, cluster := o.setting()
	together := "all fronts at once, the kinds of clients one after the other"
	if o.busy {
		together = fmt.Sprintf("one front and one kind of client after the other, each client with one operation after another, at most one every %s", busyEvery)
	}
	failovers := 0
	for _, of := range r.outages() {
		failovers += len(of)
	}
	fmt.Fprintf(&b, "## %s\n\n%s of a real cluster (%s) in %s, under load through %s. Made by `benchfailover%s` on %s.\n\n",
		title, words.Plural(failovers, "failover"), cluster, words.Plural(len(r.runs), "run"), together, o.flags(), r.machine.Date.UTC().Format(time.DateOnly))
	fmt.Fprintf(&b, "All operations that failed, those that were in flight included, in %s of each kind, *step-down · kill -9 · stop*: "+
		"the least and the most of a run:\n\n", words.Plural(o.failovers, "failover"))
	failures, details, following := r.failures(), r.details(), r.following()
	b.WriteString(page.Table(failures.columns, failures.lines))
	b.WriteString("\nHow many of them were in flight, how many were reads, how many writes were carried out twice (by the front + because the client sent " +
		"them again), and the slowest operation, each as *step-down · kill -9 · stop*:\n\n")
	b.WriteString(page.Table(details.columns, details.lines))
	b.WriteString("\nHow soon the fronts follow, as median (99th percentile):\n\n")
	b.WriteString(page.Table(following.columns, following.lines))
	if o.name() == plainName {
		fmt.Fprintf(&b, howToRead, o.clients, o.every, clientTimeout.Seconds(), watchEvery, proxiesEvery)
	} else {
		b.WriteString("\nThe columns are explained under [Failovers](#failovers). The cluster itself:\n\n")
	}
	for _, line := range r.remarks() {
		fmt.Fprintf(&b, "- %s\n", line)
	}
	b.WriteString("\n" + r.machine.String())
	return b.String()
}

// flags are those that make the run again.
func (o *options) flags() string {
	flags := fmt.Sprintf(" -n %d -runs %d", o.failovers, o.runs) + o.settingFlags()
	if text := o.only.String(); text != "" {
		flags += " -only " + quoted(text)
	}
	for _, kind := range o.kinds {
		if len(o.kinds) < len(ways) {
			flags += " -kind " + quoted(kind)
		}
	}
	for _, user := range o.users {
		if len(o.users) < len(clientKinds) {
			flags += " -client " + user.key
		}
	}
	return flags
}

// bare is what a shell does not change.
var bare = regexp.MustCompile(`^[\w-]+$`)

// quoted is a word as a shell takes it, without the backquotes that would end code in Markdown.
func quoted(word string) string {
	if bare.MatchString(word) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "`", ".") + "'"
}

const howToRead = `
How to read it:

- Each front has %d clients, each with connections of its own, which write and read a secret in turn, one operation every %s, in
  version 2 of Vault's key-value store. They keep connections open, and wait for up to %.0fs.
- Vault's own client is ` + "`github.com/hashicorp/vault/api`" + ` with its defaults, as the ` + "`vault`" + ` program, Vault Agent and Terraform use it. It
  follows one redirect, and after a transport error or a status of 500 or above it tries twice more, after about a second each. Once
  redirected, it tries again at the node, not at the front.
- Clients without retries are Go's HTTP client, which follows one redirect, and repeats a read by itself if the connection that it had kept
  breaks.
- An operation has failed if it ended with a transport error, a status other than 200 (or 404 for a secret that was never written), or a secret
  that is not the one written last; with Vault's own client, if its last try did.
- A step-down is made by Vault's API, kill -9 ends the process, stop is SIGTERM, as an upgrade or systemctl sends it. After a kill
  or a stop, the node is started again and unsealed before the next failover. An operation counts with the failover that began while
  it was under way, unless it was stuck by then for 3 s; else with the last one that had begun.
- In flight: failed operations that had begun before the active node was gone, and went to it. It is gone when its connections break
  (kill -9), when it closes its listener (stop), or when it first says that it is not active (step-down; stop, on connections that
  are kept). While Vault steps down, it leaves all requests unanswered, health checks included, and then fails them. A proxy does
  not show where it sent an operation: all that it had received by then count.
- Carried out twice: each write has a value of its own, and makes a version of its secret; in the end, all versions are read. Vault's own client
  sends a write again, whatever became of it. So through any front, a write is carried out twice if the node that was killed had carried it out
  and had not answered.
- Slowest: the longest operation, failed or not. A front that makes requests wait has this in place of failures.
- New active to first right answer: from the new node's first 200 for /v1/sys/health to the front's first answer that names that
  node. Nodes and redirectors are checked every %s, proxies every %s. This plugin is asked for its health document, since it probes more often
  the more it redirects. Negative: the front named the node before the node said so itself.
- Stopped, killed node still named: from when the node was gone to the front's last answer that names it. A stopped node goes on answering on
  connections that are kept, so a proxy may rightly use it.
- Simulated: the benchmark plays a part of the front, as its note says.

The cluster itself:

`
