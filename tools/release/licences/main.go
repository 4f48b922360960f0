// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Command licences lists the licences of all modules that are linked into a Go program, with their texts, as a distributor of the
// program to others has to. It fails for a module without a licence, and for a licence that is not known to be compatible.
//
//	licences PROGRAM FOLDER-OF-THE-MAIN-MODULE > LIST
package main

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/google/licensecheck"
)

// allowed are the licences of what may be linked into a program under the MIT licence and given away as a binary. OFL-1.1 is that
// of a font beside code under the MIT licence.
var allowed = []string{"0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "ISC", "MIT", "MIT-0", "MPL-2.0", "OFL-1.1", "Unlicense"}

// covered is how much of a file must be the text of a licence that is known, in percent. A file with a notice may be anything.
const covered = 60

// module is one that is linked.
type module struct {
	Path, Version, Dir string
	licences           []string
	texts              []string
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: licences PROGRAM FOLDER-OF-THE-MAIN-MODULE > LIST")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "licences:", err)
		os.Exit(1)
	}
}

func run(program, root string, out io.Writer) error {
	modules, err := linked(program, root)
	if err != nil {
		return err
	}
	var errs []error // all of them, not the first
	for i := range modules {
		errs = append(errs, modules[i].read())
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return write(out, modules)
}

// linked returns the modules that the program is made of, without its own, and where their files are.
func linked(program, root string) ([]module, error) {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return nil, err
	}
	args := []string{"list", "-m", "-json"}
	versions := map[string]string{}
	for _, dep := range info.Deps {
		if dep.Replace != nil {
			return nil, fmt.Errorf("%s is replaced: a release has what its go.mod names", dep.Path)
		}
		versions[dep.Path] = dep.Version
		args = append(args, dep.Path)
	}
	if len(versions) == 0 {
		return nil, fmt.Errorf("%s names no module that it is made of", program)
	}
	cmd := exec.Command("go", args...)
	cmd.Dir = root
	cmd.Stderr = os.Stderr
	text, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	var modules []module
	for decoder := json.NewDecoder(bytes.NewReader(text)); ; {
		var m module
		if err := decoder.Decode(&m); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
		if m.Version != versions[m.Path] || m.Dir == "" {
			return nil, fmt.Errorf("%s: the program has %s, go.mod %s, in the folder %q", m.Path, versions[m.Path], m.Version, m.Dir)
		}
		modules = append(modules, m)
	}
	if len(modules) != len(versions) {
		return nil, fmt.Errorf("%d of %d modules are found", len(modules), len(versions))
	}
	slices.SortFunc(modules, func(a, b module) int { return strings.Compare(a.Path, b.Path) })
	return modules, nil
}

var licenceFile = regexp.MustCompile(`(?i)^(un)?(licen[cs]e|copying|notice)`)

// read finds out a module's licences.
func (m *module) read() error {
	entries, err := os.ReadDir(m.Dir)
	if err != nil {
		return err
	}
	found := map[string]bool{}
	for _, entry := range entries {
		if entry.IsDir() || !licenceFile.MatchString(entry.Name()) || filepath.Ext(entry.Name()) == ".go" {
			continue
		}
		text, err := os.ReadFile(filepath.Join(m.Dir, entry.Name()))
		if err != nil {
			return err
		}
		m.texts = append(m.texts, string(text))
		coverage := licensecheck.Scan(text)
		for _, match := range coverage.Match {
			found[match.ID] = true
		}
		if coverage.Percent < covered && !strings.HasPrefix(strings.ToLower(entry.Name()), "notice") {
			found["unknown terms in "+entry.Name()] = true
		}
	}
	if len(found) == 0 {
		return fmt.Errorf("%s %s: no licence is found in %s", m.Path, m.Version, m.Dir)
	}
	m.licences = slices.Sorted(maps.Keys(found))
	if other := slices.DeleteFunc(slices.Clone(m.licences), func(id string) bool { return slices.Contains(allowed, id) }); len(other) > 0 {
		return fmt.Errorf("%s %s is under %s: not in the list of what may be linked", m.Path, m.Version, strings.Join(other, ", "))
	}
	return nil
}

// write writes the list, then the texts.
func write(out io.Writer, modules []module) error {
	var text strings.Builder
	for _, m := range modules {
		fmt.Fprintf(&text, "%-28s %s %s\n", strings.Join(m.licences, ", "), m.Path, m.Version)
	}
	for _, m := range modules {
		fmt.Fprintf(&text, "\n%s\n%s %s\n\n", strings.Repeat("=", 80), m.Path, m.Version)
		for _, licence := range m.texts {
			fmt.Fprintln(&text, strings.TrimSpace(licence))
		}
	}
	_, err := io.WriteString(out, text.String())
	return err
}
