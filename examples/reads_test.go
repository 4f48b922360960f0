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
	some := strings.Replace(strings.Replace(text, "\t\tstandby method GET LIST\n", "", 1), "# standby path", "standby path", 1)
	if !strings.Contains(some, "\n\t\tstandby path") {
		t.Fatal("standby path is not found")
	}
	caddyfile(t, some)
}
