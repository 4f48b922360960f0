// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package cluster

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
)

// The standard ports; every server has its own address, so none needs another.
const (
	vaultPort        = 8200
	vaultClusterPort = 8201
	consulServerPort = 8300
	consulSerfPort   = 8301
	consulHTTPPort   = 8500
	consulHTTPSPort  = 8501
	consulDNSPort    = 8600
	guardPort        = 8199 // held on guardHost for the life of the cluster
	guardHost        = 254
	firstConsulHost  = 1
	firstVaultHost   = 11
	mostConsuls      = firstVaultHost - firstConsulHost
	mostVaults       = FirstFreeHost - firstVaultHost
)

// IP(FirstFreeHost) to IP(LastFreeHost) are the caller's.
const (
	FirstFreeHost = 100
	LastFreeHost  = guardHost - 1
)

// subnet is 127.x.y.0/24. All of 127.0.0.0/8 is loopback on Linux, no set-up needed.
type subnet struct {
	base  [4]byte
	guard net.Listener
}

// reserve takes a subnet that no other cluster on this machine has, in this process or another: a process that listens on
// its guard port owns it, and the kernel frees the port when the owner ends.
func reserve() (*subnet, error) {
	var errs []error
	for range 50 {
		// 127.0 and its neighbours belong to resolvers, containers and people.
		s := &subnet{base: [4]byte{127, byte(32 + rand.IntN(192)), byte(rand.IntN(256)), 0}}
		guard, err := net.Listen("tcp4", s.addr(guardHost, guardPort))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		s.guard = guard
		if err := s.free(); err != nil {
			errs = append(errs, err)
			_ = s.release()
			continue
		}
		return s, nil
	}
	return nil, fmt.Errorf("no free loopback network: %w", errors.Join(errs[len(errs)-3:]...))
}

// free finds servers that listen on all addresses of the machine: they would be in the way on each of ours.
func (s *subnet) free() error {
	for _, port := range []int{vaultPort, vaultClusterPort, consulServerPort, consulSerfPort, consulHTTPPort, consulHTTPSPort, consulDNSPort} {
		l, err := net.Listen("tcp4", s.addr(guardHost, port))
		if err != nil {
			return err
		}
		_ = l.Close()
	}
	return nil
}

func (s *subnet) release() error {
	if err := s.guard.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

func (s *subnet) ip(host int) string {
	a := s.base
	a[3] = byte(host)
	return netip.AddrFrom4(a).String()
}

func (s *subnet) addr(host, port int) string {
	return net.JoinHostPort(s.ip(host), strconv.Itoa(port))
}
