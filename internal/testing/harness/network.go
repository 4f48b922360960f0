// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package harness

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"strconv"
	"sync"
	"testing"
)

var errNotLinux = errors.New("an address of its own for caddy: it needs Linux, where all of 127.0.0.0/8 is loopback")

// Loopback returns an address that nothing else uses, so that servers need not share ports. It is in a part of
// 127.0.0.0/8 that clusters (package cluster) leave alone, and needs Linux.
func Loopback() (string, error) {
	if runtime.GOOS != "linux" {
		return "", errNotLinux
	}
	var last error
	for range 100 {
		ip := fmt.Sprintf("127.%d.%d.%d", 10+rand.IntN(20), 1+rand.IntN(254), 1+rand.IntN(254))
		l, err := net.Listen("tcp", ip+":2019")
		if err != nil {
			last = err
			continue
		}
		return ip, l.Close()
	}
	return "", fmt.Errorf("no free loopback address: %w", last)
}

// FreePort returns a port that is free on every address, for what cannot be told to listen on one. It is below the
// ports that the kernel gives to clients, so that none of those takes it in the meantime.
func FreePort() (string, error) {
	var last error
	for range 100 {
		port := strconv.Itoa(20_000 + rand.IntN(12_000))
		if _, given := givenPorts.LoadOrStore(port, true); given {
			continue
		}
		l, err := net.Listen("tcp", ":"+port)
		if err != nil {
			last = err
			continue
		}
		return port, l.Close()
	}
	return "", fmt.Errorf("no free port: %w", last)
}

// Port is FreePort for tests.
func Port(t testing.TB) string {
	t.Helper()
	port, err := FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// givenPorts are those that this process was given.
var givenPorts sync.Map
