// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

//go:build linux

package cluster

import (
	"fmt"
	"net"
	"testing"
	"time"
)

// TestDynamoOutlivesItsClients breaks off requests in their midst, as a Vault does that is killed.
func TestDynamoOutlivesItsClients(t *testing.T) {
	t.Parallel()
	c := Run(t, Options{NoConsul: true, Vaults: 1, Storage: DynamoStorage})
	ctx := within(t)
	for i := range 20 {
		conn, err := net.Dial("tcp", c.net.addr(firstConsulHost, dynalitePort))
		ok(t, err)
		_, err = fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: any\r\nContent-Length: 1000\r\n\r\nbegun")
		ok(t, err)
		time.Sleep(10 * time.Millisecond) // it is to be read before the break
		if i%2 == 0 {
			ok(t, conn.(*net.TCPConn).SetLinger(0)) // reset
		}
		ok(t, conn.Close())
	}
	ok(t, waitAnswer(ctx, c.Dynamo, c.client, c.dynamoURL()))
	_, err := c.WaitActive(ctx)
	ok(t, err)
}
