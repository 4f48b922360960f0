// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Package http1 answers simple HTTP/1.1 requests on the connections of a listener, and hands all other connections over to the
// server that accepts from it.
//
// The listener serves each connection at first. It answers a request only if it understands every byte of it, and its [Site]
// says how; it writes what net/http would have written. At the first other request, the connection goes to the server, with
// every byte that has not been answered, and stays there. So this need not be a complete HTTP server: it never interprets a
// request that it does not understand.
package http1

import (
	"net"
	"time"
)

// Site returns the Caller that answers the requests of a connection. serverName is the name that the client sent as SNI.
type Site func(c net.Conn, tls bool, serverName string) Caller

// Caller answers the requests of one connection, one after another. It returns nil if the server must answer a request, and counts
// the requests that it answers. A request is valid until it returns. closing says that the server shuts down, and that its own
// answers say so.
type Caller func(r *Request, closing bool) *Answer

// Answer is an answer, without the target of the request and without what net/http adds at the end.
type Answer struct {
	Before, After []byte // the text before and after the target
	Close         bool   // the header says that the connection is closed
}

// Limits are those of the server, with the same meaning. One that is not positive is none.
type Limits struct {
	Header    time.Duration // for a header, from its first byte on
	Whole     time.Duration // for a request with its body
	Idle      time.Duration // between two requests
	Body      time.Duration // for a body that is discarded
	Write     time.Duration // for writing answers
	Handshake time.Duration // for TLS
}
