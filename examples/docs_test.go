// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the tests of the documentation: its links, its tables, the configs in it, and whether it says of options
// and log messages what the code says.

package examples_test

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/caddyserver/caddy/v2"

	vaultredirect "github.com/vault-redirector/caddy-vault-redirect"
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

// TestBlocks loads the Caddyfiles and the JSON in the documentation. A block with < is a syntax, not a config.
func TestBlocks(t *testing.T) {
	f := newFiles(t)
	paths := strings.NewReplacer(
		"/etc/vault-redirect/vault.pem", f.cert, "/etc/vault-redirect/vault-key.pem", f.key,
		"/etc/vault-redirect/vault-ca.pem", f.cert, "/etc/vault-redirect/consul-ca.pem", f.cert,
		"/etc/vault-redirect/consul-token", f.token, "/var/log/caddy", t.TempDir(),
	)
	loaded := 0
	for name, text := range pages(t) {
		_, fences := prose(text)
		for _, block := range fences {
			if block.language == "" {
				t.Errorf("%s:%d: the block does not say its language", name, block.line)
			}
			if strings.Contains(block.text, "<") {
				continue
			}
			text := paths.Replace(block.text)
			t.Run(fmt.Sprintf("%s:%d", name, block.line), func(t *testing.T) {
				switch block.language {
				case "caddyfile":
					loaded++
					adapt(t, text)
				case "json":
					loaded++
					validateJSON(t, text)
				}
			})
		}
	}
	if loaded < 10 {
		t.Errorf("%d blocks were loaded: are they still found?", loaded)
	}
}

// validateJSON validates JSON that is a config, or a handler; other JSON is only read.
func validateJSON(t *testing.T, text string) {
	t.Helper()
	var object map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &object); err != nil {
		t.Fatal(err)
	}
	switch {
	case object["handler"] != nil:
		validate(t, []byte(`{"apps": {"http": {"servers": {"vault": {"listen": [":8080"], "routes": [{"handle": [`+text+`]}]}}}}}`))
	case object["apps"] != nil, object["logging"] != nil, object["admin"] != nil:
		validate(t, []byte(text))
	}
}

// optionRow is a row of docs/options.md.
type optionRow struct{ meaning, kind, fallback string }

// optionRows returns the rows on options below a heading of docs/options.md.
func optionRows(t *testing.T, heading string) map[string]optionRow {
	t.Helper()
	_, section, found := strings.Cut(page(t, "docs/options.md"), "\n## "+heading+"\n")
	if !found {
		t.Fatalf("docs/options.md has no section %s", heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	rows := map[string]optionRow{}
	for line := range strings.Lines(section) {
		if cells := cellsOf(line); len(cells) == 4 && strings.HasPrefix(cells[0], "`") {
			rows[strings.Trim(cells[0], "`")] = optionRow{cells[1], cells[2], cells[3]}
		}
	}
	return rows
}

// TestOptions compares docs/options.md with the code: every option of every module, its type, and its default.
func TestOptions(t *testing.T) {
	comments := fieldComments(t)
	shown := shownDefaults(t)
	for heading, module := range map[string]any{
		"vault_redirect": vaultredirect.Handler{}, "consul": vaultredirect.Consul{}, "vault": vaultredirect.Vault{},
		"probe": vaultredirect.Probe{}, "tls": vaultredirect.TLS{},
	} {
		rows := optionRows(t, heading)
		known := optionsOf(module)
		for name := range rows {
			if !slices.Contains(known, name) {
				t.Errorf("%s: there is no option %s", heading, name)
			}
		}
		for _, field := range reflect.VisibleFields(reflect.TypeOf(module)) {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if name == "" {
				continue
			}
			row, ok := rows[name]
			if !ok {
				t.Errorf("%s: there is no row for the option %s", heading, name)
				continue
			}
			if !strings.HasSuffix(strings.TrimSpace(row.meaning), ".") || strings.ToUpper(row.meaning[:1]) != row.meaning[:1] {
				t.Errorf("%s: %s: %q is no sentence", heading, name, row.meaning)
			}
			if kind := kindOf(field.Type); row.kind != kind {
				t.Errorf("%s: %s: type %q, want %q", heading, name, row.kind, kind)
			}
			said := firstValue(row.fallback)
			comment := comments[ownerOf(module, field)+"."+field.Name]
			if comment == "" {
				t.Errorf("%s: %s: the field has no comment", heading, name)
			}
			if _, after, ok := strings.Cut(comment, "Default: "); ok {
				word := strings.TrimRight(strings.Fields(after)[0], ".,;")
				if said != "" && said != word || said == "" && strings.ContainsAny(word[:1], "0123456789/") {
					t.Errorf("%s: %s: default %q, but the comment in the code says %q", heading, name, row.fallback, word)
				}
			}
			if value := shown[heading+"."+name]; value != "" && value != said {
				t.Errorf("%s: %s: default %q, but examples/config.json has %q", heading, name, row.fallback, value)
			}
		}
	}
}

// firstValue returns the literal with which a cell begins, if it does.
func firstValue(cell string) string {
	if m := regexp.MustCompile("^`([^`]+)`").FindStringSubmatch(cell); m != nil {
		return m[1]
	}
	return ""
}

// kindOf says a type of the config in the words of the manual.
func kindOf(t reflect.Type) string {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == reflect.TypeFor[caddy.Duration]():
		return "duration"
	case t == reflect.TypeFor[json.RawMessage](), t.Kind() == reflect.Struct:
		return "object"
	case t.Kind() == reflect.String:
		return "text"
	case t.Kind() == reflect.Int:
		return "number"
	case t.Kind() == reflect.Bool:
		return "flag"
	case t == reflect.TypeFor[[]string]():
		return "list of text"
	}
	return t.String()
}

// ownerOf returns the name of the struct that declares a field, which may be one that is embedded.
func ownerOf(module any, field reflect.StructField) string {
	owner := reflect.TypeOf(module)
	for _, i := range field.Index[:len(field.Index)-1] {
		owner = owner.Field(i).Type
	}
	return owner.Name()
}

// sources has the syntax trees of the Go files in a folder, without tests.
func sources(t *testing.T, folder string) (files []*ast.File) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(root, folder, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	return files
}

// fieldComments has the comments on the fields of the root package's structs, as Struct.Field, each on one line.
func fieldComments(t *testing.T) map[string]string {
	t.Helper()
	comments := map[string]string{}
	for _, file := range sources(t, ".") {
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			fields, ok := spec.Type.(*ast.StructType)
			if !ok {
				return true
			}
			for _, field := range fields.Fields.List {
				for _, name := range field.Names {
					comments[spec.Name.Name+"."+name.Name] = strings.Join(strings.Fields(field.Doc.Text()), " ")
				}
			}
			return true
		})
	}
	return comments
}

// shownDefaults has the values in config.json that are defaults, as section.option of docs/options.md. What every config
// has its own of, such as names of files, is no default.
func shownDefaults(t *testing.T) map[string]string {
	t.Helper()
	text := page(t, "examples/config.json")
	_, text, found := strings.Cut(text, `"handle": [`)
	if !found {
		t.Fatal("config.json has no handler")
	}
	var handler map[string]any
	if err := json.NewDecoder(strings.NewReader(text)).Decode(&handler); err != nil {
		t.Fatal(err)
	}
	shown := map[string]string{}
	var collect func(section string, object map[string]any)
	collect = func(section string, object map[string]any) {
		for name, value := range object {
			if inner, ok := value.(map[string]any); ok {
				collect(map[string]string{"discovery": "consul"}[name]+map[string]string{"probe": "probe", "tls": "tls"}[name], inner)
				continue
			}
			text := fmt.Sprint(value)
			own := []string{"handler", "source", "name", "address", "token_file", "ca", "cert", "key", "server_name", "port"}
			if text != "" && !slices.Contains(own, name) {
				shown[section+"."+name] = text
			}
		}
	}
	collect("vault_redirect", handler)
	return shown
}

// TestLogMessages looks for every log message of the code in the table of docs/operations.md.
func TestLogMessages(t *testing.T) {
	_, section, found := strings.Cut(page(t, "docs/operations.md"), "\n## Log messages\n")
	if !found {
		t.Fatal("docs/operations.md has no section on log messages")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	told := map[string]bool{}
	for line := range strings.Lines(section) {
		if cells := cellsOf(line); len(cells) == 4 && strings.HasPrefix(cells[0], "`") {
			told[strings.Trim(cells[0], "`")] = true
		}
	}
	logged := map[string]bool{}
	for _, folder := range []string{".", "internal/engine", "internal/consul", "internal/nodes"} {
		for _, file := range sources(t, folder) {
			for _, message := range messagesIn(file) {
				logged[message] = true
			}
		}
	}
	if len(logged) < 5 {
		t.Errorf("only %d messages are found in the code: does the search still fit?", len(logged))
	}
	for message := range logged {
		if !told[message] {
			t.Errorf("docs/operations.md does not tell of the log message %q", message)
		}
	}
}

// messagesIn returns the log messages in a file: the text that a method of a logger is given, directly or by a variable
// that is named message.
func messagesIn(file *ast.File) (messages []string) {
	add := func(e ast.Expr) {
		if literal, ok := e.(*ast.BasicLit); ok && literal.Kind == token.STRING {
			messages = append(messages, strings.Trim(literal.Value, "\"`"))
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			for i, left := range n.Lhs {
				if name, ok := left.(*ast.Ident); ok && name.Name == "message" && i < len(n.Rhs) {
					add(n.Rhs[i])
				}
			}
		case *ast.CallExpr:
			method, ok := n.Fun.(*ast.SelectorExpr)
			if !ok {
				break
			}
			switch name := method.Sel.Name; {
			case name == "log" && len(n.Args) >= 3:
				add(n.Args[2])
			case slices.Contains([]string{"Debug", "Info", "Warn", "Error"}, name) && len(n.Args) > 0 && mentionsLogger(method.X):
				add(n.Args[0])
			}
		}
		return true
	})
	return messages
}

// mentionsLogger reports whether an expression is a logger, by its name.
func mentionsLogger(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.Ident:
		return strings.Contains(strings.ToLower(e.Name), "log")
	case *ast.SelectorExpr:
		return strings.Contains(strings.ToLower(e.Sel.Name), "log")
	}
	return false
}
