// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package nodes

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vault-redirector/caddy-vault-redirect/discovery"
)

func TestParseURL(t *testing.T) {
	for _, row := range []struct{ url, id, wrong string }{
		{"https://vault-0:8200", "https://vault-0:8200", ""},
		{"http://127.10.0.1", "http://127.10.0.1:80", ""},
		{"https://vault.example.com/", "https://vault.example.com:443", ""},
		{"https://[::1]:8200", "https://[::1]:8200", ""},
		{"HTTPS://vault-0", "https://vault-0:443", ""},
		{"", "", "not the URL of a node"},
		{"vault-0:8200", "", "https://vault-0.example.com:8200"},
		{"unix:///x", "", "not the URL of a node"},
		{"ftp://vault-0", "", "not the URL of a node"},
		{"https://", "", "not the URL of a node"},
		{"https://vault 0", "", "not the URL"},
		{"https://vault-0:0", "", "port 0"},
		{"https://vault-0:65536", "", "port 65536"},
		{"https://user:hunter2@vault-0", "", "nothing else"},
		{"https://vault-0/v1", "", "nothing else"},
		{"https://vault-0?x", "", "nothing else"},
		{"https://vault-0#x", "", "nothing else"},
		{"https://0.0.0.0:8200", "", "not that of one machine"},
		{"https://0x7f.1:8200", "", "ends in a number"},
		{"https://[fe80::1%25eth0]:8200", "", "zone"},
	} {
		t.Run(row.url, func(t *testing.T) {
			node, err := ParseURL(row.url)
			if row.wrong != "" {
				if err == nil || !strings.Contains(err.Error(), row.wrong) || strings.Contains(err.Error(), "hunter2") {
					t.Errorf("error %v, want %q", err, row.wrong)
				}
				return
			}
			if err != nil || node.ID != row.id || node.Name == "" || node.Name != node.ServiceAddress || node.Port == 0 {
				t.Errorf("node %+v, %v", node, err)
			}
		})
	}
}

// parsed returns the nodes of URLs.
func parsed(t *testing.T, urls ...string) (nodes []discovery.Node) {
	t.Helper()
	for _, u := range urls {
		node, err := ParseURL(u)
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, node)
	}
	return nodes
}

// addresses parses IP addresses.
func addresses(texts ...string) (list []netip.Addr) {
	for _, text := range texts {
		list = append(list, netip.MustParseAddr(text))
	}
	return list
}

// show has a line for each node: where it is reached, and whose certificate it has.
func show(nodes []discovery.Node) string {
	text := ""
	for _, n := range nodes {
		text += fmt.Sprintf("%s %s %d %s\n", n.Scheme, n.ServiceAddress, n.Port, n.ServerName)
	}
	return text
}

func TestNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		names := map[string][]netip.Addr{
			"one":  addresses("127.10.0.1"),
			"many": addresses("127.10.0.3", "127.10.0.2", "::ffff:127.10.0.2"),
			"both": addresses("127.10.0.4", "2001:db8::4"),
			"six":  addresses("127.10.0.5", "2001:db8::6", "2001:db8::5"),
		}
		s := New(parsed(t, "https://one:8200", "https://many:8200", "https://both:8200", "http://six", "https://none:8200", "https://127.10.0.9:8200"))
		s.lookup = func(_ context.Context, _, host string) ([]netip.Addr, error) {
			if a, ok := names[host]; ok {
				return a, nil
			}
			return nil, errors.New("no such host")
		}
		a, err := s.Query(t.Context(), 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		want := "https one 8200 \nhttps 127.10.0.2 8200 many\nhttps 127.10.0.3 8200 many\nhttps both 8200 \n" +
			"http 2001:db8::5 80 six\nhttp 2001:db8::6 80 six\nhttps none 8200 \nhttps 127.10.0.9 8200 \n"
		if got := show(a.Nodes); got != want {
			t.Errorf("nodes\n%swant\n%s", got, want)
		}
		if n := len(discovery.Identities(a.Nodes)); n != len(a.Nodes) {
			t.Errorf("%d identities of %d nodes", n, len(a.Nodes))
		}

		// An error is no answer: what a name stood for still holds. And one that takes long holds up no other.
		names["one"] = nil
		delete(names, "many")
		lookup := s.lookup
		s.lookup = func(ctx context.Context, network, host string) ([]netip.Addr, error) {
			if host == "both" || host == "none" {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return lookup(ctx, network, host)
		}
		began := time.Now()
		if again, err := s.Query(t.Context(), 0, 0); err != nil || !reflect.DeepEqual(again.Nodes, a.Nodes) || time.Since(began) != lookupTimeout {
			t.Errorf("after %s: %v: nodes %v, want %v", time.Since(began), err, again.Nodes, a.Nodes)
		}
		s.lookup = lookup

		// A name that moves is followed.
		names["many"] = addresses("127.10.0.3", "127.10.0.7")
		if a, err = s.Query(t.Context(), 0, 0); err != nil || !strings.Contains(show(a.Nodes), "127.10.0.7") || strings.Contains(show(a.Nodes), "127.10.0.2 ") {
			t.Errorf("%v: nodes %s", err, show(a.Nodes))
		}
		// One that goes down to a single address stays what it was: the node there is the same.
		names["many"] = addresses("127.10.0.7")
		if a, err = s.Query(t.Context(), 0, 0); err != nil || !strings.Contains(show(a.Nodes), "https 127.10.0.7 8200 many\n") {
			t.Errorf("%v: nodes %s", err, show(a.Nodes))
		}
	})
}

// The next answer is there when the wait is over, and earlier when nobody waits any more.
func TestQueryWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(parsed(t, "https://127.10.0.1:8200"))
		a, err := s.Query(t.Context(), 0, 10*time.Second)
		if err != nil || a.Index == 0 || len(a.Nodes) != 1 {
			t.Fatalf("answer %+v, %v", a, err)
		}
		began := time.Now()
		next, err := s.Query(t.Context(), a.Index, 10*time.Second)
		if err != nil || next.Index <= a.Index || time.Since(began) != 10*time.Second {
			t.Errorf("after %s: %+v, %v", time.Since(began), next, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began = time.Now()
		if _, err := s.Query(ctx, next.Index, 10*time.Second); err == nil || time.Since(began) != time.Second {
			t.Errorf("after %s: %v although nobody waits", time.Since(began), err)
		}
		s.Close()
	})
}
