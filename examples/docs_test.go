// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package examples_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// root is the repository.
const root = ".."

// readmeLines is how long the README may be: what is longer is not read.
const readmeLines = 220

// The limits of a table that is readable on a code host.
const (
	maxColumns = 6
	maxCell    = 260 // characters, without the targets of links
)

// page reads a page by its path in the repository.
func page(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// pages has all Markdown files by their path in the repository.
func pages(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch name := entry.Name(); {
		case err != nil:
			return err
		case entry.IsDir() && (name == "dist" || name == "testdata" || strings.HasPrefix(name, ".") && path != root):
			return fs.SkipDir
		case !entry.IsDir() && filepath.Ext(name) == ".md":
			rel, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			all[filepath.ToSlash(rel)] = page(t, rel)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/options.md", "docs/operations.md"} {
		if all[name] == "" {
			t.Fatalf("%s is missing", name)
		}
	}
	return all
}

func TestReadmeIsShort(t *testing.T) {
	if n := strings.Count(page(t, "README.md"), "\n"); n > readmeLines {
		t.Errorf("%d lines, want at most %d: put it on a page under docs/", n, readmeLines)
	}
}

// fence is a fenced block of a page.
type fence struct {
	line     int
	language string
	text     string
}

// prose splits a page into its lines outside fenced blocks, which keep their numbers, and the blocks.
func prose(text string) (lines []string, fences []fence) {
	var open *fence
	for i, line := range strings.Split(text, "\n") {
		language, isFence := strings.CutPrefix(line, "```")
		switch {
		case isFence && open == nil:
			open = &fence{line: i + 1, language: language}
		case isFence:
			fences, open = append(fences, *open), nil
		case open != nil:
			open.text += line + "\n"
		default:
			lines = append(lines, line)
			continue
		}
		lines = append(lines, "")
	}
	return lines, fences
}

// TestTables fails for tables that are too wide to be read.
func TestTables(t *testing.T) {
	target := regexp.MustCompile(`\]\([^)]*\)`)
	for name, text := range pages(t) {
		lines, _ := prose(text)
		for i, line := range lines {
			if !strings.HasPrefix(line, "|") {
				continue
			}
			cells := cellsOf(line)
			if len(cells) > maxColumns {
				t.Errorf("%s:%d: %d columns, want at most %d", name, i+1, len(cells), maxColumns)
			}
			for _, cell := range cells {
				if n := len([]rune(target.ReplaceAllString(cell, ""))); n > maxCell {
					t.Errorf("%s:%d: a cell of %d characters, want at most %d: %s", name, i+1, n, maxCell, cell)
				}
			}
		}
	}
}

// cellsOf splits a row of a table.
func cellsOf(line string) []string {
	cells := strings.Split(strings.ReplaceAll(strings.Trim(strings.TrimSpace(line), "|"), `\|`, "\x00"), "|")
	for i := range cells {
		cells[i] = strings.TrimSpace(strings.ReplaceAll(cells[i], "\x00", "|"))
	}
	return cells
}

// TestLinks follows every relative link, to the file and to the heading.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)|(?:src|href)="([^"]+)"|^\[[^\]]+\]: (\S+)`)
	all := pages(t)
	for name, text := range all {
		lines, _ := prose(text)
		for i, line := range lines {
			for _, m := range link.FindAllStringSubmatch(withoutCode(line), -1) {
				to := m[1] + m[2] + m[3]
				if strings.Contains(to, "://") || strings.HasPrefix(to, "mailto:") {
					continue
				}
				file, anchor, _ := strings.Cut(to, "#")
				target := name
				if file != "" {
					target = filepath.ToSlash(filepath.Join(filepath.Dir(name), file))
				}
				if _, err := os.Stat(filepath.Join(root, target)); err != nil {
					t.Errorf("%s:%d: %s: %v", name, i+1, to, err)
				} else if anchor != "" && !slices.Contains(anchors(all[target]), anchor) {
					t.Errorf("%s:%d: %s: %s has no such heading", name, i+1, to, target)
				}
			}
		}
	}
}

// withoutCode returns a line of Markdown without the code in it, which is no link whatever it looks like.
func withoutCode(line string) string {
	return regexp.MustCompile("`[^`]*`").ReplaceAllString(line, "")
}

// anchors returns the anchors that GitHub makes of a page's headings.
func anchors(text string) (all []string) {
	lines, _ := prose(text)
	count := map[string]int{}
	for _, line := range lines {
		heading := regexp.MustCompile(`^#{1,6} (.*)$`).FindStringSubmatch(line)
		if heading == nil {
			continue
		}
		title := regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`).ReplaceAllString(heading[1], "$1")
		slug := strings.Map(func(r rune) rune {
			switch {
			case r == ' ' || r == '-':
				return '-'
			case r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, strings.TrimSpace(title))
		if n := count[slug]; n > 0 {
			all = append(all, fmt.Sprintf("%s-%d", slug, n))
		} else {
			all = append(all, slug)
		}
		count[slug]++
	}
	return all
}

func TestAnchors(t *testing.T) {
	const text = "# A `b`, c\n## a_b\n```\n# no\n```\n## a_b\n## From active.vault & [x y](z)\n"
	if got, want := anchors(text), []string{"a-b-c", "a_b", "a_b-1", "from-activevault--x-y"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
