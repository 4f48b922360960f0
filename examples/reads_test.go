// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package examples_test

import (
	"strings"
	"testing"
)

func reads(t *testing.T, text string) {
	setFiles(t)
	caddyfile(t, text)
	some := strings.Replace(strings.Replace(text, "\t\tstandby method GET LIST\n", "", 1), "# standby expression", "standby expression", 1)
	if !strings.Contains(some, "\n\t\tstandby expression") {
		t.Fatal("standby expression is not found")
	}
	caddyfile(t, some)
}
