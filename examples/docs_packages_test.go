// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package examples_test

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const modulePath = "github.com/vault-redirector/caddy-vault-redirect"

// rootPackage is how the table of CONTRIBUTING.md names the root.
const rootPackage = "."

// listedPackages returns the packages of the table in CONTRIBUTING.md, in its order: each may import those above it.
func listedPackages(t *testing.T) (list []string) {
	t.Helper()
	_, section, found := strings.Cut(page(t, "CONTRIBUTING.md"), "\n## Where things are\n")
	if !found {
		t.Fatal("CONTRIBUTING.md has no section on where things are")
	}
	section, _, _ = strings.Cut(section, "\n### ")
	name := regexp.MustCompile("`([a-z0-9_./]+)`")
	for line := range strings.Lines(section) {
		cells := cellsOf(line)
		if len(cells) != 2 {
			continue
		}
		for _, m := range name.FindAllStringSubmatch(cells[0], -1) {
			list = append(list, strings.TrimSuffix(m[1], "/"))
		}
	}
	return list
}

// TestPackages compares the table of packages with those that there are, and what each imports with its place in the table. No
// package but cmd/caddy imports the root.
func TestPackages(t *testing.T) {
	listed := listedPackages(t)
	cmd := exec.CommandContext(t.Context(), "go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	relative := func(path string) string {
		if path == modulePath {
			return rootPackage
		}
		return strings.TrimPrefix(path, modulePath+"/")
	}
	var found []string
	for line := range strings.Lines(string(out)) {
		path, imports, _ := strings.Cut(strings.TrimSpace(line), " ")
		p := relative(path)
		if strings.HasPrefix(p, "internal/testing/") || p == "examples" || strings.HasPrefix(p, "examples/") {
			continue
		}
		found = append(found, p)
		place := slices.Index(listed, p)
		if place < 0 {
			t.Errorf("CONTRIBUTING.md does not list the package %s", p)
			continue
		}
		for imported := range strings.FieldsSeq(imports) {
			if !strings.HasPrefix(imported, modulePath) {
				continue
			}
			if at := slices.Index(listed, relative(imported)); at > place {
				t.Errorf("%s imports %s, which is below it in CONTRIBUTING.md", p, relative(imported))
			}
			if imported == modulePath && p != "cmd/caddy" {
				t.Errorf("%s imports the root", p)
			}
		}
	}
	for _, p := range listed {
		if !slices.Contains(found, p) {
			t.Errorf("CONTRIBUTING.md lists %s, which is no package", p)
		}
	}
}

// The root folder holds options, the Caddyfile and the life cycle, and nothing else.
func TestRootIsSmall(t *testing.T) {
	names, err := filepath.Glob(filepath.Join(root, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	names = slices.DeleteFunc(names, func(name string) bool { return strings.HasSuffix(name, "_test.go") })
	if len(names) > 12 {
		t.Errorf("%d product Go files in the root, want at most 12: %s", len(names), names)
	}
}
