// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Command programs makes sure that the servers which tests and the demo start are there, and tells where they are, or
// how their build goes. With the argument dynalite, it installs that.
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
	if len(os.Args) == 2 && os.Args[1] == "dynalite" {
		if err := cluster.InstallDynalite(ctx, tell); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	// One after the other: each build keeps all cores busy, and both at once want twice the memory.
	for _, name := range []string{"consul", "vault"} {
		if _, err := cluster.Program(ctx, name, tell); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

func tell(format string, args ...any) { fmt.Printf(format+"\n", args...) }
