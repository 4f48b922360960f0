// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Package machine knows the addresses of this machine.
package machine

import (
	"net"
	"net/netip"
	"slices"
)

// Addresses are those of a machine.
type Addresses []netip.Addr

// Own returns the addresses of this machine.
func Own() (list Addresses) {
	interfaces, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	for _, a := range interfaces {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				list = append(list, ip.Unmap())
			}
		}
	}
	return list
}

// Has reports whether the machine has an address. Loopback addresses belong to every machine.
func (a Addresses) Has(ip netip.Addr) bool {
	ip = ip.Unmap()
	return ip.IsLoopback() || slices.Contains(a, ip)
}

// IsAnother reports whether text is an IP address that the machine does not have.
func (a Addresses) IsAnother(text string) bool {
	ip, err := netip.ParseAddr(text)
	return err == nil && !a.Has(ip)
}
