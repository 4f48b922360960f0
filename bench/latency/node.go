// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"net"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/standin"
)

// What the node answers, as Vault does.
const (
	secret = `{"request_id":"6c1e33a8-7d5e-4a2c-9d3b-0c4a7c2b5f10","lease_id":"","renewable":false,"lease_duration":0,"data":{"data":{"password":"correct horse battery staple","username":"app"},"metadata":{"created_time":"2026-11-01T12:00:00.000000000Z","custom_metadata":null,"deletion_time":"","destroyed":false,"version":3}},"wrap_info":null,"warnings":null,"auth":null,"mount_type":"kv"}` + "\n"
	health = `{"initialized":true,"sealed":false,"standby":false,"performance_standby":false,"replication_performance_mode":"disabled","replication_dr_mode":"disabled","server_time_utc":1793534400,"version":"1.21.0","enterprise":false,"cluster_name":"vault","cluster_id":"3f0f4b52-5f6b-4d5a-8e2f-1c6f5a0f7a11","echo_duration_ms":0,"clock_skew_ms":0,"replication_primary_canary_age_ms":0}` + "\n"
)

// node is an active Vault node that costs as little as it can: it answers every read with the same secret, without looking at the token.
type node struct {
	listener net.Listener
	close    func() error // which waits for its goroutines
}

// newNode starts a node, which speaks TLS if there is a config for it.
func newNode(config *tls.Config) (*node, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	if config != nil {
		listener = tls.NewListener(listener, config)
	}
	return &node{listener, standin.Accept(listener, serve)}, nil
}

func (n *node) addr() string { return n.listener.Addr().String() }

// serve answers requests of HTTP/1 that have no body.
func serve(c net.Conn) {
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return
		}
		answer := secretAnswer
		if bytes.Contains(line, []byte(" /v1/sys/health")) {
			answer = healthAnswer
		}
		last := bytes.Contains(line, []byte("HTTP/1.0"))
		for len(bytes.TrimSpace(line)) > 0 {
			if line, err = r.ReadSlice('\n'); err != nil {
				return
			}
			last = last || bytes.EqualFold(bytes.TrimSpace(line), []byte("Connection: close"))
		}
		if _, err := c.Write(answer); err != nil || last {
			return
		}
	}
}

var secretAnswer, healthAnswer = answerOf(secret), answerOf(health)

func answerOf(body string) []byte {
	return fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Type: application/json\r\nStrict-Transport-Security: max-age=31536000; includeSubDomains\r\n"+
		"Date: Sun, 01 Nov 2026 12:00:00 GMT\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}
