// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package examples_test

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	vaultredirect "github.com/vault-redirector/caddy-vault-redirect"
	"github.com/vault-redirector/caddy-vault-redirect/statuspage"
)

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
		"probe": vaultredirect.Probe{}, "tls": vaultredirect.TLS{}, "vault_redirect_status": statuspage.StatusPage{},
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

// fieldComments has the comments on the fields of structs that have options, as Struct.Field, each on one line.
func fieldComments(t *testing.T) map[string]string {
	t.Helper()
	comments := map[string]string{}
	for _, file := range append(sources(t, "."), sources(t, "statuspage")...) {
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
