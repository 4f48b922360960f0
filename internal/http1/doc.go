// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Package http1 answers the plainest requests of HTTP/1.1 on the connections of a listener, and hands everything else over
// to the server that accepts from it.
//
// A connection is first the lane's. The lane answers a request only if it understands every byte of it, and its [Site] says
// how; it writes what net/http would have written. At the first request of which that is not so, the connection goes to the
// server behind, with every byte that has not been answered, and stays there. So there is no second HTTP server to be
// compatible with everything: what the lane does not know, it never judges.
package http1

import (
	"net"
	"time"
)

// Site says how requests are answered.
type Site interface {
	// Caller returns what answers the requests of a connection. serverName is what a client asked for by SNI.
	Caller(c net.Conn, tls bool, serverName string) Caller
	// Panicked is told of a panic that cost a connection.
	Panicked(c net.Conn, value any, stack []byte)
	// AcceptFailed is told that accepting failed, and is tried again after a pause.
	AcceptFailed(err error, pause time.Duration)
}

// Caller answers the requests of one connection, one after another.
type Caller interface {
	// Redirect returns how a request is answered, nil if the server behind is to answer it. It counts those that it answers.
	// The request is valid until it returns. closing says that the server shuts down: then its answers say so by themselves.
	Redirect(r *Request, closing bool) *Answer
}

// Answer is an answer but for the target of its request and what net/http adds at the end.
type Answer struct {
	Before, After []byte // the target
	Close         bool   // the header says that the connection is closed
}

// Limits are those of the server behind, with the meaning that its config gives them. What is not positive is no limit.
type Limits struct {
	Header    time.Duration // for a header, from its first byte on
	Whole     time.Duration // for a request with its body
	Idle      time.Duration // between two requests
	Body      time.Duration // for a body that nobody uses
	Write     time.Duration // for writing answers
	Handshake time.Duration // for TLS
}
