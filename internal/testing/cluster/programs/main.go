// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Command programs makes sure that the servers which tests and the demo start are there, and prints their paths.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/cluster"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	for _, name := range []string{"consul", "vault"} {
		fmt.Fprintf(os.Stderr, "%s: looking for it; a first build takes up to ten minutes\n", name)
		path, err := cluster.Program(ctx, name)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(path)
	}
}
