// SPDX-FileCopyrightText: 2026 The vault_redirect authors
// SPDX-License-Identifier: MIT

package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/hashicorp/consul/api"

	"github.com/vault-redirector/caddy-vault-redirect/internal/testing/wait"
)

// vaultRules is what Vault needs to register itself, and for its storage.
const vaultRules = `
agent_prefix "" { policy = "read" }
node_prefix ""  { policy = "read" }
service "vault" { policy = "write" }
key_prefix "vault/" { policy = "write" }
session_prefix "" { policy = "write" }
`

var errNoACL = errors.New("the cluster was started without ACL")

// Token makes a Consul token that may do what rules, in Consul's policy language, say, and returns its secret. It
// is known to every server when Token returns.
func (c *Cluster) Token(ctx context.Context, rules string) (secret string, err error) {
	if c.ManagementToken == "" {
		return "", fmt.Errorf("make a consul token: %w", errNoACL)
	}
	acl := c.Consuls[0].api.ACL()
	opts := (&api.WriteOptions{}).WithContext(ctx)
	policy, _, err := acl.PolicyCreate(&api.ACLPolicy{Name: "test-" + uuid(), Rules: rules}, opts)
	if err != nil {
		return "", fmt.Errorf("make a consul policy at %s: %w", c.Consuls[0].HTTPAddr, err)
	}
	token, _, err := acl.TokenCreate(&api.ACLToken{Policies: []*api.ACLLink{{ID: policy.ID}}}, opts)
	if err != nil {
		return "", fmt.Errorf("make a consul token at %s: %w", c.Consuls[0].HTTPAddr, err)
	}
	for _, a := range c.Consuls {
		if !a.Running() {
			continue
		}
		err := wait.Poll(ctx, pollEvery, "wait for a new token in "+a.Name, func(ctx context.Context) error {
			_, _, err := a.api.ACL().TokenReadSelf((&api.QueryOptions{Token: token.SecretID, AllowStale: true}).WithContext(ctx))
			return err
		})
		if err != nil {
			return "", err
		}
	}
	return token.SecretID, nil
}

// DeleteToken deletes a token that Token made. A client agent that has seen it may go on accepting it for as long as
// its cache holds (acl.token_ttl, 30 seconds).
func (c *Cluster) DeleteToken(ctx context.Context, secret string) error {
	if c.ManagementToken == "" {
		return fmt.Errorf("delete a consul token: %w", errNoACL)
	}
	acl := c.Consuls[0].api.ACL()
	token, _, err := acl.TokenReadSelf((&api.QueryOptions{Token: secret}).WithContext(ctx))
	if err != nil {
		return fmt.Errorf("delete a consul token at %s: %w", c.Consuls[0].HTTPAddr, err)
	}
	if _, err := acl.TokenDelete(token.AccessorID, (&api.WriteOptions{}).WithContext(ctx)); err != nil {
		return fmt.Errorf("delete a consul token at %s: %w", c.Consuls[0].HTTPAddr, err)
	}
	return nil
}

func uuid() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:])
}
