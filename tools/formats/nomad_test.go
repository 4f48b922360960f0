// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package formats

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	nomad "github.com/hashicorp/nomad/api"
)

// TestNomad compares the names of blocks and attributes with those that Nomad's API has. It is no more than that: Nomad's own
// parser is not under an open-source licence any more.
func TestNomad(t *testing.T) {
	file, diagnostics := hclsyntax.ParseConfig(read(t, "nomad.hcl"), "nomad.hcl", hcl.InitialPos)
	if diagnostics.HasErrors() {
		t.Fatal(diagnostics)
	}
	body := file.Body.(*hclsyntax.Body)
	known(t, "", body, reflect.TypeFor[struct {
		Job       *nomad.Job `hcl:"job,block"`
		Variables []struct {
			Type    string `hcl:"type"`
			Default string `hcl:"default"`
		} `hcl:"variable,block"`
	}]())

	group := block(t, block(t, body, "job"), "group")
	task := block(t, group, "task")
	var checks []string
	for _, check := range block(t, group, "service").Blocks {
		checks = append(checks, literal(t, check.Body, "path"))
	}
	if !slices.Equal(checks, []string{ready, live}) {
		t.Errorf("checks of %q", checks)
	}
	if driver := literal(t, task, "driver"); driver != "docker" || literal(t, task, "kill_timeout") != "90s" {
		t.Errorf("driver %s, kill_timeout %s: no longer than draining", driver, literal(t, task, "kill_timeout"))
	}
	if data := literal(t, block(t, task, "template"), "data"); !strings.Contains(data, "\tvault_redirect {") || !strings.HasPrefix(data, "{\n") {
		t.Errorf("the Caddyfile is %q", data)
	}
}

// known fails for a name in a body that a type of Nomad's API does not have.
func known(t *testing.T, path string, body *hclsyntax.Body, kind reflect.Type) {
	t.Helper()
	for kind.Kind() == reflect.Pointer || kind.Kind() == reflect.Slice {
		kind = kind.Elem()
	}
	if kind.Kind() != reflect.Struct { // a map: any names
		return
	}
	fields := map[string]reflect.Type{}
	for _, field := range reflect.VisibleFields(kind) {
		if name, _, _ := strings.Cut(field.Tag.Get("hcl"), ","); name != "" {
			fields[name] = field.Type
		}
	}
	for name := range body.Attributes {
		if fields[name] == nil {
			t.Errorf("nomad.hcl: there is no attribute %s%s", path, name)
		}
	}
	for _, inner := range body.Blocks {
		if fields[inner.Type] == nil {
			t.Errorf("nomad.hcl: there is no block %s%s", path, inner.Type)
			continue
		}
		known(t, path+inner.Type+".", inner.Body, fields[inner.Type])
	}
}

// block returns the first block of a name.
func block(t *testing.T, body *hclsyntax.Body, name string) *hclsyntax.Body {
	t.Helper()
	for _, block := range body.Blocks {
		if block.Type == name {
			return block.Body
		}
	}
	t.Fatalf("there is no block %s", name)
	return nil
}

// literal returns the text of an attribute that refers to nothing.
func literal(t *testing.T, body *hclsyntax.Body, name string) string {
	t.Helper()
	attribute := body.Attributes[name]
	if attribute == nil {
		t.Fatalf("there is no attribute %s", name)
	}
	value, diagnostics := attribute.Expr.Value(nil)
	if diagnostics.HasErrors() {
		t.Fatal(diagnostics)
	}
	return value.AsString()
}
