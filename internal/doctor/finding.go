// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode"
)

// Severity is how bad a finding is: a closed set.
type Severity string

// The severities.
const (
	OK      Severity = "ok"
	Warning Severity = "warning" // it works, but not as well as it should, or not for long
	Wrong   Severity = "wrong"   // clients fail now, or will when the active node changes
)

// Finding is one line of the outcome.
type Finding struct {
	Check    string   `json:"check"`   // what was looked at: a closed set of words
	Subject  string   `json:"subject"` // of which node, service or Consul
	Severity Severity `json:"result"`
	Detail   string   `json:"detail"` // what was found
	Remedy   string   `json:"remedy"` // what to do about it; empty with ok
}

// finding returns a finding on the cluster.
func (o *Observation) finding(check string, severity Severity, detail, remedy string) Finding {
	return Finding{check, o.Name, severity, detail, remedy}
}

// finding returns a finding on the node.
func (n *Node) finding(check string, severity Severity, detail, remedy string) Finding {
	return Finding{check, n.Label, severity, detail, remedy}
}

// add adds what else was found. The worst severity counts.
func (f *Finding) add(severity Severity, detail, remedy string) {
	if f.Severity != Wrong && severity != OK {
		f.Severity = severity
	}
	f.Detail = strings.TrimPrefix(f.Detail+"; "+detail, "; ")
	if remedy != "" {
		f.Remedy = strings.TrimPrefix(f.Remedy+"; "+remedy, "; ")
	}
}

// Report is what was found of one cluster.
type Report struct {
	Title    string
	Findings []Finding
}

// Clean makes text from other machines fit for a terminal and takes secrets out of it.
func (r *Report) Clean(secrets []string) {
	clean := func(text string) string {
		for _, s := range secrets {
			if s != "" {
				text = strings.ReplaceAll(text, s, "[redacted]")
			}
		}
		return strings.Map(func(c rune) rune {
			if unicode.IsGraphic(c) {
				return c
			}
			return '?'
		}, strings.ToValidUTF8(text, "?"))
	}
	r.Title = clean(r.Title)
	for i := range r.Findings {
		f := &r.Findings[i]
		f.Subject, f.Detail, f.Remedy = clean(f.Subject), clean(f.Detail), clean(f.Remedy)
	}
}

// Count returns how many findings of the reports have a severity.
func Count(reports []Report, severity Severity) (n int) {
	for _, r := range reports {
		for _, f := range r.Findings {
			if f.Severity == severity {
				n++
			}
		}
	}
	return n
}

// Print prints reports for people.
func Print(to io.Writer, reports []Report) error {
	for _, r := range reports {
		fmt.Fprintf(to, "%s\n", r.Title)
		w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
		for _, f := range r.Findings {
			fmt.Fprintf(w, "  %s\t%s\t%s\t%s\n", f.Severity, f.Check, f.Subject, f.Detail)
			if f.Remedy != "" {
				fmt.Fprintf(w, "\t\t\t-> %s\n", f.Remedy)
			}
		}
		if err := w.Flush(); err != nil {
			return err
		}
		fmt.Fprintln(to)
	}
	_, err := fmt.Fprintf(to, "%d ok, %d warning, %d wrong\n", Count(reports, OK), Count(reports, Warning), Count(reports, Wrong))
	return err
}

// PrintJSON prints all findings of the reports as one JSON list. Where there are several reports, the subjects of each
// begin with its cluster.
func PrintJSON(to io.Writer, reports []Report) error {
	list := []Finding{}
	for _, r := range reports {
		for _, f := range r.Findings {
			if len(reports) > 1 {
				f.Subject = r.Title + ": " + f.Subject
			}
			list = append(list, f)
		}
	}
	e := json.NewEncoder(to)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(list)
}
