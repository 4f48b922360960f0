// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package examples_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

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
