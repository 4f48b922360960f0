// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

//go:build linux

package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/bench/page"
)

// titles of ops, in tables and sentences.
var titles = map[op]string{
	opRead: "read", opWrite: "write", opList: "list", opDelete: "delete", opBig: "write 600 KiB", opWrap: "wrap and unwrap",
	opUserpass: "userpass", opAppRole: "AppRole", opCert: "certificate", opTemplate: "template", opCache: "cache",
	opNavigate: "navigation", opSame: "`fetch`, same origin", opOther: "`fetch`, other origin", opPreflight: "the same with a preflight",
}

// markdown returns the tables of the run.
func (m *matrix) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Made by `make clients` on %s. %s\n\n", m.machine.Date.UTC().Format(time.DateOnly), m.machine.Versions())
	b.WriteString("- redirect: it works, by a redirect.\n- proxied: it works with a line in the redirector's configuration.\n" +
		"- **no**: it does not work; see [below the tables](#clients-that-do-not-follow).\n- –: the client has no call for that, or was not asked.\n\n")
	b.WriteString(m.table("Secrets (kv-v2):", opRead, opWrite, opList, opDelete, opBig))
	b.WriteString(m.table("Wrapped tokens and logins:", opWrap, opUserpass, opAppRole, opCert))
	b.WriteString(m.table("What agents do by themselves (template: a file is rendered anew when the secret has changed, also after the failover; cache: "+
		"asked a second time, the agent answers by itself):", opTemplate, opCache))
	b.WriteString(m.table("In a browser, with Vault's `sys/config/cors` allowing the page's origin:", opNavigate, opSame, opOther, opPreflight))
	b.WriteString(m.mends())
	b.WriteString("\n### Operators' own tools\n\nWith the redirector as their `VAULT_ADDR`:\n\n")
	b.WriteString(page.Table([]string{"Command", "Through the redirector", "Instead"}, m.tools))
	var left []string
	for _, r := range m.rows {
		if r.why != "" {
			left = append(left, fmt.Sprintf("%s (%s)", r.name, r.why))
		}
	}
	if len(left) > 0 {
		fmt.Fprintf(&b, "\nNot run: %s.\n", strings.Join(left, "; "))
	}
	return b.String()
}

// table has a line for each client that was asked one of the ops.
func (m *matrix) table(title string, ops ...op) string {
	columns := []string{"Client"}
	for _, o := range ops {
		columns = append(columns, titles[o])
	}
	var lines [][]string
	for _, r := range m.rows {
		line, some := []string{r.title()}, false
		for _, o := range ops {
			text := string(lacking)
			if c := r.cells[o]; c != nil {
				text, some = string(c.outcome), true
			}
			line = append(line, text)
		}
		if some {
			lines = append(lines, line)
		}
	}
	if lines == nil {
		return ""
	}
	return title + "\n\n" + page.Table(columns, lines) + "\n"
}

// mends tells of each no what its user sees, what mends it, and what came of that.
func (m *matrix) mends() string {
	var lines [][]string
	var faults strings.Builder
	for _, r := range m.rows {
		type group struct{ said, with string }
		var groups []group
		ops := map[group][]string{}
		for _, o := range r.asked(m.short) {
			c, with := r.cells[o], r.mendCells[o]
			if c == nil || c.outcome != no {
				continue
			}
			g := group{said: code(c.said), with: "–"}
			if with != nil {
				g.with = string(with.outcome)
			}
			if with != nil && with.outcome == no && with.said != c.said {
				g.with += ": " + code(with.said)
			}
			if ops[g] == nil {
				groups = append(groups, g)
			}
			ops[g] = append(ops[g], titles[o])
		}
		for _, g := range groups {
			lines = append(lines, []string{r.title(), strings.Join(ops[g], ", "), g.said, code(r.mend), g.with})
		}
		if len(groups) > 0 {
			fmt.Fprintf(&faults, "- %s: %s\n", r.title(), r.fault)
		}
	}
	if lines == nil {
		return ""
	}
	return "### Clients that do not follow\n\nWhat users of the clients with a **no** see, and the line in `vault_redirect { … }` with which the same was tried again, " +
		"also before and after the failover:\n\n" + page.Table([]string{"Client", "Cannot", "Its user sees", "Line", "With the line"}, lines) +
		"\nThe causes:\n\n" + faults.String()
}

// title is the client's name with its version.
func (r *row) title() string { return strings.TrimSpace(r.name + " " + r.of) }

// code makes what a client said fit for a cell of a table.
func code(said string) string {
	if said = strings.NewReplacer("|", `\|`, "`", "'").Replace(said); len(said) > 180 {
		said = strings.ToValidUTF8(said[:180], "") + "…"
	}
	return "`" + said + "`"
}
