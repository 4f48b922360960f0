// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package standin

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"testing"

	"github.com/hashicorp/consul/api"
)

// RunConsul returns a Consul that ends with the test and has entries of the service vault.
func RunConsul(t testing.TB, entries ...*api.ServiceEntry) *Consul {
	t.Helper()
	return RunConsulTLS(t, nil, entries...)
}

// RunConsulTLS is RunConsul over TLS. A nil config means plain HTTP.
func RunConsulTLS(t testing.TB, config *tls.Config, entries ...*api.ServiceEntry) *Consul {
	t.Helper()
	c, err := NewConsulTLS("", config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	c.Set("vault", entries...)
	return c
}

// RunVault returns a node that ends with the test: active, and a cluster of its own.
func RunVault(t testing.TB, name string) *Vault {
	t.Helper()
	return RunVaultTLS(t, name, nil)
}

// RunVaultTLS is RunVault over TLS. A nil config means plain HTTP.
func RunVaultTLS(t testing.TB, name string, config *tls.Config) *Vault {
	t.Helper()
	v, err := NewVaultTLS("", name, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	v.SetActive(true)
	return v
}

// RunCluster returns a cluster of n nodes that ends with the test.
func RunCluster(t testing.TB, n int) *Cluster {
	t.Helper()
	c, err := NewCluster(n, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// Serve is for servers that do not speak HTTP properly: it listens on a free port of 127.0.0.1, and calls serve for each connection,
// which it closes when serve returns. At the end of the test it closes the listener and all connections, and waits for serve.
func Serve(t testing.TB, serve func(net.Conn)) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	end := Accept(l, serve)
	t.Cleanup(func() { _ = end() })
	return l
}

// Accept serves the connections of a listener, each in a goroutine of its own, until the function that it returns is called. That
// closes the listener and all connections, and waits for their goroutines.
func Accept(l net.Listener, serve func(net.Conn)) (end func() error) {
	ended, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			group.Go(func() {
				defer c.Close()
				defer context.AfterFunc(ended, func() { c.Close() })()
				serve(c)
			})
		}
	})
	return func() error {
		err := l.Close()
		cancel()
		group.Wait()
		return err
	}
}
