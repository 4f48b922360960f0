// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package machine

import (
	"net/netip"
	"testing"
)

func TestAddresses(t *testing.T) {
	a := Addresses{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("2001:db8::1")}
	for _, row := range []struct {
		text         string
		has, another bool
	}{
		{"10.0.0.1", true, false},
		{"::ffff:10.0.0.1", true, false},
		{"2001:db8::1", true, false},
		{"127.0.0.9", true, false},
		{"::1", true, false},
		{"::ffff:127.0.0.1", true, false},
		{"10.0.0.2", false, true},
		{"2001:db8::2", false, true},
		{"0.0.0.0", false, true},
		{"vault-1", false, false},
		{"", false, false},
	} {
		ip, _ := netip.ParseAddr(row.text)
		if has, another := a.Has(ip), a.IsAnother(row.text); has != row.has || another != row.another {
			t.Errorf("%q: has %t, another %t", row.text, has, another)
		}
	}
}

func TestOwn(t *testing.T) {
	if own := Own(); len(own) == 0 || !own.Has(netip.MustParseAddr("127.0.0.1")) {
		t.Errorf("%v", own)
	}
}
