// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// This file holds the tests of what the command check reads in a config file.

package vaultredirect

import (
	"path/filepath"
	"testing"
)

// Which sites are served by https is what Caddy makes of the config, a part of which it decides when it loads it.
func TestCheckKnowsHTTPS(t *testing.T) {
	const handler = " {\n\tvault_redirect\n}\n"
	for name, row := range map[string]struct {
		caddyfile string
		https     bool
	}{
		"a name":                             {"vault.example.com" + handler, true},
		"http":                               {"http://vault.example.com" + handler, false},
		"a port":                             {":8080" + handler, false},
		"no name, https":                     {"https://" + handler, true},
		"the port of https":                  {":443" + handler, true},
		"no name, https, beside a name":      {"https://" + handler + "status.example.com {\n\trespond ok\n}\n", true},
		"a port, beside a name on that port": {"https://:8443" + handler + "status.example.com:8443 {\n\trespond ok\n}\n", true},
		"another port of https":              {"{\n\thttps_port 8443\n}\n:8443" + handler, true},
	} {
		t.Run(name, func(t *testing.T) {
			file := writeFile(t, t.TempDir(), "Caddyfile", row.caddyfile)
			found, err := suspectsByConfig(filepath.ToSlash(file), "")
			if err != nil || len(found) != 1 || len(found[0].sites) != 1 {
				t.Fatalf("%v: %+v", err, found)
			}
			if got := found[0].sites[0].TLS; got != row.https {
				t.Errorf("https: %t", got)
			}
		})
	}
}
