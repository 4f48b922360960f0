// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package vaultredirect

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

// dns is where this process looks up names.
var dns names

// names is a DNS server.
type names struct{ known sync.Map } // of *dnsName, by the name

// dnsName is one name of it.
type dnsName struct {
	mu      sync.Mutex
	address net.IP // nil: there is no such name
	silent  bool   // no answer
}

// register reserves a name for a test. It does not exist until it is set.
func (n *names) register(t testing.TB, host string) *dnsName {
	t.Helper()
	own := new(dnsName)
	if _, taken := n.known.LoadOrStore(host, own); taken {
		t.Fatalf("%s is of another test", host)
	}
	t.Cleanup(func() { n.known.Delete(host) })
	return own
}

// set makes the name resolve to an address; with an empty one, it does not exist.
func (n *dnsName) set(ip string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.silent, n.address = false, net.ParseIP(ip).To4()
}

// hush leaves queries for the name unanswered.
func (n *dnsName) hush() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.silent = true
}

// dial connects to the server, with DNS over TCP on a pipe: each message after its length.
func (n *names) dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	go func() {
		defer server.Close()
		for {
			var length uint16
			if binary.Read(server, binary.BigEndian, &length) != nil {
				return
			}
			query := make([]byte, length)
			if _, err := io.ReadFull(server, query); err != nil {
				return
			}
			answer := n.answer(query)
			if answer == nil {
				_, _ = server.Read(query) // until the client goes
				return
			}
			if _, err := server.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
				return
			}
		}
	}()
	return client, nil
}

// answer answers a query, nil for not at all: see RFC 1035, section 4.1.
func (n *names) answer(query []byte) []byte {
	const header = 12
	var labels []string
	end := header
	for query[end] != 0 {
		next := end + 1 + int(query[end])
		labels = append(labels, string(query[end+1:next]))
		end = next
	}
	kind := binary.BigEndian.Uint16(query[end+1:])
	end += 5 // the root, type and class
	a := append([]byte(nil), query[:end]...)
	a[2] |= 0x80                                // a response
	copy(a[6:header], []byte{0, 0, 0, 0, 0, 0}) // no records so far
	known, ok := n.known.Load(strings.ToLower(strings.Join(labels, ".")))
	if !ok {
		a[3] = a[3]&0xf0 | 3 // no such name
		return a
	}
	own := known.(*dnsName)
	own.mu.Lock()
	defer own.mu.Unlock()
	switch {
	case own.silent:
		return nil
	case own.address == nil:
		a[3] = a[3]&0xf0 | 3
	case kind == 1: // one record A: the name above, type, class, TTL 0, four bytes
		a[7] = 1
		a = append(append(a, 0xc0, header, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4), own.address...)
	}
	return a
}
