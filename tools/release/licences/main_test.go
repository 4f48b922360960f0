// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const isc = `Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is hereby granted,
provided that the above copyright notice and this permission notice appear in all copies.

THE SOFTWARE IS PROVIDED "AS IS" AND THE AUTHOR DISCLAIMS ALL WARRANTIES WITH REGARD TO THIS SOFTWARE INCLUDING ALL IMPLIED
WARRANTIES OF MERCHANTABILITY AND FITNESS. IN NO EVENT SHALL THE AUTHOR BE LIABLE FOR ANY SPECIAL, DIRECT, INDIRECT, OR
CONSEQUENTIAL DAMAGES OR ANY DAMAGES WHATSOEVER RESULTING FROM LOSS OF USE, DATA OR PROFITS, WHETHER IN AN ACTION OF CONTRACT,
NEGLIGENCE OR OTHER TORTIOUS ACTION, ARISING OUT OF OR IN CONNECTION WITH THE USE OR PERFORMANCE OF THIS SOFTWARE.
`

func TestRead(t *testing.T) {
	gpl := "This program is free software: you can redistribute it and/or modify it under the terms of the GNU General Public License as\n" +
		"published by the Free Software Foundation, either version 3 of the License, or (at your option) any later version.\n"
	tests := []struct {
		name  string
		files map[string]string
		want  string
		fails string
	}{
		{name: "one", files: map[string]string{"LICENSE": isc, "README": "x"}, want: "ISC"},
		{name: "in lower case", files: map[string]string{"licence.md": isc}, want: "ISC"},
		{name: "none", files: map[string]string{"README": isc}, fails: "no licence is found"},
		{name: "something else", files: map[string]string{"LICENSE": "All rights reserved."}, fails: "unknown terms in LICENSE"},
		{name: "a notice", files: map[string]string{"LICENSE": isc, "NOTICE.txt": "Made by us."}, want: "ISC"},
		{name: "not allowed", files: map[string]string{"LICENSE": isc, "COPYING": gpl}, fails: "is under GPL-3.0"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m := module{Path: "example.com/m", Version: "v1.0.0", Dir: t.TempDir()}
			for name, text := range test.files {
				if err := os.WriteFile(filepath.Join(m.Dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			err := m.read()
			if test.fails != "" {
				if err == nil || !strings.Contains(err.Error(), test.fails) || !strings.Contains(err.Error(), "example.com/m v1.0.0") {
					t.Errorf("%v, want an error with %q", err, test.fails)
				}
				return
			}
			if err != nil || strings.Join(m.licences, " ") != test.want || len(m.texts) == 0 {
				t.Errorf("%q, %d texts, %v", m.licences, len(m.texts), err)
			}
		})
	}
}

// TestSelf lists what this test itself is made of.
func TestSelf(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := run(self, "..", &out); err != nil {
		t.Fatal(err)
	}
	if want := "BSD-3-Clause                 github.com/google/licensecheck v"; !strings.HasPrefix(out.String(), want) || strings.Count(out.String(), "====\n") != 1 {
		t.Errorf("%.200s", out.String())
	}
}
