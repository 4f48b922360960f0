// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

// Command goclients runs one of Go's clients of Vault, whose name is the argument. It is a module of its own, so that the
// plugin need not depend on them. See driver.go of the package above for the protocol.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"
)

// request is what the client is to do.
type request struct {
	Op       string `json:"op"`
	Name     string `json:"name"`
	Value    string `json:"value"`
	User     string `json:"user"`
	Password string `json:"password"`
	RoleID   string `json:"role_id"`
	SecretID string `json:"secret_id"`
}

// answer is what came of it.
type answer struct {
	Version string `json:"version,omitempty"`
	Value   string `json:"value,omitempty"`
	Error   string `json:"error,omitempty"`
}

// client is what each client can do. Operations return what was read, or the token of a login.
type client map[string]func(request) (string, error)

// setting is where Vault is, and what the client shows.
var setting = struct{ addr, token, ca, cert, key string }{
	os.Getenv("VAULT_ADDR"), os.Getenv("VAULT_TOKEN"), os.Getenv("VAULT_CACERT"), os.Getenv("CLIENT_CERT"), os.Getenv("CLIENT_KEY"),
}

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(name string) error {
	// Each client gets what it needs from setting alone.
	for _, name := range []string{"VAULT_ADDR", "VAULT_TOKEN", "VAULT_CACERT"} {
		os.Unsetenv(name)
	}
	makers := map[string]struct {
		module string
		make   func() (client, error)
	}{
		"vault/api":       {"github.com/hashicorp/vault/api", newAPI},
		"vault-client-go": {"github.com/hashicorp/vault-client-go", newClientGo},
		"net/http":        {"", newHTTP},
	}
	maker, ok := makers[name]
	if !ok {
		return fmt.Errorf("no client %q", name)
	}
	c, err := maker.make()
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(answer{Version: version(maker.module)}); err != nil {
		return err
	}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		var q request
		if err := json.Unmarshal(lines.Bytes(), &q); err != nil {
			return err
		}
		a := answer{}
		value, err := c[q.Op](q)
		if a.Value = value; err != nil {
			a.Error = err.Error()
		}
		if err := out.Encode(a); err != nil {
			return err
		}
	}
	return lines.Err()
}

// version is that of a module in this program, or of Go.
func version(module string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, d := range info.Deps {
		if d.Path == module {
			return d.Version
		}
	}
	return info.GoVersion
}
